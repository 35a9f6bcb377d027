#pragma once

/// The products that one writes without the library: three loops, and Eigen's own on a dense copy.

#include <vector>

#include <lowrank/core/matrix.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/quant/any_matrix.hpp>

namespace benchmarks {

using lowrank::Activation;
using lowrank::Index;

/// Y = W X by three loops, as the compiler's -O3 leaves them; rows are shared by all threads, and decoded once where they are no floats.
inline void loop_product(const lowrank::AnyMatrix& w, const Activation<float>& x, Activation<float>& y) {
  const Index depth = w.cols(), tokens = x.cols();
  lowrank::parallel_for(w.rows(), [&](Index i) {
    static thread_local std::vector<float> row;
    row.resize(static_cast<std::size_t>(depth));
    w.decode(i, 1, 0, depth, row.data(), depth);
    for (Index t = 0; t < tokens; ++t) {
      float sum = 0;
      for (Index k = 0; k < depth; ++k) sum += row[static_cast<std::size_t>(k)] * x(k, t);
      y(i, t) = sum;
    }
  });
}

/// Y = W X by Eigen; what is not dense is made so first, each time, as one does who has no other product.
inline void eigen_product(const lowrank::AnyMatrix& w, const Activation<float>& x, Activation<float>& y) {
  if (w.view().kind() == lowrank::WeightView::Kind::fp32) {
    y.noalias() = lowrank::ConstWeightMap<float>(w.view().dense<float>().data(), w.rows(), w.cols()) * x;
    return;
  }
  static lowrank::Weight<float> dense;
  dense.resize(w.rows(), w.cols());
  lowrank::parallel_ranges(
      w.rows(), 16, [&](Index begin, Index end) { w.decode(begin, end - begin, 0, w.cols(), dense.data() + begin * w.cols(), w.cols()); });
  y.noalias() = dense * x;
}

}  // namespace benchmarks
