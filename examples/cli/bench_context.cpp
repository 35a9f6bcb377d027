#include <cstdio>
#include <numeric>

#include <lowrank/core/parallel.hpp>
#include <lowrank/io/file.hpp>

#include <support/plot.hpp>

#include <cli/bench.hpp>

namespace cli::bench {
namespace {

/// Bytes a second that all threads read, 512 MiB from end to end, which no cache holds; the best of ten times.
double read_bandwidth() {
  constexpr Index count = (Index{512} << 20) / 8, grain = 1 << 15;
  const std::vector<std::uint64_t> numbers(static_cast<std::size_t>(count), 1);
  double best = 0;
  for (int turn = 0; turn < 10; ++turn) {
    std::vector<std::uint64_t> sums(static_cast<std::size_t>(lowrank::ceil_div(count, grain)));
    const double start = now();
    lowrank::parallel_shares(count, grain, [&](Index begin, Index end) {
      sums[static_cast<std::size_t>(begin / grain)] = std::accumulate(numbers.begin() + begin, numbers.begin() + end, std::uint64_t{0});
    });
    const double seconds = now() - start;
    const bool is_read = std::accumulate(sums.begin(), sums.end(), std::uint64_t{0}) == static_cast<std::uint64_t>(count);
    if (is_read) best = std::max(best, static_cast<double>(count * 8) / seconds);
  }
  return best;
}

/// A reader that is taken to a context once, and then back to it before every run.
template <class Device>
class Decoder {
 public:
  Decoder(Transformer& model, LoraSet* lora, const ContextOptions& o, std::span<const std::int32_t> ids)
      : read_(model, lora, o.cache), tokens_(o.tokens), ids_(ids) {}

  void read_to(Index context) {
    if (context > read_.length())
      read_(ids_.subspan(static_cast<std::size_t>(read_.length()), static_cast<std::size_t>(context - read_.length())));
    context_ = context;
  }
  /// Reading the logits waits for the device.
  double seconds() {
    read_.rewind(context_);
    const double start = now();
    for (Index i = 0; i < tokens_; ++i) read_(ids_.subspan(static_cast<std::size_t>(context_ + i), 1));
    return now() - start;
  }

 private:
  transformer::Reader<Device> read_;
  Index tokens_, context_ = 0;
  std::span<const std::int32_t> ids_;
};

/// With and without the adapter in turn, so that a slow moment of the machine meets both; the first run warms up.
template <class Device>
std::vector<ContextSpeed> measure(Transformer& model, LoraSet* adapter, const ContextOptions& o) {
  const auto ids = random_ids(model, o.contexts.back() + o.tokens, o.seed);
  std::vector<ContextSpeed> speeds;
  Decoder<Device> bare(model, nullptr, o, ids), adapted(model, adapter, o, ids);
  for (const Index context : o.contexts) {
    ContextSpeed& speed = speeds.emplace_back(ContextSpeed{context, {}, {}});
    bare.read_to(context);
    if (adapter) adapted.read_to(context);
    for (Index i = 0; i <= o.repetitions; ++i) {
      const double with = adapter ? adapted.seconds() : 0, without = bare.seconds();
      if (i == 0) continue;
      speed.bare.seconds.push_back(without);
      if (adapter) speed.adapted.seconds.push_back(with);
    }
    std::fprintf(stderr, "decoding after %ld tokens: done\n", static_cast<long>(context));
  }
  return speeds;
}

}  // namespace

ContextSpeeds measure_contexts(Session& session, LoraSet* adapter, const ContextOptions& options) {
  const transformer::ModelConfig& config = session.model.config;
  ContextOptions o = options;
  std::sort(o.contexts.begin(), o.contexts.end());
  ContextSpeeds speeds;
  const lowrank::Compute compute = session.model.layer(0).base.compute();
  const auto precision = session.gpu ? lowrank::CachePrecision::fp32 : o.cache.value_or(lowrank::cache_precision(compute));
  const Index element = precision == lowrank::CachePrecision::fp32 ? 4 : 2;
  speeds.tokens = o.tokens;
  speeds.bytes_per_token = static_cast<double>(2 * config.layers * config.kv_width() * element);
  speeds.weight_bytes = static_cast<double>(session.model.bytes());
  if (session.model.separate_head) speeds.weight_bytes -= static_cast<double>(session.model.embedding.base.weight_bytes());
  if (!session.gpu) speeds.bandwidth = read_bandwidth();
  speeds.at = on_device(session, [&](auto device) { return measure<decltype(device)>(session.model, adapter, o); });
  return speeds;
}

void add_context_rows(Table& table, const ContextSpeeds& speeds) {
  for (const ContextSpeed& speed : speeds.at) {
    const std::string name = "one of " + std::to_string(speeds.tokens) + " tokens after " + std::to_string(speed.context);
    const bool has_adapter = !speed.adapted.seconds.empty();
    if (has_adapter) add_row(table, name, speed.adapted, speeds.tokens, speeds.tokens);
    add_row(table, has_adapter ? name + ", no adapter" : name, speed.bare, speeds.tokens, speeds.tokens);
  }
}

void print_contexts(const ContextSpeeds& speeds) {
  if (speeds.at.empty() || speeds.bandwidth == 0) return;
  std::printf("  Memory is read at %.1f GB/s. Weights, keys and values that a token reads, and the share of it that reading them takes:\n",
              speeds.bandwidth * 1e-9);
  for (const ContextSpeed& speed : speeds.at) {
    const double bytes = speeds.bytes(speed.context);
    std::printf("    after %5ld tokens %s, %.0f %%\n", static_cast<long>(speed.context), human_bytes(static_cast<long long>(bytes)).c_str(),
                100 * bytes * speed.bare.rate(speeds.tokens) / speeds.bandwidth);
  }
}

void add_contexts(Json& json, const ContextSpeeds& speeds) {
  if (speeds.at.empty()) return;
  Json list = Json::list();
  for (const ContextSpeed& speed : speeds.at) {
    const bool has_adapter = !speed.adapted.seconds.empty();
    Json entry{{"context", speed.context},
               {"tokens_per_second", (has_adapter ? speed.adapted : speed.bare).rate(speeds.tokens)},
               {"bytes_per_token", speeds.bytes(speed.context)}};
    if (has_adapter) entry["tokens_per_second_without_adapter"] = speed.bare.rate(speeds.tokens);
    list.push_back(entry);
  }
  json["decode_by_context"] = list;
  if (speeds.bandwidth == 0) return;
  const ContextSpeed& shortest = speeds.at.front();
  json["memory_gb_per_second"] = speeds.bandwidth * 1e-9;
  json["memory_share"] = speeds.bytes(shortest.context) * shortest.bare.rate(speeds.tokens) / speeds.bandwidth;
}

void plot_contexts(const std::string& path, const Session& session, const ContextSpeeds& speeds) {
  if (path.empty() || speeds.at.empty()) return;
  std::vector<double> contexts, bare, adapted, theory;
  for (const ContextSpeed& speed : speeds.at) {
    contexts.push_back(static_cast<double>(speed.context));
    bare.push_back(speed.bare.rate(speeds.tokens));
    if (!speed.adapted.seconds.empty()) adapted.push_back(speed.adapted.rate(speeds.tokens));
    theory.push_back(speeds.bandwidth / speeds.bytes(speed.context));
  }
  support::Plot plot("Decoding against context: " + lowrank::path_text(std::filesystem::path(session.name).filename()), "tokens of context",
                     "tokens/s", {.least_y = 0});
  plot.line("measured", contexts, bare);
  if (!adapted.empty()) plot.line("with the adapter", contexts, adapted);
  if (speeds.bandwidth > 0) plot.dashes("what memory allows", contexts, theory);
  write_text(path, plot.svg());
}

}  // namespace cli::bench
