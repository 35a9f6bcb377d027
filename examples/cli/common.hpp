#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <transformer/adapters.hpp>
#include <transformer/data/load.hpp>
#include <transformer/load.hpp>
#include <transformer/model.hpp>
#include <transformer/tokenizer.hpp>

#include <cli/command.hpp>
#include <cli/report.hpp>

namespace cli {

using transformer::LoraSet;
using transformer::Tokenizer;
using transformer::Transformer;

/// Options that every command has.
struct Common {
  std::string compute = "auto", device = "cpu";
  int threads = 0;
  std::uint64_t seed = 0;
  std::string json;
  bool verbose = false;
};

/// Whether a command can run its model on a GPU.
enum class Devices { cpu, cpu_and_cuda };

void add_common(Command command, Common& options, Devices devices = Devices::cpu);

/// A model with what is needed to use it.
struct Session {
  std::string name;
  Transformer model;
  lowrank::Compute compute = lowrank::Compute::fp32;
  std::shared_ptr<void> gpu = {};  ///< with --device cuda: the GPU, in use while this lives

  std::optional<Tokenizer> tokenizer = {};  ///< once it was needed

  /// Read from the model's files when it is first asked for: what needs no text needs none. Throws FormatError where there is none.
  const Tokenizer& need_tokenizer();
};

/// What a special token that a text spells out becomes: --special-tokens.
void add_special_tokens_option(Command command, transformer::SpelledTokens& spelled);

/// How a command reads its data: --strict-data and --special-tokens.
void add_data_options(Command command, transformer::DataOptions& options);

/// Examples of records, with a line on stderr that says what became of them, and one for each thing that is unusual.
transformer::Dataset make_data(Session& session, const transformer::Records& records, const transformer::DataOptions& options);

/// The tokens of a prompt; a line on stderr where it spells special tokens out.
std::vector<std::int32_t> encode_prompt(Session& session, const std::string& prompt, transformer::SpelledTokens spelled);

/// Calls run(Cpu{}) or run(Cuda{}), by where the session's model runs.
template <class Run>
auto on_device([[maybe_unused]] const Session& session, const Run& run) {
#if defined(LOWRANK_CLI_HAS_CUDA)
  if (session.gpu) return run(lowrank::Cuda{});
#endif
  return run(lowrank::Cpu{});
}

/// The GPU of --device cuda, in use while the result lives. Throws Error where there is none or this build knows none.
std::shared_ptr<void> use_gpu();

/// The name of that GPU.
std::string gpu_name();

/// The compute type of --compute for a purpose: train, generate or evaluate.
lowrank::Compute resolve_compute(const Common& common, const char* purpose);

/// The name that --compute knows.
const char* compute_name(lowrank::Compute compute);

/// How a command's model caches keys and values: --cache, and what its word means.
void add_cache_option(Command command, std::string& word);
transformer::CachePrecision parse_cache(const std::string& word);

/// What a session's model runs on: the GPU, or the instruction set of the kernels.
std::string target_name(const Session& session);

/// With --verbose, on stderr: what the model's file says and this program has no use for.
void print_unread(const transformer::ModelConfig& config, const Common& common);

/// The file or folder that a --model means. Throws IoError when there is none.
std::filesystem::path model_path(const std::string& name);

/// The sizes of the model that a --model means, without its weights. Throws IoError, FormatError.
transformer::ModelConfig open_config(const std::string& name);

/// Opens `demo`, a .gguf file or a Hugging Face folder and applies the common options to it.
Session open_session(const std::string& name, const Common& common, transformer::Base base, const char* purpose);

/// Splits PATH:number, or PATH alone (1). A file of that whole name is a path. Throws ValueError saying what the number means.
std::pair<std::string, double> split_weight(const std::string& spec, const char* meaning);

/// Adapters of any format given as PATH or PATH:scale, summed; null when there are none.
std::unique_ptr<LoraSet> open_adapters(const Transformer& model, const std::vector<std::string>& specs);

/// Fields that every report has.
Json common_report(const Session& session, const LoraSet* lora);

/// Writes a file whole or not at all.
void write_text(const std::filesystem::path& path, const std::string& text);
/// Throws IoError unless an output can be written there: to be asked before hours of work, not after. Makes the folder.
void ensure_writable(const std::filesystem::path& path, bool is_folder);

void add_demo(Command app);
void add_finetune(Command app);
void add_generate(Command app);
void add_chat(Command app);
void add_evaluate(Command app);
void add_adapter(Command app);
void add_adapter_algebra(Command adapter);
void add_adapter_convert(Command adapter);
void add_adapter_merge(Command adapter);
void add_bench(Command app);
void add_pretrain(Command app);
void add_quantize(Command app);

}  // namespace cli
