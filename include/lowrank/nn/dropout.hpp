#pragma once

#include <cstdint>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/autograd/visit.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Dropout as a part of a model: while a tape records and train() is on, each number is zero with a probability p, the others are times
/// 1 / (1 - p). Masks are drawn from a seed; where their stream stands is part of the model's state (nn/state.hpp).
class Dropout {
 public:
  /// Another stream for each dropout of a model, so that their masks differ. Throws ValueError unless p lies in [0, 1).
  explicit Dropout(double probability, std::uint64_t seed = 0, std::uint64_t stream = 0)
      : dropout_(InputDropout<float>::of_layer(probability, seed, stream)) {}

  /// x with dropout. Keeps nothing.
  template <class S, class Device>
  Var<S, Device> operator()(const Var<S, Device>& x) {
    Tape<S, Device>* const tape = x.tape();
    if (tape == nullptr || !dropout_.active || dropout_.probability == 0) return x;
    return dropout(x, static_cast<double>(dropout_.probability), {dropout_.seed, tape->draw(dropout_.stream)});
  }

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_dropout(visitor, dropout_);
  }

 private:
  InputDropout<float> dropout_;
};

}  // namespace lowrank::inline LOWRANK_ABI
