#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <support/table.hpp>

namespace support {

/// How the axes of a Plot count.
struct Axes {
  bool log_x = false, log_y = false;
  double least_y = std::numeric_limits<double>::quiet_NaN();  ///< bottom of the picture; smaller values lie on it
};

/// Curves, points or bars as an SVG picture that browsers show on light and on dark pages: it brings its own ground for both.
class Plot {
 public:
  Plot(std::string title, std::string x_label, std::string y_label, Axes axes = {})
      : title_(std::move(title)), x_label_(std::move(x_label)), y_label_(std::move(y_label)), axes_(axes) {}

  void line(std::string name, std::vector<double> x, std::vector<double> y) { add(std::move(name), std::move(x), std::move(y), 'l'); }
  void dashes(std::string name, std::vector<double> x, std::vector<double> y) { add(std::move(name), std::move(x), std::move(y), 'd'); }
  void points(std::string name, std::vector<double> x, std::vector<double> y) { add(std::move(name), std::move(x), std::move(y), 'p'); }
  /// An upright line from low to high at each x, in the colour of the series before it.
  void intervals(const std::vector<double>& x, const std::vector<double>& low, const std::vector<double>& high) {
    std::vector<double> twice, ends;
    for (std::size_t i = 0; i < x.size(); ++i) {
      twice.insert(twice.end(), {x[i], x[i]});
      ends.insert(ends.end(), {low[i], high[i]});
    }
    add("", std::move(twice), std::move(ends), 'i');
  }
  /// Bars with a name under each; the only series of its plot.
  void bars(std::vector<std::string> names, std::vector<double> y) {
    std::vector<double> x(y.size());
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<double>(i);
    names_ = std::move(names);
    add("", std::move(x), std::move(y), 'b');
  }

  bool empty() const { return series_.empty(); }
  /// The picture; at least one series must be there.
  std::string svg() const {
    std::string picture = head() + grid();
    for (std::size_t i = 0; i < series_.size(); ++i) picture += draw(series_[i], colour(i)) + legend(i);
    return picture + "</svg>\n";
  }

 private:
  struct Series {
    std::string name;
    std::vector<double> x, y;
    char kind;
  };
  struct Range {
    double low, high;
  };
  static constexpr double width = 640, height = 360, left = 74, right = 20, top = 58, bottom = 50;

  // Colours that people with any colour vision tell apart (Okabe and Ito 2008), readable on white and on near-black.
  // A series without a name belongs to the one before it.
  const char* colour(std::size_t i) const {
    static constexpr const char* colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"};
    std::size_t named = 0;
    for (std::size_t k = 1; k <= i; ++k) named += !series_[k].name.empty();
    return colours[named % 6];
  }

  void add(std::string name, std::vector<double> x, std::vector<double> y, char kind) {
    series_.push_back({std::move(name), std::move(x), std::move(y), kind});
  }

  static double scaled(double value, bool log) { return log ? std::log10(std::max(value, 1e-300)) : value; }

  Range range(bool vertical) const {
    Range r{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
    const bool log = vertical ? axes_.log_y : axes_.log_x;
    for (const Series& s : series_)
      for (const double value : vertical ? s.y : s.x) r = {std::min(r.low, scaled(value, log)), std::max(r.high, scaled(value, log))};
    if (vertical && !std::isnan(axes_.least_y)) r.low = scaled(axes_.least_y, log);
    if (vertical && !names_.empty() && !log) r.low = 0;
    if (!vertical && !names_.empty()) r = {r.low - 0.6, r.high + 0.6};
    if (!(r.high - r.low > 1e-12)) r.high = r.low + 1;
    return vertical ? Range{r.low, r.high + 0.04 * (r.high - r.low)} : r;
  }

  double at_x(double x) const {
    const Range r = range(false);
    return left + (width - left - right) * (scaled(x, axes_.log_x) - r.low) / (r.high - r.low);
  }
  double at_y(double y) const {
    const Range r = range(true);
    return height - bottom - (height - top - bottom) * (std::clamp(scaled(y, axes_.log_y), r.low, r.high) - r.low) / (r.high - r.low);
  }

  // About five round values: powers of ten where the axis is logarithmic over more than a decade, else 1, 2 or 5 times one.
  static std::vector<double> ticks(Range r, bool log) {
    std::vector<double> values;
    if (log && r.high - r.low >= 1) {
      const double step = std::ceil((r.high - r.low) / 6);
      for (double e = std::ceil(r.low); e <= r.high + 1e-9; e += step) values.push_back(std::pow(10, e));
      return values;
    }
    if (log) r = {std::pow(10, r.low), std::pow(10, r.high)};
    const double rough = (r.high - r.low) / 5, power = std::pow(10, std::floor(std::log10(rough))), part = rough / power;
    const double step = power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
    for (double v = std::ceil(r.low / step) * step; v <= r.high + step * 1e-9; v += step) values.push_back(std::abs(v) < step / 2 ? 0 : v);
    return values;
  }
  static std::string number(double value, bool log) {
    const double e = std::log10(std::abs(value));
    if (log && (e < -3 || e > 4)) return format("1e%.0f", e);
    return format(value == std::round(value) ? "%.6g" : "%.3g", value);
  }

  static std::string text(double x, double y, const char* anchor, const std::string& content, const char* more = "") {
    return format("<text class=\"ink\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"#24292f\"%s>%s</text>\n", x, y, anchor, more,
                  content.c_str());
  }

  std::string head() const {
    std::string svg = format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" "
        "font-size=\"12\" role=\"img\">\n<title>%s</title>\n",
        width, height, title_.c_str());
    svg += "<desc>\n" + data() + "</desc>\n";
    svg +=
        "<style>@media (prefers-color-scheme: dark) { .ground { fill: #0d1117 } .ink { fill: #c9d1d9 } .rule { stroke: #30363d } }"
        "</style>\n";
    svg += format("<rect class=\"ground\" width=\"%.0f\" height=\"%.0f\" fill=\"#ffffff\"/>\n", width, height);
    svg += text(left, 22, "start", title_, " font-size=\"14\"");
    svg += text((left + width - right) / 2, height - 10, "middle", x_label_);
    return svg +
           text(0, 0, "middle", y_label_, format(" transform=\"translate(16 %.0f) rotate(-90)\"", (top + height - bottom) / 2).c_str());
  }

  // What is drawn in numbers, a line a series: `name: x y; x y; …`. Screen readers read it, and tests compare it.
  std::string data() const {
    std::string lines;
    for (const Series& s : series_) {
      if (s.kind == 'i') continue;
      for (std::size_t i = 0; i < s.x.size(); ++i) {
        lines += i == 0 ? s.name + ": " : "; ";
        lines += (s.kind == 'b' ? names_[i] : format("%.4g", s.x[i])) + format(" %.4g", s.y[i]);
      }
      lines += "\n";
    }
    return lines;
  }

  std::string grid() const {
    std::string svg;
    const auto rule = [](double x1, double y1, double x2, double y2) {
      return format("<line class=\"rule\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#d0d7de\"/>\n", x1, y1, x2, y2);
    };
    for (const double v : ticks(range(true), axes_.log_y)) {
      svg += rule(left, at_y(v), width - right, at_y(v)) + text(left - 6, at_y(v) + 4, "end", number(v, axes_.log_y));
    }
    for (std::size_t i = 0; i < names_.size(); ++i) svg += text(at_x(static_cast<double>(i)), height - bottom + 18, "middle", names_[i]);
    if (!names_.empty()) return svg;
    const bool few = axes_.log_x && series_.front().x.size() <= 10;  // then each point has its tick
    for (const double v : few ? series_.front().x : ticks(range(false), axes_.log_x)) {
      svg += rule(at_x(v), height - bottom, at_x(v), height - bottom + 4) +
             text(at_x(v), height - bottom + 18, "middle", number(v, axes_.log_x));
    }
    return svg;
  }

  std::string draw(const Series& s, const char* colour) const {
    std::string svg, path;
    for (std::size_t i = 0; i < s.x.size(); ++i) {
      const double x = at_x(s.x[i]), y = at_y(s.y[i]);
      path += format("%.1f,%.1f ", x, y);
      if (s.kind == 'p') svg += format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", x, y, colour);
      if (s.kind == 'i' && i % 2 == 1) {
        svg += format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"2\"/>\n", x, at_y(s.y[i - 1]), x,
                      y, colour);
      }
      if (s.kind == 'b') {
        const double half = 0.3 * (at_x(1) - at_x(0));
        svg += format("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x - half, y, 2 * half,
                      height - bottom - y, colour);
        svg += text(x, y - 5, "middle", format("%.3g", s.y[i]));
      }
    }
    if (s.kind == 'l' || s.kind == 'd') {
      svg += format("<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s points=\"%s\"/>\n", colour,
                    s.kind == 'd' ? " stroke-dasharray=\"6 4\"" : "", path.c_str());
    }
    return svg;
  }

  // Names in one line under the title; a character is about 6.6 wide.
  std::string legend(std::size_t i) const {
    if (series_[i].name.empty()) return "";
    double x = left;
    for (std::size_t k = 0; k < i; ++k) x += 36 + 6.6 * static_cast<double>(support::width(series_[k].name));
    const bool dots = series_[i].kind == 'p';
    return text(x + 18, 43, "start", series_[i].name) +
           format("<rect x=\"%.1f\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"%d\" fill=\"%s\"/>\n", x, dots ? 35 : 37, dots ? 8 : 14,
                  dots ? 8 : 4, dots ? 4 : 1, colour(i));
  }

  std::string title_, x_label_, y_label_;
  Axes axes_;
  std::vector<std::string> names_;
  std::vector<Series> series_;
};

}  // namespace support
