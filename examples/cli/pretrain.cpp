#include <algorithm>
#include <cstdio>

#include <transformer/initialize.hpp>
#include <transformer/save_gguf.hpp>
#include <transformer/train.hpp>

#include <cli/common.hpp>

namespace cli {
namespace pretrain {

/// The recipe of the embedded model is these defaults on examples/data/pretrain.
struct Options {
  Common common;
  std::string data = std::string(LOWRANK_EXAMPLES_DIR) + "/data/pretrain", out, name = "lowrank demo";
  Index sequence = 128;
  transformer::ModelConfig sizes{.vocabulary = 257,
                                 .hidden = 192,
                                 .layers = 6,
                                 .heads = 6,
                                 .kv_heads = 2,
                                 .head_size = 32,
                                 .intermediate = 512,
                                 .context = 512,
                                 .tied_head = true,
                                 .rope = {}};
  transformer::TrainOptions train{.steps = 1500, .batch = 16, .warmup = 100, .learning_rate = 3e-3, .weight_decay = 0.05};
};

/// The bytes of all .txt files, each closed by end-of-text, in the order of their names.
std::vector<std::int32_t> read_corpus(const std::filesystem::path& path) {
  std::vector<std::filesystem::path> files{path};
  if (std::filesystem::is_directory(path)) {
    files.clear();
    for (const auto& entry : std::filesystem::directory_iterator(path))
      if (entry.path().extension() == ".txt") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
  }
  std::vector<std::int32_t> ids;
  for (const auto& file : files) {
    for (const char c : transformer::read_text(file)) ids.push_back(static_cast<unsigned char>(c));
    ids.push_back(256);
  }
  return ids;
}

void run(Options o) {
  o.train.seed = o.common.seed;
  o.train.schedule = transformer::Schedule::cosine;
  o.sizes.rope = {o.sizes.head_size, 10000, lowrank::RopePairs::interleaved, {}};
  transformer::Dataset data = transformer::split_stream(read_corpus(o.data), o.sequence, o.data);
  if (data.train.size() > 1 && static_cast<Index>(data.train.back().ids.size()) <= o.sequence)
    data.train.pop_back();  // the recipe has whole sequences alone
  Session session{o.name, transformer::random_model(o.sizes, o.common.seed), resolve_compute(o.common, "train")};
  session.model.set_compute(session.compute);
  std::fprintf(stderr, "pretraining %ld parameters on %zu sequences of %ld bytes\n", static_cast<long>(session.model.parameter_count()),
               data.train.size(), static_cast<long>(o.sequence));
  const auto parameters = lowrank::parameters(session.model);
  lowrank::AdamW<float> optimizer(parameters,
                                  {.learning_rate = o.train.learning_rate, .beta2 = 0.99, .weight_decay = o.train.weight_decay});
  Progress progress(o.train.steps, "step");
  transformer::train(session.model, nullptr, optimizer, parameters, data.train, o.train, [&](const transformer::StepReport& step) {
    progress.show(step.step + 1, step.loss, static_cast<double>(step.tokens) / step.seconds);
  });
  transformer::save_byte_model(session.model, o.name, o.out);
  Transformer saved = transformer::load_model(o.out);
  const double dense = transformer::evaluate(session.model, nullptr, data.held_out).mean_nll,
               quantized = transformer::evaluate(saved, nullptr, data.held_out).mean_nll;
  std::printf("held-out loss %.4f nats a byte, %.4f in 4 bits; %s, %s\n", dense, quantized, o.out.c_str(),
              human_bytes(static_cast<long long>(std::filesystem::file_size(o.out))).c_str());
  auto json = common_report(session, nullptr);
  json["held_out_loss"] = dense;
  json["held_out_loss_quantized"] = quantized;
  write_json(o.common.json, json);
}

}  // namespace pretrain

void add_pretrain(Command app) {
  auto o = std::make_shared<pretrain::Options>();
  Command command = app.add_command("pretrain", "trains the tiny byte-level model of the demo from nothing and writes it as GGUF");
  command.add_option("--data", o->data, "a text file, or a folder of .txt files").shows_default();
  command.add_option("--out", o->out, "the .gguf file to write").required();
  command.add_option("--name", o->name, "name of the model").shows_default();
  command.add_option("--steps", o->train.steps, "optimizer steps").in_range(1, 1 << 30).shows_default();
  command.add_option("--batch", o->train.batch, "sequences a step").in_range(1, 1 << 16).shows_default();
  command.add_option("--sequence", o->sequence, "bytes a sequence").in_range(1, 512).shows_default();
  command.add_option("--learning-rate", o->train.learning_rate, "peak learning rate of AdamW").positive().shows_default();
  add_common(command, o->common);
  command.when_called([o] { pretrain::run(*o); });
}

}  // namespace cli
