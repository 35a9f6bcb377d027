#include <cstdio>

#include <lowrank/io/safetensors.hpp>

#include <transformer/generate.hpp>
#include <transformer/train.hpp>

#include <cli/common.hpp>

namespace cli {
namespace evaluate {

struct Options {
  Common common;
  std::string model, data, ids, logits, base = "native";
  std::vector<std::string> adapters;
  Index sequence = 0;
  transformer::DataOptions reading = {.hold_out = false};
};

/// The logits of int32 ids [B, T], written as float32 [B, T, vocabulary].
void write_logits(const Options& o, Session& session, LoraSet* lora) {
  namespace safetensors = lowrank::safetensors;
  using lowrank::FormatError;
  const auto file = safetensors::File::open(o.ids);
  const auto& ids = file.at("ids");
  lowrank::check<FormatError>(ids.dtype == lowrank::DType::i32 && ids.shape.size() == 2 && ids.size() > 0, "evaluate", o.ids,
                              ": ids must be int32 [sequences, tokens], not empty; it is ", lowrank::dtype_name(ids.dtype), ' ',
                              lowrank::shape_text(ids.shape));
  const Index sequences = ids.shape[0], length = ids.shape[1], vocabulary = transformer::vocabulary(session.model, lora);
  std::vector<float> logits;
  for (Index i = 0; i < sequences; ++i) {
    const std::span row(ids.bytes.as<std::int32_t>() + i * length, static_cast<std::size_t>(length));
    const lowrank::Activation<float> part =
        on_device(session, [&](auto device) { return transformer::read_logits<decltype(device)>(session.model, lora, row); });
    if (!part.allFinite())
      lowrank::fail<lowrank::ValueError>("evaluate", "the logits of sequence ", i, " are not finite",
                                         transformer::not_finite_reason(session.model, lora));
    logits.insert(logits.end(), part.data(), part.data() + part.size());
  }
  const auto tensor = lowrank::make_tensor<float>("logits", {sequences, length, vocabulary}, logits);
  safetensors::write(o.logits, {&tensor, 1});
}

void run(const Options& o) {
  for (const std::string& path : {o.logits, o.common.json})
    if (!path.empty()) ensure_writable(path, false);
  std::optional<transformer::Records> records;
  if (!o.data.empty()) records = transformer::read_records(o.data);  // before a large model is read in vain
  Session session = open_session(o.model, o.common, transformer::parse_base(o.base), "evaluate");
  const auto lora = open_adapters(session.model, o.adapters);
  auto json = common_report(session, lora.get());
  if (!o.ids.empty()) {
    write_logits(o, session, lora.get());
    json["peak_rss_bytes"] = peak_memory();
  }
  if (records) {
    transformer::DataOptions reading = o.reading;
    reading.length = std::min(session.model.config.context, o.sequence > 0 ? o.sequence : Index{1024});
    const auto examples = make_data(session, *records, reading).train;
    const auto result =
        on_device(session, [&](auto device) { return transformer::evaluate<decltype(device)>(session.model, lora.get(), examples); });
    std::printf("mean negative log-likelihood %.4f nats a token, perplexity %.3f, over %ld tokens\n", result.mean_nll, result.perplexity(),
                static_cast<long>(result.tokens));
    json["mean_nll"] = result.mean_nll;
    json["perplexity"] = result.perplexity();
    json["tokens"] = result.tokens;
    json["peak_rss_bytes"] = peak_memory();
  }
  write_json(o.common.json, json);
}

}  // namespace evaluate

void add_evaluate(Command app) {
  auto o = std::make_shared<evaluate::Options>();
  Command command = app.add_command("evaluate", "measures how well a model predicts a text, or writes its logits");
  command.add_option("--model", o->model, "a .gguf file, a Hugging Face folder, or demo").required();
  command.add_option("--base", o->base, "format of the model's weights").one_of({"native", "nf4", "fp32", "bf16"}).shows_default();
  command.add_option("--adapter", o->adapters, "a PEFT folder, as PATH or PATH:scale; may be repeated");
  Option data = command.add_option("--data", o->data, "what to predict: text, JSON lines, a JSON array or CSV");
  Option ids = command.add_option("--ids", o->ids, "safetensors file with int32 ids [sequences, tokens]");
  Option logits = command.add_option("--logits", o->logits, "safetensors file to write float32 logits [sequences, tokens, vocabulary] to");
  command.add_option("--sequence", o->sequence, "tokens that are read together; 0: the context, at most 1024")
      .not_negative()
      .shows_default();
  add_data_options(command, o->reading);
  ids.needs(logits);
  logits.needs(ids);
  add_common(command, o->common, Devices::cpu_and_cuda);
  command.when_called([o, data, ids] {
    if (!data.is_given() && !ids.is_given()) fail_required("--data or --ids");
    evaluate::run(*o);
  });
}

}  // namespace cli
