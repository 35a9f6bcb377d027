// What the kernels reach on a device: bandwidth with one token, TFLOP/s of every path of a product beside cuBLAS on bfloat16 in the same
// run, the cost of a low-rank update, and which path wins at which size, for the table in lowrank/cuda/choose.hpp.
//   benchmark_cuda [FILE]     JSON, to FILE or standard output; exit 77 where there is no device
#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/cuda.hpp>
#include <lowrank/cuda/cublas.hpp>

using namespace lowrank;

namespace {

/// Milliseconds a call, median of five rounds of as many calls as take 5 ms.
template <class Call>
double milliseconds(const cuda::Stream& stream, const Call& call) {
  cuda::Event start, stop;
  const auto round = [&](int count) {
    start.record(stream);
    for (int i = 0; i < count; ++i) call();
    stop.record(stream);
    stop.synchronize();
    return static_cast<double>(stop.milliseconds_since(start)) / count;
  };
  round(2);
  const int count = static_cast<int>(std::clamp(5 / std::max(1e-3, round(2)), 3.0, 500.0));
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) times.push_back(round(count));
  std::sort(times.begin(), times.end());
  return times[2];
}

/// Random codes and scales of NF4 in blocks of 64: what a product costs does not depend on the numbers.
cuda::PackedMatrix random_nf4(int rows, int cols) {
  std::mt19937 random(1);
  cuda::PackedMatrix packed = cuda::detail::packed_frame("benchmark", rows, cols, 4);
  for (int i = 0; i < 16; ++i) packed.facts.table[i] = static_cast<float>(i - 8) / 8;
  for (cuda::Word4& word : packed.codes)
    for (std::uint32_t& codes : word.word) codes = static_cast<std::uint32_t>(random());
  packed.facts.scaling = cuda::Scaling::floats;
  packed.facts.group_shift = 1;
  packed.scales.assign(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols) / 64, 0.01f);
  return packed;
}

std::vector<float> random_numbers(std::size_t count) {
  std::mt19937 random(2);
  std::vector<float> numbers(count);
  for (float& x : numbers) x = static_cast<float>(random()) * 0x1p-31f - 1;
  return numbers;
}

/// Rows of bfloat16 on the device.
struct Rows {
  cuda::DeviceArray<cuda::Word4> memory;
  cuda::BrainRows rows;

  Rows(cuda::Launcher& launch, int count, int cols, int room = 0) {
    rows.cols = cols, rows.room = room;
    memory = cuda::DeviceArray<cuda::Word4>(static_cast<std::size_t>(count * rows.stride() / 8));
    rows.data = reinterpret_cast<bfloat16*>(memory.data());
    const cuda::DeviceArray<float> numbers(random_numbers(static_cast<std::size_t>(count) * static_cast<std::size_t>(cols)),
                                           launch.stream());
    rows.fill(launch, numbers.data(), count);
    launch.stream().synchronize();
  }
  /// The room behind the rows as rows of `cols` numbers.
  cuda::BrainRows behind(int cols) const {
    const int own = static_cast<int>(round_up(rows.cols, cuda::chunk_size));
    return {rows.data + own, cols, own + rows.room - static_cast<int>(round_up(cols, cuda::chunk_size))};
  }
};

/// A matrix, activations of up to `tokens` tokens for both ways with A x (or Bᵀ g) behind them, a low-rank update, and room for outputs and
/// partial sums. plain_x and plain_g are what cuBLAS reads.
struct Setup {
  static constexpr int rank = 16;
  int rows, cols;
  cuda::DeviceMatrix base;
  Rows x, g, plain_x, plain_g, a, b;
  cuda::DeviceArray<float> y, partials;

  Setup(cuda::Launcher& launch, int row_count, int col_count, int tokens)
      : rows(row_count),
        cols(col_count),
        base(random_nf4(row_count, col_count), launch.stream()),
        x(launch, tokens, col_count, cuda::chunk_size),
        g(launch, tokens, row_count, cuda::chunk_size),
        plain_x(launch, tokens, col_count),
        plain_g(launch, tokens, row_count),
        a(launch, rank, col_count),
        b(launch, row_count, rank),
        y(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(std::max(row_count, col_count))),
        partials(std::size_t{1} << 25) {
    const cuda::DeviceArray<float> numbers(random_numbers(static_cast<std::size_t>(tokens) * rank), launch.stream());
    x.behind(rank).fill(launch, numbers.data(), tokens);
    g.behind(rank).fill(launch, numbers.data(), tokens);
    launch.stream().synchronize();
  }

  cuda::Product product(bool turned, int tokens, bool adapted) const {
    cuda::Product p;
    p.base = base.view();
    p.x = (turned ? g : x).rows.operand();
    p.rows = turned ? cols : rows;
    p.tokens = tokens;
    p.y = y.data();
    p.ldy = p.rows;
    if (!adapted) return p;
    p.h = (turned ? g : x).behind(rank).operand();
    p.adapter = {turned ? a.rows.data : b.rows.data, turned ? a.rows.stride() : b.rows.stride(), rank, p.rows};
    return p;
  }
  cuda::Scratch scratch() const { return {partials.data(), static_cast<Index>(partials.size())}; }
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

bool applies(Path path, bool turned, int tokens, const cuda::DeviceTraits& device) {
  if (path == Path::few) return !turned && tokens <= 8;
  if (path == Path::wgmma_64 || path == Path::wgmma_128) return device.has_wgmma;
  return true;
}

template <bool Turned>
double time_of(cuda::BlasLauncher& launch, const Setup& s, Path path, int tokens, bool adapted) {
  const cuda::Product p = s.product(Turned, tokens, adapted);
  return milliseconds(launch.stream(), [&] { cuda::multiply_by<Turned>(launch, path, p, s.scratch()); });
}

/// One line of the table by size: every path, cuBLAS on the dense matrix, the fastest, and what choose_product names.
template <bool Turned>
void write_size(std::FILE* out, cuda::BlasLauncher& launch, const Setup& s, const Rows& dense, int tokens, bool is_first) {
  const cuda::DeviceTraits device = cuda::traits_of(launch);
  const cuda::Product p = s.product(Turned, tokens, false);
  const double flops = 2.0 * s.rows * s.cols * tokens;
  std::fprintf(out, "%s\n    {\"rows\": %d, \"cols\": %d, \"tokens\": %d, \"turned\": %s", is_first ? "" : ",", s.rows, s.cols, tokens,
               Turned ? "true" : "false");
  const cuda::Operand plain = (Turned ? s.plain_g : s.plain_x).rows.operand();
  const cuda::DenseProduct whole{Turned,       p.rows, tokens, plain.depth, dense.rows.data, dense.rows.stride(), plain.data,
                                 plain.stride, p.y,    p.ldy,  false};
  const double blas = milliseconds(launch.stream(), [&] { launch.multiply(whole); });
  std::fprintf(out, ", \"cublas_bf16_ms\": %.4f, \"cublas_bf16_tflops\": %.1f", blas, flops / blas * 1e-9);
  double best = 1e30;
  const char* fastest = "";
  for (const auto& [path, name] : paths) {
    if (!applies(path, Turned, tokens, device)) continue;
    const double time = time_of<Turned>(launch, s, path, tokens, false);
    std::fprintf(out, ", \"%s_ms\": %.4f", name, time);
    if (time < best) best = time, fastest = name;
  }
  const Path chosen = cuda::choose_product(p.rows, tokens, Turned, device);
  const double adapted = time_of<Turned>(launch, s, chosen, tokens, true), bare = time_of<Turned>(launch, s, chosen, tokens, false);
  std::fprintf(out, ", \"fastest\": \"%s\", \"tflops\": %.1f, \"of_cublas\": %.3f, \"chosen\": \"%s\", \"rank_16_costs\": %.4f}", fastest,
               flops / best * 1e-9, blas / best, name_of(chosen), adapted / bare - 1);
  std::fflush(out);
}

void write_sizes(std::FILE* out, cuda::BlasLauncher& launch) {
  constexpr int shapes[][2] = {{4096, 4096}, {14336, 4096}, {4096, 14336}};
  std::fprintf(out, ",\n  \"sizes\": [");
  bool is_first = true;
  for (const auto& [rows, cols] : shapes) {
    const Setup s(launch, rows, cols, 4096);
    const Rows dense(launch, rows, cols);
    for (const int tokens : {1, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096}) {
      write_size<false>(out, launch, s, dense, tokens, is_first);
      write_size<true>(out, launch, s, dense, tokens, false);
      is_first = false;
    }
  }
  std::fprintf(out, "\n  ]");
}

/// Gigabytes a second that a copy on the device reads and writes.
double copy_bandwidth(const cuda::Stream& stream) {
  constexpr std::size_t bytes = std::size_t{1} << 30;
  const cuda::DeviceArray<char> from(bytes), to(bytes);
  const double time = milliseconds(stream, [&] {
    cuda::expect_success(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, stream.get()), "copy");
  });
  return 2e-6 * static_cast<double>(bytes) / time;
}

/// One token through NF4 [4096, 14336], copies of the matrix in turn so that no cache holds it.
void write_one_token(std::FILE* out, cuda::BlasLauncher& launch, double bandwidth) {
  constexpr int rows = 4096, cols = 14336, copies = 16;
  const cuda::PackedMatrix packed = random_nf4(rows, cols);
  std::vector<cuda::DeviceMatrix> bases;
  for (int i = 0; i < copies; ++i) bases.emplace_back(packed, launch.stream());
  const Setup s(launch, rows, cols, 4);
  for (const int tokens : {1, 2, 4}) {
    cuda::Product p = s.product(false, tokens, false);
    int turn = 0;
    const double time = milliseconds(launch.stream(), [&] {
      p.base = bases[static_cast<std::size_t>(turn++ % copies)].view();
      cuda::multiply<false>(launch, p, s.scratch());
    });
    const double rate = static_cast<double>(packed.bytes()) / time * 1e-6;
    std::fprintf(out, ",\n  \"tokens_%d\": {\"ms\": %.4f, \"gb_per_s\": %.1f, \"of_copy\": %.3f}", tokens, time, rate, rate / bandwidth);
  }
}

void run(std::FILE* out) {
  const cuda::Stream stream;
  cuda::BlasLauncher launch(stream);
  const cuda::DeviceInfo& device = cuda::devices().front();
  const double bandwidth = copy_bandwidth(stream);
  std::fprintf(out,
               "{\n  \"device\": \"%s\", \"capability\": \"%d.%d\", \"multiprocessors\": %d, \"wgmma\": %s,\n  \"copy_gb_per_s\": %.1f",
               device.name.c_str(), device.major, device.minor, device.multiprocessors, launch.has_wgmma() ? "true" : "false", bandwidth);
  write_one_token(out, launch, bandwidth);
  write_sizes(out, launch);
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
