// What the kernels reach on a device: bandwidth with one token, TFLOP/s of every path of a product beside cuBLAS on bfloat16 in the same
// run, the cost of a low-rank update, and which path wins at which size, for the table in lowrank/cuda/launch.hpp.
//   benchmark_cuda [FILE]     JSON, to FILE or standard output; exit 77 where there is no device
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/cuda.hpp>
#include <lowrank/cuda/launch.hpp>
#include <lowrank/cuda/rounded.hpp>
#include <lowrank/cuda/weight.hpp>

using namespace lowrank;

namespace {

/// Milliseconds a call, median of five rounds of as many calls as take 5 ms.
template <class Call>
double milliseconds(cuda::Machine& gpu, const Call& call) {
  const auto round = [&](int count) {
    gpu.synchronize();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < count; ++i) call();
    gpu.synchronize();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / count;
  };
  round(2);
  const int count = static_cast<int>(std::clamp(5 / std::max(1e-3, round(2)), 3.0, 500.0));
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) times.push_back(round(count));
  std::sort(times.begin(), times.end());
  return times[2];
}

/// Random codes and scales of NF4 in blocks of 64: what a product costs does not depend on the numbers.
cuda::ChunkedMatrix random_nf4(Index rows, Index cols) {
  std::mt19937 random(1);
  cuda::ChunkedMatrix matrix;
  matrix.facts.rows = static_cast<int>(rows), matrix.facts.cols = static_cast<int>(cols);
  matrix.facts.chunks = static_cast<int>(ceil_div(cols, cuda::chunk_size));
  matrix.codes.resize(static_cast<std::size_t>(rows * matrix.facts.chunks));
  for (int i = 0; i < 16; ++i) matrix.facts.table[i] = static_cast<float>(i - 8) / 8;
  for (cuda::Word4& word : matrix.codes)
    for (std::uint32_t& codes : word.word) codes = static_cast<std::uint32_t>(random());
  matrix.facts.scaling = cuda::Scaling::floats;
  matrix.facts.group_shift = 1;
  matrix.scales.assign(static_cast<std::size_t>(rows * cols) / 64, 0.01f);
  return matrix;
}

cuda::DeviceActivation random_numbers(Index rows, Index cols) {
  std::mt19937 random(2);
  Activation<float> numbers(rows, cols);
  for (Index i = 0; i < numbers.size(); ++i) numbers.data()[i] = static_cast<float>(random()) * 0x1p-31f - 1;
  return cuda::DeviceActivation(numbers);
}

/// A matrix, activations of up to `tokens` tokens for both ways with A x (or Bᵀ g) behind them, a low-rank update, and room for outputs.
/// plain_x and plain_g are what cuBLAS reads.
struct Setup {
  static constexpr int rank = 16;
  int rows, cols;
  cuda::Machine& gpu = cuda::Machine::current();
  cuda::DeviceWeight base;
  cuda::Rounded x, g, ax, bg, plain_x, plain_g, a, b;
  cuda::DeviceActivation y;

  Setup(int row_count, int col_count, int tokens)
      : rows(row_count),
        cols(col_count),
        base(gpu, random_nf4(row_count, col_count)),
        x(random_numbers(cols, tokens), cuda::chunk_size),
        g(random_numbers(rows, tokens), cuda::chunk_size),
        ax(x, 0, random_numbers(rank, tokens)),
        bg(g, 0, random_numbers(rank, tokens)),
        plain_x(random_numbers(cols, tokens)),
        plain_g(random_numbers(rows, tokens)),
        a(random_numbers(cols, rank)),
        b(random_numbers(rank, rows)),
        y(std::max(rows, cols), tokens) {}

  cuda::Product product(bool transposed, int tokens, bool adapted) {
    const cuda::Rounded &factor = transposed ? a : b, &h = transposed ? bg : ax;
    return product_of(base.view(), transposed, transposed ? g : x, tokens, y.data(), adapted ? &factor : nullptr, adapted ? &h : nullptr);
  }
};

using Path = cuda::ProductPath;
constexpr std::pair<Path, const char*> paths[] = {{Path::few, "few"},      {Path::small, "small"},       {Path::medium, "medium"},
                                                  {Path::large, "large"},  {Path::wgmma_64, "wgmma_64"}, {Path::wgmma_128, "wgmma_128"},
                                                  {Path::slices, "slices"}};
const char* name_of(Path path) {
  for (const auto& [value, name] : paths)
    if (value == path) return name;
  return "";
}

bool applies(Path path, bool transposed, int tokens, const cuda::DeviceTraits& device) {
  if (path == Path::few) return !transposed && tokens <= 8;
  if (path == Path::wgmma_64 || path == Path::wgmma_128) return device.has_wgmma;
  return true;
}

double time_of(Setup& s, Path path, bool transposed, int tokens, bool adapted) {
  const cuda::Product p = s.product(transposed, tokens, adapted);
  return milliseconds(s.gpu, [&] { multiply_by(s.gpu, path, p, transposed, s.gpu.scratch()); });
}

/// One line of the table by size: every path, cuBLAS on the dense matrix, the fastest, and what choose_product names.
void write_size(std::FILE* out, Setup& s, const cuda::Rounded& dense, bool transposed, int tokens, bool is_first) {
  const cuda::DeviceTraits device = s.gpu.traits();
  const cuda::Product p = s.product(transposed, tokens, false);
  const double flops = 2.0 * s.rows * s.cols * tokens;
  std::fprintf(out, "%s\n    {\"rows\": %d, \"cols\": %d, \"tokens\": %d, \"transposed\": %s", is_first ? "" : ",", s.rows, s.cols, tokens,
               transposed ? "true" : "false");
  const cuda::Operand plain = (transposed ? s.plain_g : s.plain_x).operand(), w = dense.operand();
  const cuda::DenseProduct whole{transposed, p.rows, tokens, plain.depth, w.data, w.stride, plain.data, plain.stride, p.y, p.ldy, false};
  const double blas = milliseconds(s.gpu, [&] { s.gpu.multiply(whole); });
  std::fprintf(out, ", \"cublas_bf16_ms\": %.4f, \"cublas_bf16_tflops\": %.1f", blas, flops / blas * 1e-9);
  double best = 1e30;
  const char* fastest = "";
  for (const auto& [path, name] : paths) {
    if (!applies(path, transposed, tokens, device)) continue;
    const double time = time_of(s, path, transposed, tokens, false);
    std::fprintf(out, ", \"%s_ms\": %.4f", name, time);
    if (time < best) best = time, fastest = name;
  }
  const Path chosen = cuda::choose_product(p.rows, tokens, transposed, device);
  const double adapted = time_of(s, chosen, transposed, tokens, true), bare = time_of(s, chosen, transposed, tokens, false);
  std::fprintf(out, ", \"fastest\": \"%s\", \"tflops\": %.1f, \"of_cublas\": %.3f, \"chosen\": \"%s\", \"rank_16_costs\": %.4f}", fastest,
               flops / best * 1e-9, blas / best, name_of(chosen), adapted / bare - 1);
  std::fflush(out);
}

void write_sizes(std::FILE* out) {
  constexpr int shapes[][2] = {{4096, 4096}, {14336, 4096}, {4096, 14336}};
  std::fprintf(out, ",\n  \"sizes\": [");
  bool is_first = true;
  for (const auto& [rows, cols] : shapes) {
    Setup s(rows, cols, 4096);
    const cuda::Rounded dense(random_numbers(cols, rows));
    for (const int tokens : {1, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096}) {
      write_size(out, s, dense, false, tokens, is_first);
      write_size(out, s, dense, true, tokens, false);
      is_first = false;
    }
  }
  std::fprintf(out, "\n  ]");
}

/// Gigabytes a second that a copy on the device reads and writes.
double copy_bandwidth(cuda::Machine& gpu) {
  constexpr std::size_t bytes = std::size_t{1} << 30;
  const cuda::Memory from = gpu.reserve(bytes), to = gpu.reserve(bytes);
  return 2e-6 * static_cast<double>(bytes) / milliseconds(gpu, [&] { gpu.copy(from.get(), to.get(), bytes); });
}

/// One token through NF4 [4096, 14336], copies of the matrix in turn so that no cache holds it.
void write_one_token(std::FILE* out, double bandwidth) {
  constexpr int rows = 4096, cols = 14336, copies = 16;
  Setup s(rows, cols, 4);
  const cuda::ChunkedMatrix matrix = random_nf4(rows, cols);
  std::vector<std::unique_ptr<cuda::DeviceWeight>> bases;
  for (int i = 0; i < copies; ++i) bases.push_back(std::make_unique<cuda::DeviceWeight>(s.gpu, matrix));
  for (const int tokens : {1, 2, 4}) {
    cuda::Product p = s.product(false, tokens, false);
    int turn = 0;
    const double time = milliseconds(s.gpu, [&] {
      p.base = bases[static_cast<std::size_t>(turn++ % copies)]->view();
      multiply(s.gpu, p, false, s.gpu.scratch());
    });
    const double rate = static_cast<double>(matrix.bytes()) / time * 1e-6;
    std::fprintf(out, ",\n  \"tokens_%d\": {\"ms\": %.4f, \"gb_per_s\": %.1f, \"of_copy\": %.3f}", tokens, time, rate, rate / bandwidth);
  }
}

void run(std::FILE* out) {
  const auto gpu = cuda::open_gpu();
  const cuda::Use use(gpu);
  const cuda::DeviceInfo& device = cuda::devices().front();
  const double bandwidth = copy_bandwidth(*gpu);
  std::fprintf(
      out, "{\n  \"device\": \"%s\", \"capability\": \"%d.%d\", \"multiprocessors\": %d, \"wgmma\": %s,\n  \"copy_gb_per_s\": %.1f",
      device.name.c_str(), device.major, device.minor, device.multiprocessors, gpu->traits().has_wgmma ? "true" : "false", bandwidth);
  write_one_token(out, bandwidth);
  write_sizes(out);
  std::fprintf(out, "\n}\n");
}

}  // namespace

int main(int count, char** arguments) {
  if (!cuda::is_available()) {
    std::printf("skipped: no NVIDIA GPU of compute capability 8.0 or more here\n");
    return 77;
  }
  std::FILE* const out = count > 1 ? std::fopen(arguments[1], "w") : stdout;
  if (out == nullptr) {
    std::fprintf(stderr, "benchmark_cuda: cannot write %s\n", arguments[1]);
    return 1;
  }
  try {
    run(out);
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "benchmark_cuda: %s\n", failure.what());
    return 1;
  }
  return std::fclose(out) == 0 ? 0 : 1;
}
