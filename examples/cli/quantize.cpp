#include <cstdio>
#include <set>

#include <algorithm>
#include <map>
#include <optional>

#include <lowrank/io/bitsandbytes_write.hpp>
#include <lowrank/io/gguf_matrix.hpp>
#include <lowrank/io/imatrix.hpp>
#include <lowrank/io/json.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/quant/any_matrix.hpp>

#include <transformer/data.hpp>
#include <transformer/folder.hpp>
#include <transformer/load_folder.hpp>
#include <transformer/quantize_gguf.hpp>

#include <cli/common.hpp>

namespace cli {
namespace quantize {

namespace fs = std::filesystem;
using lowrank::StoredTensor;

struct Options {
  std::string model, out, format = "nf4", to, imatrix, json;
  Index block = 64;
  bool double_quant = false, pure = false;
};

/// The weights that transformers replaces: every linear map but the head.
std::set<std::string> quantized_names(const transformer::ModelConfig& config) {
  std::set<std::string> names;
  for (Index s = 0; s < config.head_slot(); ++s) names.insert(config.path(s) + ".weight");
  return names;
}

/// A weight as it lies in its mapped file.
lowrank::AnyMatrix mapped_matrix(const StoredTensor& tensor) {
  const auto as = [&]<class Element>(Element) {
    return lowrank::AnyMatrix(lowrank::StoredMatrix<Element>(tensor.shape.at(0), tensor.shape.at(1), tensor.bytes));
  };
  if (tensor.dtype == lowrank::DType::f32) return as(float{});
  return tensor.dtype == lowrank::DType::bf16 ? as(lowrank::BFloat16{}) : as(lowrank::Half{});
}

const char* dtype_text(lowrank::DType dtype) {
  return dtype == lowrank::DType::f32 ? "float32" : dtype == lowrank::DType::bf16 ? "bfloat16" : "float16";
}

/// config.json with the quantization_config that transformers writes; everything else stays. The size of the blocks stands beside each
/// weight.
std::string quantized_config(const std::string& text, const Options& o, const char* compute) {
  auto config = lowrank::json::parse(text, "quantize", "config.json");  // sorted, as transformers saves it
  config["quantization_config"] = {{"_load_in_4bit", true},
                                   {"_load_in_8bit", false},
                                   {"bnb_4bit_compute_dtype", compute},
                                   {"bnb_4bit_quant_storage", "uint8"},
                                   {"bnb_4bit_quant_type", o.format},
                                   {"bnb_4bit_use_double_quant", o.double_quant},
                                   {"llm_int8_enable_fp32_cpu_offload", false},
                                   {"llm_int8_has_fp16_weight", false},
                                   {"llm_int8_skip_modules", nullptr},
                                   {"llm_int8_threshold", 6.0},
                                   {"load_in_4bit", true},
                                   {"load_in_8bit", false},
                                   {"quant_method", "bitsandbytes"}};
  return lowrank::json::text_of(config, 2) + '\n';
}

struct Counts {
  Index matrices = 0, weights = 0;
  std::size_t bytes_before = 0, bytes_after = 0;
  const char* dtype = "float32";
};

/// All tensors of the quantized model: 4-bit ones in memory, the others still mapped.
std::vector<StoredTensor> quantized_tensors(const transformer::FolderTensors& folder, const std::set<std::string>& names, const Options& o,
                                            Counts& counts) {
  std::vector<StoredTensor> all;
  for (const auto& file : folder.files())
    for (const StoredTensor& tensor : file.tensors()) {
      counts.bytes_before += tensor.bytes.size();
      if (!names.contains(tensor.name)) {
        all.push_back(tensor);
        counts.bytes_after += tensor.bytes.size();
        continue;
      }
      counts.dtype = dtype_text(tensor.dtype);
      const std::string prefix = tensor.name.substr(0, tensor.name.size() - std::string_view(".weight").size());
      const lowrank::bitsandbytes::QuantState state{
          .quant_type = o.format, .block = o.block, .dtype = counts.dtype, .is_nested = o.double_quant};
      for (StoredTensor& part : lowrank::bitsandbytes::save_weight(mapped_matrix(tensor), state, prefix).tensors) {
        counts.bytes_after += part.bytes.size();
        all.push_back(std::move(part));
      }
      ++counts.matrices;
      counts.weights += tensor.size();
    }
  return all;
}

void refuse_quantized(const fs::path& folder) {
  const auto path = folder / "config.json";
  const auto config = lowrank::json::parse(transformer::read_text(path), "quantize", lowrank::path_text(path));
  lowrank::check<lowrank::FormatError>(!config.is_object() || lowrank::json::member(config, "quantization_config").is_null(), "quantize",
                                       lowrank::path_text(path), " has a quantization_config already; give the model before quantization");
}

/// What was done, a line for each type, and what is worth knowing about it.
void print_types(const std::vector<transformer::QuantizedTensor>& changed) {
  struct Sums {
    Index matrices = 0, weights = 0, weighed = 0;
    std::size_t bytes = 0;
  };
  std::map<std::string, Sums> types;
  std::map<std::pair<std::string, std::string>, Index> fallbacks;
  Index requantized = 0;
  for (const auto& tensor : changed) {
    const std::string stored(lowrank::ggml_traits(tensor.stored).name), wanted(lowrank::ggml_traits(tensor.wanted).name);
    Sums& sums = types[stored];
    ++sums.matrices, sums.weights += tensor.weights, sums.bytes += tensor.bytes, sums.weighed += tensor.weighed;
    if (stored != wanted) ++fallbacks[{wanted, stored}];
    if (lowrank::ggml_traits(tensor.before).block_size > 1) ++requantized;
  }
  Table table({"type", "matrices", "weights", "bytes", "weighed by importance"});
  for (const auto& [type, sums] : types)
    table.add({type, format("%ld", static_cast<long>(sums.matrices)), format("%ld", static_cast<long>(sums.weights)),
               human_bytes(static_cast<long long>(sums.bytes)), format("%ld", static_cast<long>(sums.weighed))});
  table.print();
  for (const auto& [pair, count] : fallbacks)
    std::printf("  %ld matrices are %s instead of %s: their rows do not divide into its blocks\n", static_cast<long>(count),
                pair.second.c_str(), pair.first.c_str());
  if (requantized > 0)
    std::printf("  %ld matrices were quantized already: what that lost is lost, and this loses more\n", static_cast<long>(requantized));
}

/// --to: a GGUF file in another type.
void run_gguf(const Options& o) {
  std::error_code failure;
  const fs::path from = model_path(o.model);
  lowrank::check<lowrank::ValueError>(
      !fs::is_directory(from, failure), "quantize", "--to ", o.to,
      " writes a GGUF file from another; make one of this folder with llama.cpp's convert_hf_to_gguf.py first");
  ensure_writable(o.out, false);
  if (!o.json.empty()) ensure_writable(o.json, false);
  const double begin = now();
  std::optional<lowrank::gguf::ImportanceMatrix> importance;
  if (!o.imatrix.empty()) importance = lowrank::gguf::ImportanceMatrix::open(o.imatrix);
  const auto type = lowrank::gguf::writable_type(o.to);
  transformer::QuantizeOptions options{.mixture = transformer::find_mixture(o.to), .pure = o.pure};
  if (type) options.type = *type;
  if (importance) options.importance = &*importance;
  const auto changed = transformer::quantize_gguf(from, o.out, options);
  const double seconds = now() - begin;
  const auto fallbacks = std::count_if(changed.begin(), changed.end(), [](const auto& tensor) { return tensor.stored != tensor.wanted; });
  const std::size_t before = fs::file_size(from), after = fs::file_size(o.out);
  print_types(changed);
  std::printf("  %s: %s before, %s now; %.1f s, peak memory %s\n", o.out.c_str(), human_bytes(static_cast<long long>(before)).c_str(),
              human_bytes(static_cast<long long>(after)).c_str(), seconds, human_bytes(peak_memory()).c_str());
  write_json(o.json, {{"model", o.model},
                      {"out", o.out},
                      {"to", o.to},
                      {"matrices", changed.size()},
                      {"fallbacks", fallbacks},
                      {"bytes_before", before},
                      {"bytes_after", after},
                      {"seconds", seconds},
                      {"peak_rss_bytes", peak_memory()}});
}

void run(const Options& o) {
  if (!o.to.empty()) return run_gguf(o);
  const fs::path from = o.model, to = o.out;
  std::error_code failure;
  lowrank::check<lowrank::IoError>(fs::is_directory(from, failure), "quantize", lowrank::path_text(from),
                                   " is not a folder; give a Hugging Face folder with config.json and model.safetensors");
  lowrank::check<lowrank::ValueError>(!fs::equivalent(from, to, failure), "quantize", "--out is the folder of --model; choose another");
  refuse_quantized(from);
  const transformer::ModelConfig config = transformer::load_folder(from).config;  // names, shapes and numbers are checked
  fs::create_directories(to, failure);
  lowrank::check<lowrank::IoError>(!failure, "quantize", "cannot create the folder ", lowrank::path_text(to), ": ", failure.message(),
                                   "; choose another --out");
  ensure_writable(to / "model.safetensors", false);
  if (!o.json.empty()) ensure_writable(o.json, false);
  const double begin = now();
  const transformer::FolderTensors folder(from);
  Counts counts;
  const auto tensors = quantized_tensors(folder, quantized_names(config), o, counts);
  lowrank::safetensors::write(to / "model.safetensors", tensors, {{"format", "pt"}});
  transformer::copy_companions(from, to);
  write_text(to / "config.json", quantized_config(transformer::read_text(from / "config.json"), o, counts.dtype));
  const double seconds = now() - begin;
  std::printf("%s: %ld matrices, %ld weights in %s%s, blocks of %ld; %s before, %s now; %.1f s, peak memory %s\n", o.out.c_str(),
              static_cast<long>(counts.matrices), static_cast<long>(counts.weights), o.format.c_str(),
              o.double_quant ? ", double-quantized" : "", static_cast<long>(o.block),
              human_bytes(static_cast<long long>(counts.bytes_before)).c_str(),
              human_bytes(static_cast<long long>(counts.bytes_after)).c_str(), seconds, human_bytes(peak_memory()).c_str());
  write_json(o.json, {{"model", o.model},
                      {"out", o.out},
                      {"format", o.format},
                      {"block", o.block},
                      {"double_quant", o.double_quant},
                      {"quantized_weights", counts.weights},
                      {"bytes_before", counts.bytes_before},
                      {"bytes_after", counts.bytes_after},
                      {"seconds", seconds},
                      {"peak_rss_bytes", peak_memory()}});
}

}  // namespace quantize

void add_quantize(Command app) {
  auto o = std::make_shared<quantize::Options>();
  Command command =
      app.add_command("quantize", "writes a model in fewer bits: a folder as bitsandbytes does, a GGUF file as llama.cpp does");
  command.add_option("--model", o->model, "a Hugging Face folder; with --to a .gguf file").required();
  command.add_option("--out", o->out, "folder for the result; with --to a .gguf file").required();
  Option stored_as = command.add_option("--format", o->format, "how weights of a folder are stored").one_of({"nf4", "fp4"}).shows_default();
  std::vector<std::string> types = lowrank::gguf::writable_types();
  for (const auto& mixture : transformer::mixtures()) types.emplace_back(mixture.name);
  Option to = command.add_option("--to", o->to, "type of a GGUF file's matrices, or a mixture of llama.cpp").one_of(types);
  to.excludes(stored_as);
  command.add_option("--imatrix", o->imatrix, "an importance matrix of llama-imatrix").needs(to);
  command.add_flag("--pure", o->pure, "all matrices in one type, the head too").needs(to);
  command.add_option("--block", o->block, "weights that share a scale").one_of({32, 64, 128, 256, 512, 1024, 2048, 4096}).shows_default();
  command.add_flag("--double-quant", o->double_quant, "stores the scales in 8 bits as well");
  command.add_option("--json", o->json, "writes the results to this file as JSON");
  command.when_called([o] { quantize::run(*o); });
}

}  // namespace cli
