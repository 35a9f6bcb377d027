#include <cstdio>

#include <lowrank/adapters/merge.hpp>
#include <lowrank/nn/frozen_linear.hpp>

#include <rank_tradeoff/explain.hpp>
#include <rank_tradeoff/options.hpp>
#include <rank_tradeoff/passes.hpp>

// Merging an update into its base, taking it back, and exchanging it for another.

namespace rank_tradeoff {
namespace {

using lowrank::Weight;

constexpr Index one_token = 1;

/// A layer of each base in its own type, as merge() takes it.
lowrank::Linear<float> typed_base(const Weight<float>& w, lowrank::Linear<float>*) { return lowrank::Linear<float>(w); }
lowrank::FrozenLinear<lowrank::BFloat16> typed_base(const Weight<float>& w, lowrank::FrozenLinear<lowrank::BFloat16>*) {
  return lowrank::FrozenLinear<lowrank::BFloat16>(
      lowrank::round_to<lowrank::BFloat16>(lowrank::DenseSource<float>(w.data(), w.rows(), w.cols())));
}
template <class Format>
lowrank::QuantizedLinear<Format> typed_base(const Weight<float>& w, lowrank::QuantizedLinear<Format>*) {
  return lowrank::QuantizedLinear<Format>(lowrank::quantize<Format>(w));
}

void set_prediction(Row& row, const Peaks& peaks) {
  row.predicted = roofline(row.work, peaks.fp32, peaks);
  row.counters["measured_over_predicted"] = row.ratio();
}

/// merge() does two things: it stores W + s B A, and it reads all three back to report what survived. Both are timed alone.
template <class Layer>
std::string merge_reason(const Row& row, const Layer& layer, double peak) {
  const auto source = layer.base().source();
  const lowrank::MergedSource merged(source, layer.plan());
  std::vector<float> numbers(static_cast<std::size_t>(row.d));
  const double form = benchmarks::time_of([&] {
    lowrank::parallel_ranges(row.d, 16, [&](Index begin, Index end) {
      std::vector<float> out(static_cast<std::size_t>((end - begin) * row.d));
      merged.decode(begin, end - begin, 0, row.d, out.data(), row.d);
    });
  });
  const double report = benchmarks::time_of([&] { (void)lowrank::merge_report(source, merged, source); });
  return support::format(
      "the sum is formed twice, once to be stored and once for the report of what survived (%.0f %% of the time); forming it alone takes "
      "%.0f %%, at %.1f of %.0f GFLOP/s; the rest is rounding, and the system's hand-out of fresh memory",
      100 * report / row.seconds(), 100 * form / row.seconds(), 1e-9 * row.work.flops / form, 1e-9 * peak);
}

template <class Base>
void merge_rows(const char* name, Index d, Index rank, Budget budget, Results& results) {
  const auto w = benchmarks::random_matrix<Weight<float>>(d, d, 1);
  lowrank::LoraLinear<Base> layer{typed_base(0.02f * w, static_cast<Base*>(nullptr)), {.rank = rank, .alpha = 16}};
  lowrank::fill_normal(layer.b().value, 0.01, lowrank::Random(6));
  const double size = static_cast<double>(d);
  const Shape s{size, size, static_cast<double>(rank), 0, size * size * bits_a_weight(name) / 8, false};
  Row merging{"merge", "merge", name, "lora", d, 0, rank}, unmerging{"merge", "unmerge", name, "lora", d, 0, rank};
  lowrank::MergeReport report;
  do {
    const Sample one = sample(1, [&] { report = lowrank::merge(layer); });
    merging.times.push_back(one.wall), merging.cpu.push_back(one.cpu);
    const Sample other = sample(1, [&] { lowrank::unmerge(layer); });
    unmerging.times.push_back(other.wall), unmerging.cpu.push_back(other.cpu);
  } while (!budget.is_spent() && merging.times.size() < 12);
  merging.work = merge_work(s);
  set_prediction(merging, results.peaks);
  merging.counters["survived"] = report.survived;
  merging.counters["merge_error"] = report.relative_error;
  if (merging.ratio() > 2) merging.why = merge_reason(merging, layer, results.peaks.fp32);
  results.rows.push_back(std::move(merging));
  results.rows.push_back(std::move(unmerging));  // a pointer is dropped: nothing to predict
}

/// A token right after the adapter was exchanged for one that no cache holds, beside the next token with the same.
void swap_rows(const std::string& base, Index d, Index rank, const Options&, Results& results) {
  const auto w = benchmarks::random_matrix<Weight<float>>(d, d, 1);
  Stack stack(base, w, pool_bytes());
  Updates updates(stack.first(), "lora", rank, pool_bytes());
  const Batch batch(d, one_token);
  Row swap{"swap", "pointer", base, "lora", d, one_token, rank}, stay{"swap", "stay", base, "lora", d, one_token, rank};
  const LoraWeights<float>* volatile active = &updates.next();
  for (int i = 0; i < 25; ++i) {
    AnyLinear& layer = stack.next();
    const Sample first = sample(1, [&] {
      active = &updates.next();
      forward(layer, active, batch);
    });
    AnyLinear& after = stack.next();
    const Sample second = sample(1, [&] { forward(after, active, batch); });
    swap.times.push_back(first.wall), swap.cpu.push_back(first.cpu);
    stay.times.push_back(second.wall), stay.cpu.push_back(second.cpu);
  }
  const double size = static_cast<double>(d);
  const Shape s{size, size, static_cast<double>(rank), 1, size * size * bits_a_weight(base) / 8, false};
  swap.work = stay.work = forward_work(s);
  stay.work.bytes -= 8.0 * static_cast<double>(rank) * size;  // the factors are in the caches
  for (Row* row : {&swap, &stay}) {
    row->predicted = roofline(row->work, peak_of(base, results.peaks), results.peaks);
    row->counters["measured_over_predicted"] = row->ratio();
    if (row->ratio() > 2) row->why = "as the forward pass of this base, size and rank at one token, in whose row the experiments are";
  }
  swap.counters["swap_seconds"] = swap.seconds() - stay.seconds();
  swap.counters["predicted_swap_seconds"] = swap.predicted - stay.predicted;
  results.rows.push_back(std::move(swap));
  results.rows.push_back(std::move(stay));
}

}  // namespace

void measure_merging(const Options& options, Budget budget, Results& results) {
  struct Piece {
    std::string base;
    Index d, rank;
    double work;
  };
  std::vector<Piece> pieces;
  double left = 0;
  for (const Index d : options.sizes)
    for (const auto& base : options.bases)
      for (const Index rank : options.ranks) {
        const double work = 0.002 + static_cast<double>(d * d) * (1e-8 + 4e-10 * static_cast<double>(rank));
        pieces.push_back({base, d, rank, work});
        left += work;
      }
  std::string missing;
  for (const Piece& piece : pieces) {
    const Budget slice = budget.slice(piece.work, left);
    left -= piece.work;
    if (slice.left() < piece.work / 20) {
      missing += lowrank::concat(' ', piece.base, '/', piece.d, '/', piece.rank);
      continue;
    }
    std::fprintf(stderr, "merging %ld, %s, rank %ld\n", static_cast<long>(piece.d), piece.base.c_str(), static_cast<long>(piece.rank));
    if (piece.base == "fp32") merge_rows<lowrank::Linear<float>>("fp32", piece.d, piece.rank, slice, results);
    if (piece.base == "bf16") merge_rows<lowrank::FrozenLinear<lowrank::BFloat16>>("bf16", piece.d, piece.rank, slice, results);
    if (piece.base == "nf4") merge_rows<lowrank::QuantizedLinear<lowrank::Nf4<64>>>("nf4", piece.d, piece.rank, slice, results);
    if (piece.base == "q4_1") merge_rows<lowrank::QuantizedLinear<lowrank::Q4_1>>("q4_1", piece.d, piece.rank, slice, results);
  }
  for (const Index d : options.sizes)
    for (const Index rank : {Index{16}, Index{256}})
      if (std::find(options.ranks.begin(), options.ranks.end(), rank) != options.ranks.end()) swap_rows("nf4", d, rank, options, results);
  if (!missing.empty()) results.skipped.push_back("merging (base/size/rank):" + missing);
}

}  // namespace rank_tradeoff
