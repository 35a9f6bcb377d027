#include <cli/common.hpp>

#include <cstdio>
#include <cstdlib>

#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

#include <transformer/load_folder.hpp>
#include <transformer/load_gguf.hpp>
#include <transformer/open_adapter.hpp>

namespace cli {

void add_common(Command command, Common& options, Devices devices) {
  command.add_option("--compute", options.compute, "how products compute: fp32, bf16, int8 (inference) or auto")
      .one_of({"auto", "fp32", "bf16", "int8"})
      .shows_default();
  command.add_option("--threads", options.threads, "threads; 0: all cores").in_range(0, 1024).shows_default();
  Option device = command.add_option("--device", options.device, "where to run");
  (devices == Devices::cpu ? device.one_of({"cpu"}) : device.one_of({"cpu", "cuda"})).shows_default();
  command.add_option("--seed", options.seed, "seed of every random choice").shows_default();
  command.add_option("--json", options.json, "writes the results to this file as JSON");
  command.add_flag("--verbose", options.verbose, "lists the keys of the model's description that have no meaning here");
}

lowrank::Compute resolve_compute(const Common& common, const char* purpose) {
  using lowrank::Compute;
  const std::string use = purpose;
  if (common.device == "cuda") {
    lowrank::check<lowrank::ValueError>(common.compute == "auto" || common.compute == "bf16", "compute", common.compute,
                                        " is for the CPU; on a GPU products are bf16 with fp32 sums: use auto");
    return Compute::bf16;
  }
  lowrank::check<lowrank::ValueError>(common.compute != "int8" || use != "train", "compute",
                                      "int8 is for inference; train with fp32, bf16 or auto");
  if (common.compute == "bf16") return Compute::bf16;
  if (common.compute == "int8") return Compute::int8;
  // bf16, and 8 bits for a few tokens, leave the loss unchanged to three digits; they are faster where the processor multiplies them
  // natively.
  const bool native = lowrank::kernels::current_target().bf16.unit == 2;
  if (common.compute != "auto" || use == "evaluate" || !native) return Compute::fp32;
  return use == "generate" ? Compute::int8 : Compute::bf16;
}

const char* compute_name(lowrank::Compute compute) {
  static constexpr const char* names[] = {"fp32", "bf16", "int8"};
  return names[static_cast<int>(compute)];
}

void add_cache_option(Command command, std::string& word) {
  command.add_option("--cache", word, "how keys and values are cached: fp32, bf16, or auto: bf16 unless products compute in fp32")
      .one_of({"auto", "fp32", "bf16"})
      .shows_default();
}

transformer::CachePrecision parse_cache(const std::string& word) {
  if (word == "auto") return {};
  return word == "fp32" ? lowrank::CachePrecision::fp32 : lowrank::CachePrecision::bf16;
}

void add_special_tokens_option(Command command, transformer::SpelledTokens& spelled) {
  using transformer::SpelledTokens;
  command
      .add_choice("--special-tokens", spelled, {{"text", SpelledTokens::text}, {"tokens", SpelledTokens::tokens}},
                  "what becomes of a special token, such as <|im_end|>, that a text spells out")
      .shows_default("text");
}

void add_data_options(Command command, transformer::DataOptions& options) {
  add_special_tokens_option(command, options.spelled);
  command.add_flag("--strict-data", options.strict, "a record that is left out or cut, and a field without a use, is an error");
}

transformer::Dataset make_data(Session& session, const transformer::Records& records, const transformer::DataOptions& options) {
  transformer::Dataset data = transformer::make_dataset(session.need_tokenizer(), records, options);
  std::fprintf(stderr, "data: %s\n", lowrank::printable(data.report.summary()).c_str());
  for (const std::string& line : data.report.warnings()) std::fprintf(stderr, "warning: %s\n", lowrank::printable(line).c_str());
  return data;
}

std::vector<std::int32_t> encode_prompt(Session& session, const std::string& prompt, transformer::SpelledTokens spelled) {
  const Tokenizer& tokenizer = session.need_tokenizer();
  const transformer::Encoded encoded = tokenizer.encode_text(prompt, {transformer::TextPart::prompt, spelled});
  if (encoded.spelled_first)
    std::fprintf(stderr, "warning: the prompt spells out %s, which is put in front anyway; it is there once\n",
                 lowrank::printable(tokenizer.token_text(encoded.ids.front())).c_str());
  if (encoded.spelled_inner)
    std::fprintf(stderr, "warning: the prompt spells out %s, which is read as text; --special-tokens tokens reads it as the token\n",
                 lowrank::printable(tokenizer.token_text(*encoded.spelled_inner)).c_str());
  return encoded.ids;
}

std::string target_name(const Session& session) { return session.gpu ? gpu_name() : std::string(lowrank::kernels::target_name()); }

std::filesystem::path model_path(const std::string& name) {
  namespace fs = std::filesystem;
  const fs::path path = name == "demo" ? fs::path(LOWRANK_EXAMPLES_DIR) / "data" / "demo.gguf" : fs::path(name);
  std::error_code failure;
  lowrank::check<lowrank::IoError>(fs::exists(path, failure), "model", lowrank::path_text(path), ": ",
                                   failure ? failure.message() : "no such file", "; give a .gguf file, a Hugging Face folder, or demo");
  lowrank::check<lowrank::IoError>(fs::is_directory(path) || path.extension() != ".safetensors", "model", lowrank::path_text(path),
                                   " is one file of a model; give the folder that it is in, with its config.json");
  return path;
}

transformer::ModelConfig open_config(const std::string& name) {
  const std::filesystem::path path = model_path(name);
  if (std::filesystem::is_directory(path)) return transformer::folder_config(path);
  return transformer::gguf_config(lowrank::gguf::File::open(path));
}

void print_unread(const transformer::ModelConfig& config, const Common& common) {
  if (!common.verbose) return;
  for (const std::string& key : config.unread) std::fprintf(stderr, "not read: %s\n", lowrank::name_text(key).c_str());
}

const Tokenizer& Session::need_tokenizer() {
  if (tokenizer) return *tokenizer;
  using lowrank::check, lowrank::FormatError;
  const std::filesystem::path path = model_path(name);
  if (std::filesystem::is_directory(path)) {
    check<FormatError>(std::filesystem::exists(path / "tokenizer.json"), "model", name,
                       " has no tokenizer; add tokenizer.json, or use evaluate --ids");
    tokenizer = Tokenizer::from_folder(path);
  } else {
    tokenizer = Tokenizer::from_gguf(lowrank::gguf::File::open(path));
  }
  const Index tokens = tokenizer->vocab_size(), vocabulary = model.config.vocabulary;
  check<FormatError>(tokens <= vocabulary, "model", lowrank::path_text(path), ": the tokenizer has ", tokens, " tokens but the model ",
                     vocabulary);
  return *tokenizer;
}

Session open_session(const std::string& name, const Common& common, transformer::Base base, const char* purpose) {
  namespace fs = std::filesystem;
  if (common.threads > 0) lowrank::set_thread_count(common.threads);
  const lowrank::Compute compute = resolve_compute(common, purpose);
  const fs::path path = model_path(name);
  Session session{name, {}, compute};
  if (common.device == "cuda") session.gpu = use_gpu();  // before a large file is read in vain
  if (fs::is_directory(path)) {
    session.model = transformer::load_folder(path);
  } else {
    session.model = transformer::load_gguf(lowrank::gguf::File::open(path));
  }
  print_unread(session.model.config, common);
  transformer::convert_base(session.model, base);
  session.model.set_compute(compute);
  return session;
}

std::pair<std::string, double> split_weight(const std::string& spec, const char* meaning) {
  const auto colon = spec.rfind(':');
  std::error_code ignored;
  if (colon == std::string::npos || std::filesystem::exists(spec, ignored)) return {spec, 1};
  char* end = nullptr;
  const double weight = std::strtod(spec.c_str() + colon + 1, &end);
  lowrank::check<lowrank::ValueError>(colon + 1 < spec.size() && *end == '\0' && std::isfinite(weight), "adapter", '"', spec,
                                      "\": what follows the last colon is ", meaning, ", a number such as 0.5");
  return {spec.substr(0, colon), weight};
}

std::unique_ptr<LoraSet> open_adapters(const Transformer& model, const std::vector<std::string>& specs) {
  if (specs.empty()) return nullptr;
  std::vector<LoraSet> sets;
  for (const std::string& spec : specs) {
    const auto [path, weight] = split_weight(spec, "the scale");
    sets.push_back(transformer::bind(model, transformer::open_adapter(model.config, path), weight));
  }
  auto set = std::make_unique<LoraSet>(sets.size() == 1 ? std::move(sets.front()) : lowrank::sum(sets));
  lowrank::prepare(*set, model);
  return set;
}

Json common_report(const Session& session, const LoraSet* lora) {
  const auto adapter = lora ? lowrank::parameter_count(*lora) : 0;
  const auto total = session.model.parameter_count() + adapter;
  return {{"model", session.name},
          {"trainable_parameters", adapter},
          {"total_parameters", total},
          {"trainable_percent", 100.0 * static_cast<double>(adapter) / static_cast<double>(total)},
          {"base_bytes", session.model.bytes()},
          {"adapter_bytes", adapter * static_cast<Index>(sizeof(float))},
          {"peak_rss_bytes", peak_memory()},
          {"threads", lowrank::thread_count()},
          {"compute", compute_name(session.compute)},
          {"device", session.gpu ? "cuda" : "cpu"},
          {"target", target_name(session)}};
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  lowrank::AtomicFile file(path, "write");
  file.write(text);
  file.commit();
}

void ensure_writable(const std::filesystem::path& path, bool is_folder) {
  namespace fs = std::filesystem;
  std::error_code failure;
  if (is_folder) {
    lowrank::check<lowrank::IoError>(!fs::exists(path, failure) || fs::is_directory(path, failure), "output", lowrank::path_text(path),
                                     " exists and is not a folder; choose another --out");
    fs::create_directories(path, failure);
    lowrank::check<lowrank::IoError>(!failure, "output", "cannot create the folder ", lowrank::path_text(path), ": ", failure.message(),
                                     "; choose another --out");
  }
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
    lowrank::AtomicFile probe(is_folder ? path / name : path, "output");  // removed again: it is never committed
    if (!is_folder) break;
  }
}

}  // namespace cli
