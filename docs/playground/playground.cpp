// What the playground shows, computed by the library. Compiled to WebAssembly for the page (build.sh), and natively for the test, where
// main prints the same values for the same settings, which are written as in the page's address: playground "k=4&noise=0.1&r=4".
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/ops/decompose.hpp>
#include <lowrank/optim/adamw.hpp>
#include <lowrank/quant.hpp>

#if defined(__EMSCRIPTEN__)
#include <emscripten/emscripten.h>
#define FOR_THE_PAGE extern "C" EMSCRIPTEN_KEEPALIVE
#else
#define FOR_THE_PAGE static
#endif

using Eigen::MatrixXd;
using lowrank::Activation;
using lowrank::Index;
using lowrank::Random;
using lowrank::Weight;

namespace {

constexpr Index n = 64;  // in, out and tokens: each slider shall answer at once

MatrixXd normal(Index rows, Index cols, std::uint64_t seed) {
  MatrixXd m(rows, cols);
  lowrank::fill_normal(m, 1, Random(seed));
  return m;
}

// The frozen weight: normal, of variance 1 / in, some weights twenty times as large.
Weight<float> frozen_weight(int outliers) {
  Weight<float> w = (normal(n, n, 1) / std::sqrt(static_cast<double>(n))).cast<float>();
  Random random(5);
  for (int i = 0; i < outliers; ++i) w.data()[random.below(w.size())] *= 20;
  return w;
}

// X with X Xᵀ = T I, so that the loss of an update D is ‖Δ - D‖² / out (chapter 5).
Activation<float> white_input() {
  return (std::sqrt(static_cast<double>(n)) * lowrank::thin_qr(normal(n, n, 7)).q.transpose()).cast<float>();
}

// Evenly spaced values, a format of one's own as in chapter 8.
template <int Block>
struct Uniform4 {
  static constexpr std::string_view name = "uniform4";
  static constexpr Index block = Block;
  static constexpr double bits_per_weight = 4 + 32.0 / Block;
  using Scales = lowrank::PlainScales;
  using Storage = lowrank::TableBlocks<Uniform4>;

  template <std::size_t Count>
  static constexpr std::array<float, Count> even(float first) {
    std::array<float, Count> values{};
    for (std::size_t i = 0; i < Count; ++i) values[i] = first + static_cast<float>(i) * (2.0f / 15);
    return values;
  }
  static constexpr std::array<float, 16> table = even<16>(-1);
  static constexpr std::array<float, 15> thresholds = even<15>(-1 + 1.0f / 15);  // the midpoints
  static constexpr lowrank::kernels::CodeRule rule = lowrank::kernels::ordered_rule(thresholds, table);
  static constexpr std::uint8_t encode(float t) {
    std::uint8_t code = 0;
    for (const float threshold : thresholds) code = static_cast<std::uint8_t>(code + (t > threshold));
    return code;
  }
};

// A weight in four bits, and what is to be seen of it.
struct FourBits {
  Weight<float> w, stored;          // [out, in], and what the codes stand for
  lowrank::AnyMatrix matrix;        // the same as a base for a layer
  std::vector<std::uint8_t> codes;  // one a weight
  std::vector<double> levels;       // the 16 values of the table, then how many weights have each
  std::vector<double> block_error;  // root mean square error of each block, in units of W's root mean square
  std::vector<double> summary;      // relative error, largest error, bits a weight, bytes, blocks
};

template <class Format>
FourBits described(Weight<float> w, const lowrank::QuantizedMatrix<Format>& q) {
  const lowrank::BlockSource source = q.source();
  const lowrank::QuantizationError error = quantization_error(w, q);
  FourBits result{std::move(w), dequantize(q), lowrank::AnyMatrix(q), {}, std::vector<double>(32), {}, {}};
  for (std::size_t i = 0; i < 16; ++i) result.levels[i] = static_cast<double>(source.table[i]);
  for (Index i = 0; i < n * n; ++i) {
    result.codes.push_back(static_cast<std::uint8_t>(source.nibble(i)));
    result.levels[16u + result.codes.back()] += 1;
  }
  const double rms = result.w.cast<double>().norm() / static_cast<double>(n);
  for (Index i = 0; i < n * n; i += source.group) {
    const auto block = [&](const Weight<float>& m) { return Eigen::Map<const Eigen::ArrayXf>(m.data() + i, source.group).cast<double>(); };
    result.block_error.push_back(std::sqrt((block(result.w) - block(result.stored)).square().mean()) / rms);
  }
  result.summary = {error.relative, error.max_abs, error.bits_per_weight, static_cast<double>(q.bytes()),
                    static_cast<double>(result.block_error.size())};
  return result;
}

enum FormatName { nf4, nf4_double, nf4_search, fp4, uniform4, q4_0, q4_1 };

template <int Block>
FourBits quantize_in_blocks(int format, Weight<float> w) {
  using lowrank::DoubleQuant, lowrank::Fp4, lowrank::Nf4, lowrank::quantize;
  switch (format) {
    case nf4_double:
      return described(w, quantize<Nf4<Block, DoubleQuant>>(w));
    case nf4_search:
      return described(w, quantize<Nf4<Block>>(w, lowrank::Search{}));
    case fp4:
      return described(w, quantize<Fp4<Block>>(w));
    case uniform4:
      return described(w, quantize<Uniform4<Block>>(w));
    default:
      return described(w, quantize<Nf4<Block>>(w));
  }
}

// ggml's formats have blocks of 32.
FourBits quantize_as(int format, int block, const Weight<float>& w) {
  if (format == q4_0) return described(w, lowrank::quantize<lowrank::Q4_0>(w));
  if (format == q4_1) return described(w, lowrank::quantize<lowrank::Q4_1>(w));
  switch (block) {
    case 32:
      return quantize_in_blocks<32>(format, w);
    case 128:
      return quantize_in_blocks<128>(format, w);
    case 256:
      return quantize_in_blocks<256>(format, w);
    case 512:
      return quantize_in_blocks<512>(format, w);
    case 1024:
      return quantize_in_blocks<1024>(format, w);
    case 2048:
      return quantize_in_blocks<2048>(format, w);
    case 4096:
      return quantize_in_blocks<4096>(format, w);
    default:
      return quantize_in_blocks<64>(format, w);
  }
}

lowrank::AnyMatrix dense(const Weight<float>& w) {
  auto buffer = lowrank::Buffer::allocate(static_cast<std::size_t>(w.size()) * sizeof(float));
  std::copy(w.data(), w.data() + w.size(), buffer.mutable_as<float>());
  return lowrank::AnyMatrix(lowrank::StoredMatrix<float>(w.rows(), w.cols(), std::move(buffer)));
}

// A LoRA layer that learns the teacher W + Δ with AdamW, the learning rate falling to zero over its steps.
struct Student {
  lowrank::LoraLinear<lowrank::SourceLinear<lowrank::AnyMatrix>> layer;
  lowrank::AdamW<float> optimizer;
  int steps, done = 0;
  lowrank::Tape<> tape;

  Student(lowrank::AnyMatrix base, const lowrank::LoraOptions& options, double rate, int all)
      : layer(lowrank::SourceLinear<lowrank::AnyMatrix>(std::move(base)), options),
        optimizer(parameters(layer), {.learning_rate = rate, .weight_decay = 0}),
        steps(all) {}

  double step(const Activation<float>& x, const Activation<float>& target) {
    optimizer.set_learning_rate_share(std::max(0.0, 1.0 - static_cast<double>(done++) / steps));
    optimizer.zero_grad();
    const lowrank::Var loss = mse(layer(tape.input(x)), target);
    const auto value = static_cast<double>(loss.item());
    tape.backward(loss);  // dA = s (Bᵀ G) Xᵀ, dB = s G (A X)ᵀ
    optimizer.step();
    return value;
  }
};

struct Playground {
  MatrixXd delta;    // Δ [out, in], what is to be learned
  lowrank::Svd svd;  // Δ = U diag(s) Vᵀ
  FourBits four_bits;
  Activation<float> x = white_input(), target;
  std::unique_ptr<Student> students[2];
  std::vector<double> out;  // what the last function returns

  const double* give(std::vector<double> values) { return (out = std::move(values)).data(); }
  // The error that the best matrix of each rank 0 … n leaves, squared: tails of the squares.
  static std::vector<double> tails(const Eigen::VectorXd& s) {
    std::vector<double> tail(n + 1);
    for (Index r = n - 1; r >= 0; --r) tail[static_cast<std::size_t>(r)] = tail[static_cast<std::size_t>(r) + 1] + s[r] * s[r];
    return tail;
  }
};

Playground& playground() {
  static Playground here;
  return here;
}

}  // namespace

// Δ = U V / n + σ N / (2 √n), U [n, k] and V [k, n] normal: k singular values about 1, and noise whose largest is about σ. Gives the
// singular values of Δ.
FOR_THE_PAGE const double* spectrum(int true_rank, double noise) {
  Playground& p = playground();
  p.delta = normal(n, true_rank, 2) * normal(true_rank, n, 3) / static_cast<double>(n) +
            noise / (2 * std::sqrt(static_cast<double>(n))) * normal(n, n, 4);
  p.svd = lowrank::thin_svd(p.delta);
  return p.svd.s.data();
}

// Relative errors of rank 0 … n, three times n + 1: the floor, √(Σ_{i>r} s_i²) / ‖Δ‖; measured, ‖Δ - Δ_r‖ / ‖Δ‖; with r random
// directions Q in place of the best ones, ‖Δ - Q Qᵀ Δ‖ / ‖Δ‖.
FOR_THE_PAGE const double* errors() {
  Playground& p = playground();
  const lowrank::Svd& svd = p.svd;
  const MatrixXd q = lowrank::thin_qr(normal(n, n, 6)).q;
  MatrixXd best = p.delta, rival = p.delta;
  std::vector<double> measured, random, floor = Playground::tails(svd.s);
  const double norm = p.delta.norm();
  for (Index r = 0; r <= n; ++r) {
    measured.push_back(best.norm() / norm), random.push_back(rival.norm() / norm);
    if (r == n) break;
    best -= svd.u.col(r) * (svd.s[r] * svd.v.col(r).transpose());  // [n, 1] · [1, n]
    rival -= q.col(r) * (q.col(r).transpose() * p.delta);          // [n, 1] · [1, n]
  }
  for (double& error : floor) error = std::sqrt(error) / norm;
  floor.insert(floor.end(), measured.begin(), measured.end());
  floor.insert(floor.end(), random.begin(), random.end());
  return p.give(std::move(floor));
}

// W in a format of four bits. Gives the relative error, the largest error, bits a weight, bytes, and the number of blocks.
FOR_THE_PAGE const double* quantize(int format, int block, int outliers) {
  FourBits& q = playground().four_bits;
  q = quantize_as(format, block, frozen_weight(outliers));
  return q.summary.data();
}
FOR_THE_PAGE const float* weights() { return playground().four_bits.w.data(); }
FOR_THE_PAGE const float* stored() { return playground().four_bits.stored.data(); }
FOR_THE_PAGE const std::uint8_t* codes() { return playground().four_bits.codes.data(); }
FOR_THE_PAGE const double* levels() { return playground().four_bits.levels.data(); }
FOR_THE_PAGE const double* block_errors() { return playground().four_bits.block_error.data(); }

// The least loss at rank 0 … n, (Σ_{i>r} s_i²) / out, for what the base leaves to learn: Δ, or Δ + W - Ŵ over a base in four bits.
FOR_THE_PAGE const double* floors(int in_four_bits) {
  Playground& p = playground();
  const MatrixXd rest = p.delta + (p.four_bits.w - p.four_bits.stored).cast<double>();
  std::vector<double> floor = Playground::tails(in_four_bits ? lowrank::thin_svd(rest).s : p.svd.s);
  for (double& loss : floor) loss /= static_cast<double>(n);
  return p.give(std::move(floor));
}

// Gives student 0 or 1 a fresh layer.
FOR_THE_PAGE void begin(int student, int rank, double alpha, int rslora, double rate, int steps, int in_four_bits) {
  Playground& p = playground();
  const FourBits& q = p.four_bits;
  p.target = (q.w.cast<double>() + p.delta).cast<float>() * p.x;  // [out, in] · [in, T]
  p.students[student] =
      std::make_unique<Student>(in_four_bits ? q.matrix : dense(q.w),
                                lowrank::LoraOptions{.rank = rank, .alpha = alpha, .use_rslora = rslora != 0, .seed = 11}, rate, steps);
}

// Trains it by some steps; gives the loss before each.
FOR_THE_PAGE const double* train(int student, int steps) {
  Playground& p = playground();
  std::vector<double> losses;
  for (int i = 0; i < steps; ++i) losses.push_back(p.students[student]->step(p.x, p.target));
  return p.give(std::move(losses));
}

#if !defined(__EMSCRIPTEN__)

namespace {

double setting(const std::string& all, const std::string& name, double otherwise) {
  const std::size_t at = ("&" + all).find("&" + name + "=");
  return at == std::string::npos ? otherwise : std::strtod(all.c_str() + at + name.size() + 1, nullptr);
}

template <class Number>
void print(const char* name, const Number* values, Index count, const char* end = ",\n") {
  std::printf("\"%s\": [", name);
  for (Index i = 0; i < count; ++i) std::printf(i > 0 ? ", %.17g" : "%.17g", static_cast<double>(values[i]));
  std::printf("]%s", end);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string all = argc > 1 ? argv[1] : "";
  const auto whole = [&](const char* name, int otherwise) { return static_cast<int>(setting(all, name, otherwise)); };
  std::printf("{\n");
  print("spectrum", spectrum(whole("k", 4), setting(all, "noise", 0.1)), n);
  print("errors", errors(), 3 * (n + 1));
  const double* summary = quantize(whole("format", nf4), whole("block", 64), whole("outliers", 0));
  print("summary", summary, 5);
  print("weights", weights(), n * n);
  print("stored", stored(), n * n);
  print("codes", codes(), n * n);
  print("levels", levels(), 32);
  print("block_errors", block_errors(), static_cast<Index>(summary[4]));
  const int four_bits = whole("base", 0), steps = whole("steps", 400);
  print("floors", floors(four_bits), n + 1);
  begin(0, whole("r", 4), setting(all, "alpha", 16), whole("rs", 0), setting(all, "rate", 0.02), steps, four_bits);
  print("losses", train(0, steps), steps, "\n}\n");
}

#endif
