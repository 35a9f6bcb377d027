#include <cstdio>

#include <lowrank/io/peft.hpp>

#include <transformer/open_adapter.hpp>

#include <cli/common.hpp>

namespace cli {
namespace adapter_convert {

using transformer::AdapterFormat;

struct Options {
  std::string in, out, model, format;
};

void run(const Options& o) {
  const bool to_gguf = o.format.empty() ? o.out.ends_with(".gguf") : o.format == "gguf";
  const AdapterFormat from = transformer::adapter_format(o.in);
  lowrank::check<lowrank::ValueError>(!o.model.empty() || (!to_gguf && from != AdapterFormat::gguf), "adapter convert",
                                      "give --model: GGUF files keep the rows of q and k in an order that depends on the base's heads");
  lowrank::Adapter adapter;
  if (o.model.empty()) {
    adapter = transformer::open_adapter(o.in);
  } else {
    const transformer::ModelConfig config = open_config(o.model);
    adapter = transformer::open_adapter(config, o.in);
    if (to_gguf) transformer::save_gguf_adapter(config, adapter, o.out);
    if (!adapter.config.base_model) adapter.config.base_model = o.model;
  }
  if (!to_gguf) lowrank::peft::save(adapter, o.out);
  static constexpr const char* names[] = {"PEFT", "GGUF", "mlx-lm"};
  std::printf("%s: %zu modules, %ld parameters, from %s to %s\n", o.out.c_str(), adapter.layers.size(),
              static_cast<long>(adapter.parameter_count()), names[static_cast<int>(from)], to_gguf ? "GGUF" : "PEFT");
  for (const std::string& note : adapter.notes) std::printf("  note: %s\n", note.c_str());
}

}  // namespace adapter_convert

void add_adapter_convert(Command adapter) {
  auto o = std::make_shared<adapter_convert::Options>();
  Command command = adapter.add_command("convert", "writes an adapter of PEFT, llama.cpp (GGUF) or mlx-lm for PEFT or llama.cpp");
  command.add_option("in", o->in, "a PEFT or mlx-lm folder, or a GGUF adapter").required();
  command.add_option("out", o->out, "folder (peft) or file (gguf) for the result").required();
  command.add_option("--model", o->model, "the base: a .gguf file, a Hugging Face folder, or demo; needed where GGUF is involved");
  command.add_option("--format", o->format, "what to write; default: gguf where OUT ends in .gguf, else peft").one_of({"peft", "gguf"});
  command.when_called([o] { adapter_convert::run(*o); });
}

}  // namespace cli
