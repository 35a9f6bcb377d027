#include <cstdio>

#if defined(__GLIBC__)  // known once a header of the C library was read
#include <malloc.h>
#endif

#include <rank_tradeoff/explain.hpp>
#include <rank_tradeoff/options.hpp>
#include <rank_tradeoff/passes.hpp>

// Layers [d, d] over T tokens: bare, merged and with updates of every rank, measured in turn, so that what disturbs one disturbs all.

namespace rank_tradeoff {
namespace {

using lowrank::Weight;

/// One base format at one size, with all updates.
struct Bench {
  std::string base;
  Index d;
  Stack bare, merged;
  std::vector<Updates> updates;
  std::optional<AnyLinear> full;  // a trainable dense layer, for full fine-tuning
};

/// Methods and ranks, first those that must not be missing when the time is short.
std::vector<std::pair<std::string, Index>> items(const Options& options) {
  std::vector<Index> order;
  for (const Index r : {16, 1, 512, 64, 4, 256, 8, 128, 2, 32})
    if (std::find(options.ranks.begin(), options.ranks.end(), r) != options.ranks.end()) order.push_back(r);
  std::vector<std::pair<std::string, Index>> list;
  for (const Index r : order) list.emplace_back("lora", r);
  list.emplace_back("rslora", 16);  // another number in place of s: one rank shows that it costs the same
  for (const Index r : order) list.emplace_back("dora", r);
  return list;
}

Bench make_bench(const Options& options, const std::string& base, Index d) {
  const auto w = benchmarks::random_matrix<Weight<float>>(d, d, 1);
  const Weight<float> scaled_w = 0.02f * w;
  const AnyLinear dense(format_of("fp32").make(scaled_w));
  const auto update = random_update(dense, "lora", 16);
  const Weight<float> sum = scaled_w + update.scale * (update.b.value * update.a.value);
  Bench bench{base, d, Stack(base, scaled_w, pool_bytes()), Stack(base, sum, pool_bytes()), {}, {}};
  for (const auto& [method, rank] : items(options)) bench.updates.emplace_back(bench.bare.first(), method, rank, pool_bytes());
  if (base == "fp32") {
    bench.full.emplace(lowrank::Linear<float>(scaled_w));
    bench.full->set_trainable(true);
  }
  return bench;
}

Shape shape_of(const Bench& bench, Index tokens, Index rank, bool dora) {
  const double d = static_cast<double>(bench.d);
  return {d, d, static_cast<double>(rank), static_cast<double>(tokens), d * d * bits_a_weight(bench.base) / 8, dora};
}

/// Predicted seconds of one round over everything that is measured at T tokens.
double round_seconds(const Bench& bench, const Options& options, Index tokens, const Peaks& peaks) {
  const double peak = peak_of(bench.base, peaks);
  const auto cost = [&](Index rank, bool dora) {
    const Shape s = shape_of(bench, tokens, rank, dora);
    return 3 * roofline(forward_work(s), peak, peaks) + roofline(step_work(s), peak, peaks);
  };
  double total = cost(0, false);
  for (const auto& [method, rank] : items(options)) total += cost(rank, method == "dora");
  return total;
}

Row make_row(const Bench& bench, Index tokens, const char* pass, const std::string& method, Index rank, const Peaks& peaks) {
  Row row{"layer", pass, bench.base, method, bench.d, tokens, rank};
  const Shape s = shape_of(bench, tokens, rank, method == "dora");
  row.work = row.pass == "forward" ? forward_work(s) : row.pass == "backward" ? backward_work(s) : step_work(s);
  if (method == "full") {  // forward, both gradients, AdamW on all of W
    const double weights = s.m * s.n;
    row.work = {6 * weights * s.tokens + 12 * weights, 3 * s.weight_bytes + 32 * weights + 16 * s.tokens * (s.m + s.n), 4};
  }
  row.predicted = roofline(row.work, peak_of(bench.base, peaks), peaks);
  return row;
}

/// Memory that the program holds from malloc, bytes; 0 where that is not known.
double allocated() {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
  const auto info = mallinfo2();
  return static_cast<double>(info.uordblks + info.hblkhd);
#else
  return 0;
#endif
}

/// Bytes of base, update, gradients, optimizer, and of what a recorded forward pass leaves for the backward pass.
Row bytes_row(Bench& bench, Updates& update, const Batch& batch) {
  const Index tokens = batch.x.cols();
  Row row{"bytes", "training", bench.base, update.method(), bench.d, tokens, update.rank()};
  const double d = static_cast<double>(bench.d), r = static_cast<double>(update.rank()), t = static_cast<double>(tokens);
  const bool dora = update.method() == "dora";
  const double trained = 2 * r * d + (dora ? d : 0);
  const double optimizer_bytes = static_cast<double>(update.optimizer().bytes());  // gradients exist from here on, too
  lowrank::Tape<float> tape;
  const auto input = tape.variable(batch.x);
  const double before = allocated();
  const auto y = lowrank::detail::adapted(bench.bare.first(), &update.trained(), {}, input);
  const double kept = allocated() - before;
  double gradients = 0, numbers = 0;
  update.trained().visit_parameters([&](auto& p) {
    gradients += sizeof(float) * static_cast<double>(p.grad.size());
    numbers += sizeof(float) * static_cast<double>(p.size());
  });
  const auto put = [&](const char* name, double measured, double predicted) {
    row.counters[name] = measured;
    row.counters[std::string("predicted_") + name] = predicted;
  };
  put("base_bytes", static_cast<double>(bench.bare.first().weight_bytes()), d * d * bits_a_weight(bench.base) / 8);
  put("adapter_bytes", numbers, 4 * trained);
  put("gradient_bytes", gradients, 4 * trained);
  put("optimizer_bytes", optimizer_bytes, 8 * trained);
  put("kept_bytes", kept, 4 * t * (d + r) + (dora ? 4 * t * d : 0));  // Y and H, DoRA's unscaled Y besides; X is its maker's
  return row;
}

/// All rows of one base, size and number of tokens.
class Sweep {
 public:
  Sweep(Bench& bench, Index tokens, const Peaks& peaks) : bench_(bench), batch_(bench.d, tokens), tokens_(tokens), peaks_(peaks) {
    const double base = make_row(bench, tokens, "forward", "bare", 0, peaks).predicted;
    count_ = static_cast<int>(std::clamp(2e-4 / base, 1.0, 32.0));
    for (const char* pass : passes) rows_.push_back(make_row(bench, tokens, pass, "bare", 0, peaks));
    rows_.push_back(make_row(bench, tokens, "forward", "merged", 0, peaks));
    for (Updates& update : bench.updates)
      for (const char* pass : passes) rows_.push_back(make_row(bench, tokens, pass, update.method(), update.rank(), peaks));
    over_.resize(rows_.size()), over_merged_.resize(rows_.size());
    if (bench.full) rows_.push_back(make_row(bench, tokens, "step", "full", bench.d, peaks));
  }

  void run(Budget budget, int most) {
    for (int round = 0; round < most && !(round > 0 && budget.is_spent()); ++round) {
      measure_bare();
      for (std::size_t u = 0; u < bench_.updates.size(); ++u) {
        if (budget.is_spent() && !(round == 0 && u == 0)) break;
        measure_update(u);
      }
      if (bench_.full && !budget.is_spent()) measure_full();
    }
  }

  /// Moves rows that were measured to the results; names those that were not.
  void finish(Results& results) {
    std::string missing;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      Row& row = rows_[i];
      if (row.times.empty()) {
        missing += (missing.empty() ? "" : ", ") + row.method + " " + row.pass + " r " + std::to_string(row.rank);
        continue;
      }
      add_counters(row, i);
    }
    explain(missing.empty());
    for (Row& row : rows_)
      if (!row.times.empty()) results.rows.push_back(std::move(row));
    if (!missing.empty())
      results.skipped.push_back(lowrank::concat("layer of ", bench_.d, ", ", bench_.base, ", T = ", tokens_, ": ", missing));
    for (Updates& update : bench_.updates)
      if (update.method() != "rslora") results.rows.push_back(bytes_row(bench_, update, batch_));
  }

 private:
  static constexpr const char* passes[] = {"forward", "backward", "step"};

  void add(std::size_t row, const Sample& s) {
    rows_[row].times.push_back(s.wall);
    rows_[row].cpu.push_back(s.cpu);
  }
  Sample bare_forward() {
    return sample(count_, [&] { forward(bench_.bare.next(), nullptr, batch_); });
  }
  Sample merged_forward() {
    return sample(count_, [&] { forward(bench_.merged.next(), nullptr, batch_); });
  }

  void measure_bare() {
    add(0, bare_forward());
    add(3, merged_forward());
    const auto next = [&]() -> AnyLinear& { return bench_.bare.next(); };
    const StepSample s = train(count_, next, nullptr, nullptr, batch_);
    add(1, s.backward), add(2, s.step);
  }

  void measure_update(std::size_t u) {
    Updates& update = bench_.updates[u];
    const std::size_t row = 4 + 3 * u;
    const double bare = bare_forward().wall;
    const Sample adapted = sample(count_, [&] { forward(bench_.bare.next(), &update.next(), batch_); });
    const double merged = merged_forward().wall;
    add(row, adapted);
    over_[row].push_back(adapted.wall / bare), over_merged_[row].push_back(adapted.wall / merged);
    const auto next = [&]() -> AnyLinear& { return bench_.bare.next(); };
    const StepSample s = train(count_, next, &update.trained(), &update.optimizer(), batch_);
    add(row + 1, s.backward), add(row + 2, s.step);
    over_[row + 1].push_back(s.backward.wall / rows_[1].times.back());
    over_[row + 2].push_back(s.step.wall / rows_[2].times.back());
  }

  void measure_full() {
    if (!full_optimizer_) full_optimizer_.emplace(lowrank::parameters(*bench_.full), lowrank::AdamWOptions{.learning_rate = 1e-6});
    const auto next = [&]() -> AnyLinear& { return *bench_.full; };
    add(rows_.size() - 1, train(1, next, nullptr, &*full_optimizer_, batch_).step);
  }

  void add_counters(Row& row, std::size_t i) {
    row.counters["measured_over_predicted"] = row.ratio();
    row.counters["FLOP/s"] = row.work.flops / row.seconds();
    row.counters["bytes/s"] = row.work.bytes / row.seconds();
    if (i >= over_.size() || over_[i].empty()) return;
    const Row& bare = rows_[row.pass == "forward" ? 0 : row.pass == "backward" ? 1 : 2];
    row.counters["over_bare"] = median(over_[i]);
    row.counters["predicted_over_bare"] = row.predicted / bare.predicted;
    row.counters["flops_over_bare"] = row.work.flops / bare.work.flops;
    row.counters["over_ratio"] = median(over_[i]) * bare.predicted / row.predicted;
    if (!over_merged_[i].empty()) row.counters["over_merged"] = median(over_merged_[i]);
  }

  /// One pass of the experiments behind an explanation.
  double experiment(const Row& row, const Batch& batch, AnyLinear* fixed_base, LoraWeights<float>* fixed,
                    lowrank::AdamW<float>* optimizer) {
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) {
      const auto next = [&]() -> AnyLinear& { return fixed_base ? *fixed_base : bench_.bare.next(); };
      if (row.pass == "forward") {
        times.push_back(sample(count_, [&] { forward(next(), fixed, batch); }).wall);
      } else {
        const StepSample s = train(count_, next, fixed, optimizer, batch);
        times.push_back(row.pass == "backward" ? s.backward.wall : s.step.wall);
      }
      if (times.back() * count_ > 0.5) break;
    }
    return median(times);
  }

  Experiments experiments_of(const Row& row) {
    LoraWeights<float>* update = nullptr;
    lowrank::AdamW<float>* optimizer = nullptr;
    for (Updates& u : bench_.updates)
      if (u.method() == row.method && u.rank() == row.rank) update = &u.trained(), optimizer = &u.optimizer();
    AnyLinear* base = row.method == "full" ? &*bench_.full : nullptr;
    if (row.method == "full") optimizer = &*full_optimizer_;
    Experiments found;
    found.hot = experiment(row, batch_, base ? base : &bench_.bare.first(), update, optimizer);
    const int threads = lowrank::thread_count();
    lowrank::set_thread_count(1);
    found.one_thread = experiment(row, batch_, base, update, optimizer);
    lowrank::set_thread_count(threads);
    constexpr Index small = 64;
    const Batch batch(small, tokens_);
    Stack tiny(bench_.base, benchmarks::random_matrix<Weight<float>>(small, small, 1), 1);
    std::optional<Updates> tiny_update;
    if (update) tiny_update.emplace(tiny.first(), row.method, row.rank, 1);
    found.tiny =
        experiment(row, batch, &tiny.first(), update ? &tiny_update->trained() : nullptr, update ? &tiny_update->optimizer() : nullptr);
    return found;
  }

  /// Finds out why rows take more than twice what they should: experiments on the worst of each pass and method, said for all of them.
  void explain(bool is_complete) {
    const auto excess = [](const Row& row) { return row.times.empty() ? 0 : std::max(row.ratio(), row.counter("over_ratio")); };
    for (const char* pass : passes)
      for (const char* method : {"bare", "merged", "lora", "rslora", "dora", "full"}) {
        const Row* worst = nullptr;
        for (const Row& row : rows_)
          if (row.pass == pass && row.method == method && excess(row) > 2 && (!worst || excess(row) > excess(*worst))) worst = &row;
        if (!worst || (!is_complete && worst->seconds() > 0.05)) continue;
        const Experiments found = experiments_of(*worst);
        const double tail = worst->seconds();
        for (Row& row : rows_)
          if (row.pass == pass && row.method == method && excess(row) > 2)
            row.why = reason(row, found, tail, sixteen(row), peak_of(bench_.base, peaks_), peaks_);
      }
  }
  /// Seconds of the same row at rank 16; 0 where it was not measured.
  double sixteen(const Row& row) const {
    for (const Row& other : rows_)
      if (other.pass == row.pass && other.method == row.method && other.rank == 16) return other.seconds();
    return 0;
  }

  Bench& bench_;
  Batch batch_;
  Index tokens_;
  Peaks peaks_;
  int count_ = 1;
  std::vector<Row> rows_;
  std::vector<std::vector<double>> over_, over_merged_;
  std::optional<lowrank::AdamW<float>> full_optimizer_;
};

}  // namespace

void measure_layers(const Options& options, Budget budget, Results& results) {
  struct Piece {
    Index d;
    std::string base;
    double work = 0;
  };
  const auto work_of = [&](const std::string& base, Index d, Index tokens) {
    const Bench shape_only{base, d, Stack(base, Weight<float>::Zero(64, 64), 1), Stack(base, Weight<float>::Zero(64, 64), 1), {}, {}};
    return std::max(0.05, round_seconds(shape_only, options, tokens, results.peaks));
  };
  std::vector<Piece> pieces;
  double left = 0;
  for (const Index d : options.sizes)
    for (const auto& base : options.bases) {
      Piece piece{d, base};
      for (const Index tokens : options.tokens) piece.work += work_of(base, d, tokens);
      left += piece.work;
      pieces.push_back(std::move(piece));
    }
  for (const Piece& piece : pieces) {
    const Budget share = budget.slice(piece.work, left);
    left -= piece.work;
    if (share.left() < 0.2) {
      results.skipped.push_back(lowrank::concat("layers of ", piece.d, " over ", piece.base, ": all"));
      continue;
    }
    Bench bench = make_bench(options, piece.base, piece.d);
    double rest = piece.work;
    for (const Index tokens : options.tokens) {
      const double work = work_of(piece.base, piece.d, tokens);
      std::fprintf(stderr, "layers of %ld, %s, %ld tokens\n", static_cast<long>(piece.d), piece.base.c_str(), static_cast<long>(tokens));
      Sweep sweep(bench, tokens, results.peaks);
      const Budget slice = share.slice(work, rest);
      sweep.run(Budget(0.85 * slice.left()), 25);  // the rest is for experiments
      sweep.finish(results);
      rest -= work;
    }
  }
}

}  // namespace rank_tradeoff
