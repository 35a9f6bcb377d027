#pragma once

/// What updates add to products, as data. With a weight W [out, in] and an activation X [in, T] a layer gives
///
///   Y = g ∘ (W P(X) + s B M A D(X) + s Δ X) + b
///
/// A method (update/method.hpp) says in a plan which of these it has, and never computes a product; one executor a device runs plans
/// (product/forward.hpp, product/backward.hpp).

#include <memory>
#include <span>
#include <vector>

#include <lowrank/core/device.hpp>
#include <lowrank/core/matrix.hpp>
#include <lowrank/kernels/format/weight_view.hpp>
#include <lowrank/ops/activation.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Numbers of a factor where they lie, by rows; whoever makes the plan keeps them.
template <class S>
struct FactorView {
  const S* data = nullptr;
  Index rows = 0, cols = 0;
  const BFloat16* rounded = nullptr;  ///< the same in bfloat16, for inference in Compute::bf16; or null
  DeviceSlot* device = nullptr;       ///< where a GPU keeps its copy; null: none
  Index stride = cols;                ///< from row to row: more than cols for a part of a matrix

  bool empty() const { return rows * cols == 0; }
  DenseSource<S> source() const { return {data, rows, cols, stride}; }
  Eigen::Map<const Weight<S>, 0, Eigen::OuterStride<>> matrix() const { return {data, rows, cols, Eigen::OuterStride<>(stride)}; }
};

/// P, a linear map of the tokens [in] -> [in] before the weight sees them.
template <class S>
class InputMap {
 public:
  virtual ~InputMap() = default;
  /// P X [in, T].
  virtual Activation<S> operator()(const ActivationView<S>& x) const = 0;
  /// Pᵀ G [in, T].
  virtual Activation<S> transposed(const ActivationView<S>& g) const = 0;
};

/// g = m / n by rows [out]: m is trained, n a constant. A row with n = 0 has the factor 1.
template <class S>
struct RowScale {
  Column<S> factors = {};    ///< m / n; empty: none
  const S* m = nullptr;      ///< null: factors are fixed, for inference
  Column<S> n = {};          ///< empty: all 1
  bool scales_bias = false;  ///< g ∘ (… + b) instead of g ∘ (…) + b, with b that of the layer

  bool empty() const { return factors.size() == 0; }
};

/// One dropout mask of an update's input, or none.
struct Mask {
  double probability = 0;
  DropoutKey key = {};

  template <class S>
  Activation<S> operator()(const Activation<S>& x) const {
    return dropout_forward(x, probability, key);  // its own backward: the same mask and scale
  }
  explicit operator bool() const { return probability > 0; }
};

/// What one update adds to one layer.
template <class S>
struct Plan {
  FactorView<S> a = {}, b = {};                            ///< A [r, in], B [out, r']
  FactorView<S> middle = {};                               ///< M [r', r], or [r, 1]: its diagonal; empty: 1
  S scale = S(1);                                          ///< s
  Mask mask = {};                                          ///< D
  std::shared_ptr<const InputMap<S>> input_map = nullptr;  ///< P
  RowScale<S> gain = {};                                   ///< g
  FactorView<S> bias = {};                                 ///< of the update [out], times s
  WeightView delta = {};                                   ///< Δ [out, in], a change in any form that can be decoded
  bool trains_a = false, trains_b = false, trains_middle = false, trains_input_map = false, trains_gain = false, trains_bias = false,
       trains_delta = false;
  std::shared_ptr<const void> held = nullptr;  ///< numbers that the plan brings along

  bool has_factors() const { return !a.empty(); }
  bool has_delta() const { return delta.rows() > 0; }
  /// Whether all that it adds is a sum: s B M A, s Δ or a bias.
  bool is_additive() const { return input_map == nullptr && gain.empty(); }
  bool trains() const { return trains_a || trains_b || trains_middle || trains_input_map || trains_gain || trains_bias || trains_delta; }
  void freeze() { trains_a = trains_b = trains_middle = trains_input_map = trains_gain = trains_bias = trains_delta = false; }
};

/// Tokens [begin, begin + count) of a batch.
struct TokenRange {
  Index begin = 0, count = 0;
  bool operator==(const TokenRange&) const = default;
};

/// One layer of a group, with the plans of its updates and the tokens that each is for.
template <class S>
struct LayerPlan {
  /// One of the plans, for some of the tokens.
  struct Part {
    std::size_t plan;
    TokenRange tokens;
  };
  WeightView weight = {};  ///< without rows: the updates alone
  Index out = 0, in = 0;
  FactorView<S> bias = {};  ///< b of the layer [out], or none
  bool trains_bias = false;
  std::vector<Plan<S>> plans = {};
  std::vector<Part> parts = {};  ///< parts that share tokens add up, so they are additive

  bool has_weight() const { return weight.rows() > 0; }
};

/// Gradients of what a plan trains, summed over its tokens; of the rest nothing.
template <class S>
struct PlanGradients {
  Weight<S> a = {}, b = {}, middle = {};  ///< of A, B and M (of a diagonal [r, 1])
  Column<S> gain = {};                    ///< of m
  Column<S> bias = {};
  Weight<S> delta = {};               ///< of Δ, dense
  Activation<S> x = {}, mapped = {};  ///< for P: its input X and dL/dP(X) [in, tokens of the plan]
};

}  // namespace lowrank::inline LOWRANK_ABI
