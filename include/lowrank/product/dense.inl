#pragma once

#include <lowrank/product/multiply.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <class S>
ConstStrided<S> strided(const ActivationView<S>& m) {
  return {m.data(), m.rows(), m.cols(), Eigen::OuterStride<>(m.outerStride())};
}
template <class S>
Strided<S> strided(Activation<S>& m) {
  return {m.data(), m.rows(), m.cols(), Eigen::OuterStride<>(m.rows())};
}

LOWRANK_INLINE void check_depth(const char* operation, Index left, Index right) {
  check<ShapeError>(left == right, operation, "the sum runs over ", left, " numbers on the left and ", right,
                    " on the right; both must be the same");
}

}  // namespace detail

template <class S>
Activation<S> times(const ActivationView<S>& a, const ActivationView<S>& b) {
  detail::check_depth("times", a.cols(), b.rows());
  Activation<S> c(a.rows(), b.cols());
  detail::multiply_nn<S>(detail::strided<S>(c), detail::strided<S>(a), detail::strided<S>(b), false, Compute::fp32);
  return c;
}

template <class S>
Activation<S> transposed_times(const ActivationView<S>& a, const ActivationView<S>& b) {
  detail::check_depth("transposed_times", a.rows(), b.rows());
  Activation<S> c(a.cols(), b.cols());
  detail::multiply_tn<S>(detail::strided<S>(c), detail::strided<S>(a), detail::strided<S>(b), false, Compute::fp32);
  return c;
}

template <class S>
Activation<S> times_transposed(const ActivationView<S>& a, const ActivationView<S>& b) {
  detail::check_depth("times_transposed", a.cols(), b.cols());
  Activation<S> c(a.rows(), b.rows());
  detail::multiply_nt<S>(detail::strided<S>(c), detail::strided<S>(a), detail::strided<S>(b), false, Compute::fp32);
  return c;
}

#if defined(LOWRANK_COMPILING)
template Activation<float> times<float>(const ActivationView<float>&, const ActivationView<float>&);
template Activation<float> transposed_times<float>(const ActivationView<float>&, const ActivationView<float>&);
template Activation<float> times_transposed<float>(const ActivationView<float>&, const ActivationView<float>&);
template Activation<double> times<double>(const ActivationView<double>&, const ActivationView<double>&);
template Activation<double> transposed_times<double>(const ActivationView<double>&, const ActivationView<double>&);
template Activation<double> times_transposed<double>(const ActivationView<double>&, const ActivationView<double>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
