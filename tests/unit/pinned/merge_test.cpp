#include <lowrank/adapters/merge.hpp>
#include <lowrank/quant/nf4.hpp>

#include "problems.hpp"

using namespace lowrank;

namespace {

template <class W>
Weight<float> numbers_of(const W& source) {
  Weight<float> w(source.rows(), source.cols());
  source.decode(0, w.rows(), 0, w.cols(), w.data(), w.cols());
  return w;
}

/// The merged weight and bias, the report, what the merged layer gives, and the layer after unmerge().
template <class Layer>
void pin_merge(pins::Results& results, const std::string& name, Layer layer, const MergePolicy& policy = {}) {
  pins::move_update(layer.update(), 6);
  const MergeReport report = merge(layer, policy);
  const double numbers[] = {report.update_norm, report.error_norm, report.relative_error, report.survived, report.codes_changed};
  results.add(name + "/report", Eigen::Map<const Column<double>>(numbers, 5));
  results.add(name + "/weight", numbers_of(layer.merged().source()));
  if (!layer.merged().bias().empty()) results.add(name + "/bias", layer.merged().bias().value);
  for (const Index tokens : {1, 9}) results.add(name + "/y", layer(pins::drawn_columns(layer.in_features(), tokens, 1)));
  unmerge(layer);
  results.add(name + "/unmerged", numbers_of(layer.base().source()));
}

}  // namespace

TEST_CASE("pinned: merged weights, LoRA and DoRA, dense, in bfloat16 and in NF4") {
  pins::check_pinned("merge", [](pins::Results& results) {
    const auto w = pins::drawn_weight(72, 160, 3);
    const auto bias = pins::drawn_vector(72, 4);
    const QuantizedLinear<Nf4<64>> nf4(quantize<Nf4<64>>(w), bias);
    const LoraOptions lora{.rank = 4, .alpha = 6, .seed = 5}, biased{.rank = 16, .alpha = 6, .lora_bias = true, .seed = 5};
    pin_merge(results, "lora/linear", LoraLinear{Linear<float>(w, bias), biased});
    pin_merge(results, "lora/bfloat16", LoraLinear{FrozenLinear<BFloat16>(pins::rounded(w)), lora});
    pin_merge(results, "lora/nf4", LoraLinear{nf4, biased});
    pin_merge(results, "lora/nf4_search", LoraLinear{nf4, lora}, {.search = true});
    pin_merge(results, "dora/linear", DoraLinear{Linear<float>(w, bias), lora});
    pin_merge(results, "dora/nf4", DoraLinear{nf4, lora});
  });
}
