#pragma once

#include <Eigen/Core>

namespace exercises {

/// df/dx by central differences, x changed in place and put back; f returns a double.
template <class Matrix, class Function>
Matrix difference(Matrix& x, const Function& f) {
  Matrix d(x.rows(), x.cols());
  for (Eigen::Index i = 0; i < x.size(); ++i) {
    double& number = x.data()[i];
    const double saved = number, step = 6e-6;
    number = saved + step;
    const double above = f();
    number = saved - step;
    const double below = f();
    number = saved;
    d.data()[i] = (above - below) / (2 * step);
  }
  return d;
}

}  // namespace exercises
