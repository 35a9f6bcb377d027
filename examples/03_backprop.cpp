// Chapter 3: the gradient of a small network by hand, checked by differences whose own error is predicted first.
#include <functional>
#include <limits>

#include <lowrank/core/matrix.hpp>

#include <support/chapter.hpp>

using Eigen::MatrixXd;

// Y = W2 tanh(W1 X), L = ½ ‖Y - T‖².
struct Network {
  MatrixXd w1, w2;
};

double loss(const Network& net, const MatrixXd& x, const MatrixXd& t) {
  const MatrixXd h = (net.w1 * x).array().tanh();
  return 0.5 * (net.w2 * h - t).squaredNorm();
}

// The chain rule from the end to the beginning, a line an operation. G = dL/dY.
Network gradient(const Network& net, const MatrixXd& x, const MatrixXd& t) {
  const MatrixXd h = (net.w1 * x).array().tanh();
  const MatrixXd g = net.w2 * h - t;                          // dL/dY          [out, T]
  const MatrixXd dw2 = g * h.transpose();                     // G Hᵀ           [out, hidden]
  const MatrixXd dh = net.w2.transpose() * g;                 // W2ᵀ G          [hidden, T]
  const MatrixXd dp = dh.array() * (1 - h.array().square());  // tanh' = 1 - h² [hidden, T]
  const MatrixXd dw1 = dp * x.transpose();                    // dP Xᵀ          [hidden, in]
  return {dw1, dw2};
}

enum class Rule { forward, central };

// dL/dw by a difference, one number of a weight at a time.
MatrixXd difference(const std::function<double()>& f, MatrixXd& w, double step, Rule rule) {
  MatrixXd d(w.rows(), w.cols());
  for (Eigen::Index i = 0; i < w.size(); ++i) {
    double& number = w.data()[i];
    const double saved = number;
    number = saved + step;
    const double above = f();
    number = rule == Rule::central ? saved - step : saved;
    const double below = f();
    number = saved;
    d.data()[i] = (above - below) / (rule == Rule::central ? 2 * step : step);
  }
  return d;
}

// Slope of log(error) over log(step) between two steps that lie a factor of 100 apart.
double slope(double error_at_small, double error_at_large) { return std::log(error_at_large / error_at_small) / std::log(100.0); }

int main(int argc, char** argv) {
  support::Chapter chapter("3. Backpropagation by hand", argc, argv);
  Network net{support::normal<MatrixXd>(7, 5, 1, 0.5), support::normal<MatrixXd>(3, 7, 2, 0.5)};
  const MatrixXd x = support::normal<MatrixXd>(5, 9, 3), t = support::normal<MatrixXd>(3, 9, 4);
  const Network exact = gradient(net, x, t);
  const auto f = [&] { return loss(net, x, t); };

  const auto error = [&](double step, Rule rule) {
    const MatrixXd d1 = difference(f, net.w1, step, rule), d2 = difference(f, net.w2, step, rule);
    return ((d1 - exact.w1).norm() + (d2 - exact.w2).norm()) / (exact.w1.norm() + exact.w2.norm());
  };

  support::Plot plot("Error of a difference quotient over its step", "step h", "relative error of the gradient",
                     {.log_x = true, .log_y = true});
  support::Table table({"step", "forward", "central"});
  std::vector<double> steps, errors[2];
  for (int e = -28; e <= -2; ++e) steps.push_back(std::pow(10.0, e / 2.0));
  for (const Rule rule : {Rule::forward, Rule::central}) {
    for (const double step : steps) errors[static_cast<int>(rule)].push_back(error(step, rule));
    plot.line(rule == Rule::forward ? "(L(w + h) - L(w)) / h" : "(L(w + h) - L(w - h)) / 2h", steps, errors[static_cast<int>(rule)]);
  }
  for (std::size_t i = 0; i < steps.size(); i += 2)
    table.add({support::format("%.0e", steps[i]), support::format("%.1e", errors[0][i]), support::format("%.1e", errors[1][i])});
  chapter.section("Relative error of the gradient of all 56 weights, by the step of the difference:");
  table.print();

  const auto best = [&](Rule rule) {
    const auto& all = errors[static_cast<int>(rule)];
    return static_cast<std::size_t>(std::min_element(all.begin(), all.end()) - all.begin());
  };
  const double epsilon = std::numeric_limits<double>::epsilon();
  const double forward_step = std::sqrt(epsilon), central_step = std::cbrt(epsilon);
  chapter.at_most("hand-made gradient against central differences", 1e-9, error(central_step, Rule::central));
  const auto near = [&](const char* text, double predicted, double measured) {  // within a factor of 30: the valley is flat
    chapter.claim(text, support::format("%.1e", predicted), support::format("%.1e", measured),
                  std::abs(std::log(measured / predicted)) < std::log(30));
  };
  near("best step, forward: eps^(1/2), up to a factor of 30", forward_step, steps[best(Rule::forward)]);
  near("best step, central: eps^(1/3), up to a factor of 30", central_step, steps[best(Rule::central)]);
  chapter.equal("right of the valley, forward: error ~ h^1", 1, slope(error(1e-4, Rule::forward), error(1e-2, Rule::forward)), 0.1, "%.2f");
  chapter.equal("right of the valley, central: error ~ h^2", 2, slope(error(1e-4, Rule::central), error(1e-2, Rule::central)), 0.1, "%.2f");
  chapter.equal("left of the valley, central: error ~ h^-1", -1, slope(error(1e-11, Rule::central), error(1e-9, Rule::central)), 0.4,
                "%.2f");

  chapter.picture("03_backprop.svg", plot.svg());
  return chapter.finish();
}
