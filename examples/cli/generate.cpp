#include <cstdio>

#include <transformer/generate.hpp>

#include <cli/common.hpp>

namespace cli {
namespace generate {

struct Options {
  Common common;
  std::string model, prompt, cache = "auto", base = "native";
  std::vector<std::string> adapters;
  transformer::GenerateOptions generate;
  transformer::SpelledTokens spelled = transformer::SpelledTokens::text;
};

void run(Options o) {
  o.generate.sampler.seed = o.common.seed;
  o.generate.cache = parse_cache(o.cache);
  transformer::Sampler{o.generate.sampler};  // refuses wrong options before the model is read
  if (!o.common.json.empty()) ensure_writable(o.common.json, false);
  Session session = open_session(o.model, o.common, transformer::parse_base(o.base), "generate");
  const auto lora = open_adapters(session.model, o.adapters);
  const auto prompt = encode_prompt(session, o.prompt, o.spelled);
  const Tokenizer& tokenizer = session.need_tokenizer();
  std::printf("%s", o.prompt.c_str());
  std::fflush(stdout);
  const auto show = [](std::string_view piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  };
  const auto result = on_device(session, [&](auto device) {
    return transformer::generate<decltype(device)>(session.model, lora.get(), tokenizer, prompt, o.generate, show);
  });
  std::printf("\n");
  const double rate = result.seconds > 0 ? static_cast<double>(result.ids.size()) / result.seconds : 0;
  std::fprintf(stderr, "%zu tokens, %.1f tokens/s\n", result.ids.size(), rate);
  auto json = common_report(session, lora.get());
  json["text"] = result.text;
  json["prompt_tokens"] = result.prompt_tokens;
  json["generated_tokens"] = result.ids.size();
  json["generated_ids"] = result.ids;
  json["tokens_per_second"] = rate;
  write_json(o.common.json, json);
}

}  // namespace generate

void add_generate(Command app) {
  auto o = std::make_shared<generate::Options>();
  Command command = app.add_command("generate", "continues a prompt");
  command.add_option("--model", o->model, "a .gguf file, a Hugging Face folder, or demo").required();
  command.add_option("--base", o->base, "format of the model's weights").one_of({"native", "nf4", "fp32", "bf16"}).shows_default();
  command.add_option("--adapter", o->adapters, "a PEFT folder, as PATH or PATH:scale; may be repeated, the updates add up");
  command.add_option("--prompt", o->prompt, "the text to continue").required();
  command.add_option("--tokens", o->generate.tokens, "at most so many new tokens").in_range(1, 1 << 24).shows_default();
  command.add_option("--temperature", o->generate.sampler.temperature, "0: the most likely token").not_negative().shows_default();
  command.add_option("--top-k", o->generate.sampler.top_k, "draw from the k most likely; 0: all").not_negative().shows_default();
  command.add_option("--top-p", o->generate.sampler.top_p, "draw from the most likely that hold this probability")
      .in_range(0.0, 1.0)
      .shows_default();
  add_special_tokens_option(command, o->spelled);
  add_cache_option(command, o->cache);
  add_common(command, o->common, Devices::cpu_and_cuda);
  command.when_called([o] { generate::run(*o); });
}

}  // namespace cli
