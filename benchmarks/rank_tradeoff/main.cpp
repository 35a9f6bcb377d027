#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include <lowrank/core/matrix.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

#include <rank_tradeoff/options.hpp>

// rank_tradeoff: what a rank costs and what it brings, each figure beside its prediction. See benchmarks/README.md.

namespace rank_tradeoff {
namespace {

std::string processor() {
  std::string name = "unknown processor";
  if (std::FILE* file = std::fopen("/proc/cpuinfo", "r")) {
    char line[256];
    while (std::fgets(line, sizeof line, file)) {
      const std::string text = line;
      if (text.rfind("model name", 0) != 0) continue;
      name = text.substr(text.find(':') + 2);
      name.erase(name.find_last_not_of('\n') + 1);
      break;
    }
    std::fclose(file);
  }
  return name;
}

std::string date() {
  char text[64];
  const std::time_t now = std::time(nullptr);
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

/// smollm2 is the file that `sh examples/run.sh --model smollm2` fetches.
std::filesystem::path find_model(const std::string& name) {
  if (name.empty() || name != "smollm2") return name;
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  const std::filesystem::path folder = cache && *cache ? std::filesystem::path(cache) : std::filesystem::path(home ? home : ".") / ".cache";
  const auto file = folder / "lowrank" / "SmolLM2-135M-Instruct.Q4_1.gguf";
  lowrank::check<lowrank::IoError>(std::filesystem::exists(file), "rank_tradeoff", file,
                                   " is not there; `sh examples/run.sh bench --model smollm2` fetches it");
  return file;
}

void set_context(const Options& options, Results& results) {
  char host[256] = "unknown";
  gethostname(host, sizeof host - 1);
  results.context = {{"date", date()},
                     {"host_name", host},
                     {"processor", processor()},
                     {"threads", std::to_string(lowrank::thread_count())},
                     {"target", lowrank::kernels::target_name()},
                     {"compiler", __VERSION__},
                     {"flags", LOWRANK_BUILD_FLAGS},
                     {"eigen", lowrank::concat(EIGEN_WORLD_VERSION, '.', EIGEN_MAJOR_VERSION, '.', EIGEN_MINOR_VERSION)},
                     {"mode", options.quick ? "quick" : "full"},
                     {"budget_seconds", std::to_string(static_cast<int>(options.seconds))}};
}

/// What a short run leaves out of the sweep.
void shorten(Options& options) {
  options.sizes = {576, 1536};
  options.tokens = {1, 64};
  options.ranks = {1, 8, 64, 512};
  options.bases = {"fp32", "nf4"};
  options.model_ranks = {1, 8, 64};
}

/// JSON, CSV and HTML. Called after each half, so that what was measured is there whatever befalls the other.
void write(const Results& results, const std::filesystem::path& folder) {
  write_json(results, folder / "rank_tradeoff.json");
  write_csv(results, folder / "rank_tradeoff.csv");
  write_html(results, folder / "rank_tradeoff.html");
}

void run(Options options) {
  if (options.quick) shorten(options);
  if (options.seconds <= 0) options.seconds = options.quick ? 165 : 1680;
  options.speed = options.only != "quality";
  options.quality = options.only != "speed";
  std::filesystem::create_directories(options.out);
  const double start = benchmarks::seconds();
  const Budget budget(options.seconds);
  Results results;
  set_context(options, results);
  results.peaks = measure_peaks();
  if (options.quick) {
    results.skipped.push_back(
        "--quick: layers of 4096, T = 8 and 512, bf16 and Q4_1 bases, ranks 2, 4, 16, 32, 128 and 256, so rsLoRA's speed and the swap, "
        "which "
        "are measured at 16, too; fewer ranks and steps on the model");
  }
  const double share = !options.quality ? 0.95 : options.model.empty() ? 0.52 : 0.35;
  if (options.speed) {
    measure_static(options, Budget(0.03 * options.seconds), results);
    measure_layers(options, Budget(share * 0.8 * options.seconds), results);
    measure_merging(options, Budget(share * 0.15 * options.seconds), results);
    results.seconds = benchmarks::seconds() - start;
    write(results, options.out);
  }
  if (options.quality) {
    measure_matrices(options, Budget(0.05 * options.seconds), results);
    measure_models(options, budget.slice(1, 1), results);
  }
  results.seconds = benchmarks::seconds() - start;
  write(results, options.out);
  std::printf("%s: %zu rows, %zu trainings, %.0f s\n", (options.out / "rank_tradeoff.html").c_str(), results.rows.size(),
              results.trainings.size(), results.seconds);
}

}  // namespace
}  // namespace rank_tradeoff

int main(int argc, char** argv) {
  using namespace rank_tradeoff;
  CLI::App app("What a rank costs and what it brings: forward, backward, step, merge, swap, bytes and loss, each beside its prediction.");
  Options options;
  std::string model, out = "rank_tradeoff";
  app.add_flag("--quick", options.quick, "3 minutes: fewer sizes, ranks, bases and steps");
  app.add_option("--model", model, "a further model for the quality part: smollm2, or the path of a .gguf file");
  app.add_option("--out", out, "folder for rank_tradeoff.json, .csv and .html")->capture_default_str();
  app.add_option("--only", options.only, "one half of the run")->check(CLI::IsMember({"speed", "quality"}));
  app.add_option("--budget", options.seconds, "seconds that the run may take; default: 1680, with --quick 165")->check(CLI::PositiveNumber);
  std::string before, after;
  double alpha = 0.05;
  CLI::App* comparison = app.add_subcommand("compare", "two runs, row by row, with a test of significance");
  comparison->add_option("before", before, "rank_tradeoff.json of one run")->required();
  comparison->add_option("after", after, "rank_tradeoff.json of the other")->required();
  comparison->add_option("--alpha", alpha, "chance of any false alarm")->check(CLI::Range(1e-6, 0.5))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    if (comparison->parsed()) return compare(before, after, alpha), 0;
    options.model = find_model(model);
    options.out = out;
    run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
