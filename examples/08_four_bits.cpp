// Chapter 8: sixteen values and a scale a block. Which sixteen depends on the weights, and the block on what bits may cost.
#include <lowrank/quant/double_quant.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/nf4.hpp>

#include <support/chapter.hpp>

using lowrank::Index;
using lowrank::Weight;

// A format of one's own: sixteen evenly spaced values from -1 to 1 times the block's largest magnitude.
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

constexpr Index rows = 512, cols = 4096;

Weight<float> normal_weights() { return support::normal<Weight<float>>(rows, cols, 1); }
Weight<float> even_weights() {
  Weight<float> w(rows, cols);
  lowrank::fill_uniform(w, 1, lowrank::Random(2));
  return w;
}
// Student's t with 3 degrees of freedom: normal over the root of a mean of three squares.
Weight<float> heavy_weights() {
  Weight<float> w = normal_weights();
  lowrank::Random random(3);
  for (Index i = 0; i < w.size(); ++i) {
    const float a = random.normal(), b = random.normal(), c = random.normal();
    w.data()[i] /= std::sqrt((a * a + b * b + c * c) / 3);
  }
  return w;
}
// One weight of a thousand is twenty times as large.
Weight<float> outlier_weights() {
  Weight<float> w = normal_weights();
  for (Index i = 500; i < w.size(); i += 1000) w.data()[i] *= 20;
  return w;
}

template <class Format>
lowrank::QuantizationError error_of(const Weight<float>& w) {
  return quantization_error(w, lowrank::quantize<Format>(w));
}

// Root mean square of the blocks' largest magnitudes.
double rms_absmax(const Weight<float>& w, Index block) {
  double sum = 0;
  for (Index i = 0; i < w.size(); i += block) {
    const double largest = static_cast<double>(Eigen::Map<const Eigen::ArrayXf>(w.data() + i, block).abs().maxCoeff());
    sum += largest * largest;
  }
  return std::sqrt(sum * static_cast<double>(block) / static_cast<double>(w.size()));
}

// Of normal weights over NF4 at a block of 64: the share of each of the sixteen values, and the relative error of a product with inputs.
void cells_and_product(support::Chapter& chapter, const Weight<float>& w) {
  const Weight<float> error = dequantize(lowrank::quantize<lowrank::Nf4<64>>(w)) - w;
  std::vector<double> share(16);
  for (Index i = 0; i < w.size(); i += 64) {
    const Eigen::Map<const Eigen::ArrayXf> block(w.data() + i, 64);
    const float absmax = block.abs().maxCoeff();
    for (const float weight : block) share[lowrank::Nf4<64>::encode(weight / absmax)] += 100 / static_cast<double>(w.size());
  }
  const auto [least, most] = std::minmax_element(share.begin(), share.end());
  support::Table table({"value", "normal weights there, %"});
  for (std::size_t i = 0; i < 16; ++i)
    table.add({support::format("%.3f", static_cast<double>(lowrank::Nf4<64>::table[i])), support::format("%.2f", share[i])});
  chapter.section("How full the sixteen cells of NF4 are at a block of 64:");
  table.print();
  chapter.claim("fullest cell over emptiest, NF4 at block 64", "> 2", support::format("%.1f", *most / *least), *most > 2 * *least);
  const auto x = support::normal<lowrank::Activation<float>>(cols, 64, 4);
  const double of_weights = error_of<lowrank::Nf4<64>>(w).relative, of_product = static_cast<double>((error * x).norm() / (w * x).norm());
  chapter.equal("relative error of a product with 4096 inputs = that of the weights", of_weights, of_product, 0.05 * of_weights, "%.4f");
}

template <int... Blocks>
void by_block(support::Chapter& chapter, support::Plot& plot, const Weight<float>& w, const Weight<float>& outliers) {
  support::Table table({"block", "bits a weight", "uniform", "NF4", "NF4, outliers"});
  const std::vector<double> blocks{static_cast<double>(Blocks)...};
  const std::vector<double> uniform{error_of<Uniform4<Blocks>>(w).relative...}, nf4{error_of<lowrank::Nf4<Blocks>>(w).relative...},
      spoiled{error_of<lowrank::Nf4<Blocks>>(outliers).relative...}, bits{error_of<lowrank::Nf4<Blocks>>(w).bits_per_weight...};
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    table.add({support::format("%.0f", blocks[i]), support::format("%.4f", bits[i]), support::format("%.4f", uniform[i]),
               support::format("%.4f", nf4[i]), support::format("%.4f", spoiled[i])});
    if (blocks[i] == 32 || blocks[i] == 512)
      chapter.equal(support::format("bits a weight at block %.0f, 4 + 32 / block", blocks[i]), 4 + 32 / blocks[i], bits[i]);
  }
  chapter.section("Relative error by block size:");
  table.print();
  chapter.claim("error grows with the block, NF4 and uniform", "rising", std::is_sorted(nf4.begin(), nf4.end()) ? "rising" : "not",
                std::is_sorted(nf4.begin(), nf4.end()) && std::is_sorted(uniform.begin(), uniform.end()));
  plot.line("NF4, normal with outliers", blocks, spoiled);
  plot.line("uniform, normal", blocks, uniform);
  plot.line("NF4, normal", blocks, nf4);
}

int main(int argc, char** argv) {
  support::Chapter chapter("8. Four bits in blocks", argc, argv);
  const std::vector<std::pair<std::string, Weight<float>>> kinds{
      {"normal", normal_weights()}, {"heavy-tailed", heavy_weights()}, {"outliers", outlier_weights()}, {"even", even_weights()}};
  support::Table table({"weights", "uniform", "NF4", "NF4 / uniform"});
  double ratio[4];
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const double uniform = error_of<Uniform4<64>>(kinds[i].second).relative, nf4 = error_of<lowrank::Nf4<64>>(kinds[i].second).relative;
    ratio[i] = nf4 / uniform;
    table.add({kinds[i].first, support::format("%.4f", uniform), support::format("%.4f", nf4), support::format("%.3f", ratio[i])});
  }
  chapter.section("Relative root mean square error at a block of 64:");
  table.print();
  chapter.at_most("NF4 / uniform on normal weights", 0.95, ratio[0], "%.3f");
  chapter.at_most("NF4 / uniform on heavy-tailed weights", 0.95, ratio[1], "%.3f");
  chapter.at_least("NF4 / uniform on evenly spread weights", 1.05, ratio[3]);

  // Evenly spaced values lie Δ = 2 absmax / 15 apart, and a rounding error is uniform in ±Δ/2: its root mean square is Δ / √12.
  const Weight<float>& w = kinds[0].second;
  const double predicted = 2.0 / 15 * rms_absmax(w, 64) / std::sqrt(12.0), measured = error_of<Uniform4<64>>(w).rmse;
  chapter.equal("uniform, normal weights: rmse = (2/15) rms(absmax) / sqrt(12)", predicted, measured, 0.01 * predicted, "%.4f");
  const double nested = error_of<lowrank::Nf4<64, lowrank::DoubleQuant>>(w).bits_per_weight;
  chapter.equal("bits with double quantization, 4 + 8/64 + 32/(64*256)", 4 + 8.0 / 64 + 32.0 / (64 * 256), nested, 1e-4, "%.4f");

  cells_and_product(chapter, w);

  support::Plot plot("Four-bit error by block size", "weights in a block", "relative error", {.log_x = true, .least_y = 0});
  by_block<32, 64, 128, 256, 512, 1024, 2048, 4096>(chapter, plot, w, kinds[2].second);
  chapter.picture("08_four_bits.svg", plot.svg());
  return chapter.finish();
}
