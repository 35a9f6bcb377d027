#include <rank_tradeoff/html.hpp>
#include <rank_tradeoff/select.hpp>
#include <rank_tradeoff/statistics.hpp>

namespace rank_tradeoff {
namespace {

using Points = std::vector<const Point*>;

Points points_of(const Results& results, const std::string& model, const std::string& method, const std::string& base = "") {
  Points found;
  for (const Point& p : results.points)
    if (p.model == model && p.method == method && (base.empty() || p.base == base)) found.push_back(&p);
  std::sort(found.begin(), found.end(), [](const Point* a, const Point* b) { return a->rank < b->rank; });
  return found;
}

/// The base under most of the LoRA curve: the one at the least rank.
std::string main_base(const Results& results, const std::string& model) {
  const Points points = points_of(results, model, "lora");
  return points.empty() ? "" : points.front()->base;
}

std::string label(const Point& p) {
  const std::string base = p.base == "native" ? "file's format" : p.base;
  if (p.method == "full") return "full fine-tuning, " + base;
  const char* name = p.method == "dora" ? "DoRA" : p.method == "rslora" ? "LoRA α/√r" : p.base == "fp32" ? "LoRA α/r" : "QLoRA α/r";
  return format("%s, %s, r %ld", name, base.c_str(), static_cast<long>(p.rank));
}

void add_curve(support::Plot& plot, const std::string& name, const Points& points) {
  std::vector<double> ranks, means, low, high;
  for (const Point* p : points) {
    const Interval i = student_interval(p->losses);
    if (!std::isfinite(i.center)) continue;
    ranks.push_back(static_cast<double>(p->rank)), means.push_back(i.center);
    low.push_back(std::isfinite(i.low) ? i.low : i.center), high.push_back(std::isfinite(i.high) ? i.high : i.center);
  }
  if (ranks.empty()) return;
  ranks.size() > 1 ? plot.line(name, ranks, means) : plot.points(name, ranks, means);
  plot.intervals(ranks, low, high);
}

support::Plot loss_plot(const Results& results, const std::string& model) {
  support::Plot plot(model + ": held-out loss against rank, each at its best learning rate", "rank (upright: 95 % intervals over 3 seeds)",
                     "nats a token", {.log_x = true});
  const std::string base = main_base(results, model);
  const Points lora = points_of(results, model, "lora", base);
  add_curve(plot, "α/r", lora);
  add_curve(plot, "α/√r", points_of(results, model, "rslora"));
  add_curve(plot, "DoRA", points_of(results, model, "dora"));
  if (base != "nf4") add_curve(plot, "QLoRA nf4", points_of(results, model, "lora", "nf4"));
  const Points full = points_of(results, model, "full");
  if (full.empty() || lora.empty()) return plot;
  const std::vector<double> ends{static_cast<double>(lora.front()->rank), static_cast<double>(std::max<Index>(2, lora.back()->rank))};
  const Interval i = student_interval(full.front()->losses);
  plot.dashes("full", ends, {i.center, i.center});
  if (std::isfinite(i.low)) plot.intervals({ends.back(), ends.back()}, {i.low, i.low}, {i.high, i.high});
  plot.dashes("untrained", ends, {lora.front()->bare, lora.front()->bare});
  return plot;
}

support::Plot rate_plot(const Results& results, const std::string& model) {
  support::Plot plot(model + ": best learning rate against rank", "rank", "learning rate of AdamW", {.log_x = true, .log_y = true});
  for (const char* method : {"lora", "rslora"}) {
    std::vector<double> ranks, rates;
    for (const Point* p : points_of(results, model, method, main_base(results, model)))
      ranks.push_back(static_cast<double>(p->rank)), rates.push_back(p->learning_rate);
    if (ranks.size() > 1) plot.line(std::string(method) == "lora" ? "α/r" : "α/√r", ranks, rates);
  }
  return plot;
}

support::Plot sweep_plot(const Results& results, const std::string& model, const std::string& method) {
  support::Plot plot(format("%s: loss against learning rate, %s", model.c_str(), method == "lora" ? "α/r" : "α/√r"),
                     "learning rate of AdamW", "held-out loss, nats a token", {.log_x = true});
  for (const Point* p : points_of(results, model, method, main_base(results, model))) {
    std::vector<double> rates, losses;
    for (const auto& [rate, loss] : p->by_rate)
      if (loss < 2 * p->bare) rates.push_back(rate), losses.push_back(loss);
    if (rates.size() > 1) plot.line(format("r %ld", static_cast<long>(p->rank)), rates, losses);
  }
  return plot;
}

support::Plot pareto_plot(const Results& results, const std::string& model, bool by_seconds) {
  support::Plot plot(model + (by_seconds ? ": loss against seconds a step" : ": loss against bytes of training state"),
                     by_seconds ? "seconds a step, median" : "trained numbers, gradients and AdamW, MiB", "nats a token",
                     {.log_x = !by_seconds});
  for (const char* method : {"lora", "rslora", "dora", "full"}) {
    std::vector<double> x, y;
    for (const Point* p : points_of(results, model, method)) {
      const double loss = student_interval(p->losses).center;
      if (!std::isfinite(loss)) continue;
      x.push_back(by_seconds ? p->step_seconds : (2 * p->trained_bytes + p->optimizer_bytes) / 1048576);
      y.push_back(loss);
    }
    const char* name = method[0] == 'l' ? "α/r" : method[0] == 'r' ? "α/√r" : method[0] == 'd' ? "DoRA" : "full";
    if (!x.empty()) plot.points(name, x, y);
  }
  return plot;
}

std::string table_html(const Results& results, const std::string& model) {
  HtmlTable table(
      {"method", "best learning rate", "held-out loss", "95 % interval", "seeds", "s a step", "trained", "optimizer", "checkpoint"});
  for (const Point& p : results.points) {
    if (p.model != model) continue;
    const Interval i = student_interval(p.losses);
    table.add({label(p), format("%g%s", p.learning_rate, p.at_edge ? " (edge of the grid)" : ""), number(i.center, "%.4f"),
               std::isfinite(i.low) ? format("± %.4f", i.high - i.center) : "unknown", std::to_string(p.losses.size()),
               format("%.3f", p.step_seconds), bytes_text(p.trained_bytes), bytes_text(p.optimizer_bytes), bytes_text(p.checkpoint_bytes)});
  }
  HtmlTable sweep({"method", "learning rate: loss that chose it (mean over seeds)"});
  for (const Point& p : results.points) {
    if (p.model != model) continue;
    std::string rates;
    for (const auto& [rate, loss] : p.by_rate) rates += format("%s%g: %s", rates.empty() ? "" : ",  ", rate, number(loss, "%.4f").c_str());
    sweep.add({label(p), rates}, "text");
  }
  return table.str() + details("Loss at every learning rate", sweep.str());
}

std::string matrices_html(const Results& results) {
  support::Plot plot("Error of s B A against a wanted dW, singular values 1 / i", "rank", "‖dW − s B A‖ / ‖dW‖",
                     {.log_x = true, .log_y = true});
  std::vector<double> ranks, errors, floors;
  for (const Row& row : results.rows) {
    if (row.part != "matrix") continue;
    ranks.push_back(static_cast<double>(row.rank));
    errors.push_back(row.counter("error")), floors.push_back(row.counter("predicted_error"));
  }
  if (ranks.empty()) return "";
  plot.points("trained by AdamW, mean of 3", ranks, errors);
  plot.dashes("floor: what SVD leaves (Eckart and Young)", ranks, floors);
  HtmlTable table({"rank", "trained", "floor", "trained / floor"});
  for (std::size_t i = 0; i < ranks.size(); ++i)
    table.add({format("%.0f", ranks[i]), format("%.4f", errors[i]), format("%.4f", floors[i]), format("%.3f", errors[i] / floors[i])});
  return heading("Error of dW against the SVD floor") +
         paragraph(
             "A layer learns a change dW [96, 128] of full rank; no update of rank r can come nearer than the singular values after the "
             "r-th.") +
         figures({plot}) + table.str();
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
  return text.empty() ? "none" : text;
}

/// Ranges of how many times cheaper than full fine-tuning some points are.
std::string times_cheaper(const Points& points, const Point& full, double (*cost)(const Point&)) {
  double low = INFINITY, high = 0;
  std::vector<std::string> holding;
  for (const Point* p : points) {
    const double times = cost(full) / cost(*p);
    low = std::min(low, times), high = std::max(high, times);
    if (times >= 10) holding.push_back(label(*p));
  }
  return format("%s to %s times cheaper (10 times or more: %s)", number(low, "%.1f").c_str(), number(high, "%.1f").c_str(),
                holding.size() == points.size() ? "all" : join(holding).c_str());
}

std::vector<std::string> verdict(const Results& results, const std::string& model) {
  const Points full = points_of(results, model, "full");
  if (full.empty()) return {};
  const Interval far = student_interval(full.front()->losses);
  if (!std::isfinite(far.high))
    return {model + ": full fine-tuning ran with too few seeds for an interval, so nothing is called comparable to it."};
  Points comparable;
  std::vector<std::string> names, others;
  for (const Point& p : results.points) {
    if (p.model != model || p.method == "full") continue;
    const double loss = student_interval(p.losses).center;
    if (loss <= far.high)
      comparable.push_back(&p), names.push_back(label(p));
    else
      others.push_back(label(p) + format(" (+%s)", number(loss - far.center, "%.3f").c_str()));
  }
  std::vector<std::string> said{format("%s, full fine-tuning: %.4f (95 %% interval %.4f to %.4f). Not above that interval: %s. Above: %s.",
                                       model.c_str(), far.center, far.low, far.high, join(names).c_str(), join(others).c_str())};
  if (comparable.empty()) {
    said.push_back(model + ": \"comparable to full fine-tuning\" holds for no rank here, with as few steps as this run takes.");
    return said;
  }
  const auto state = [](const Point& p) { return 2 * p.trained_bytes + p.optimizer_bytes; };
  const auto file = [](const Point& p) { return p.checkpoint_bytes; };
  const auto seconds = [](const Point& p) { return p.step_seconds; };
  const auto memory = [](const Point& p) { return p.frozen_bytes + 2 * p.trained_bytes + p.optimizer_bytes; };
  said.push_back(
      model + ", those that are comparable: \"10 to 100 times cheaper\" in bytes of what is trained (numbers, gradients, AdamW): " +
      times_cheaper(comparable, *full.front(), state) + "; in bytes of the checkpoint: " + times_cheaper(comparable, *full.front(), file) +
      "; in bytes with the frozen base: " + times_cheaper(comparable, *full.front(), memory) +
      "; in seconds a step: " + times_cheaper(comparable, *full.front(), seconds) +
      ". A step still runs the base forward and backward; only the weight gradients and the optimizer's pass are saved, so in time "
      "the saving is bounded by about a third.");
  return said;
}

std::vector<std::string> models_of(const Results& results) {
  std::vector<std::string> models;
  for (const Point& p : results.points)
    if (std::find(models.begin(), models.end(), p.model) == models.end()) models.push_back(p.model);
  return models;
}

}  // namespace

std::string quality_html(const Results& results) {
  std::string html = matrices_html(results);
  for (const std::string& model : models_of(results)) {
    const std::string prefix = model == "tiny" ? "tiny" : "large";
    const auto said = [&](const std::string& key) {
      const auto found = results.context.find(prefix + key);
      return found == results.context.end() ? std::string("?") : found->second;
    };
    html += heading("Quality: " + (model == "tiny" ? std::string("the tiny model of examples/data/demo.gguf") : model));
    html += paragraph(
        format("Texts of five domains, %s steps of %s tokens with AdamW, all linear layers of the blocks adapted, α = 16. Each method and "
               "rank has its own sweep of the learning rate: the first half of the held-out texts chooses it, the second half, which "
               "decides nothing, is reported. Intervals are Student's over seeds, which change A and the order of the batches; they do "
               "not say how another text would come out.",
               said("_steps").c_str(), said("_batch").c_str()));
    std::vector<support::Plot> plots{loss_plot(results, model)};
    if (points_of(results, model, "lora").size() > 2) {
      plots.push_back(rate_plot(results, model));
      plots.push_back(sweep_plot(results, model, "lora"));
    }
    if (points_of(results, model, "rslora").size() > 1) plots.push_back(sweep_plot(results, model, "rslora"));
    plots.push_back(pareto_plot(results, model, false));
    plots.push_back(pareto_plot(results, model, true));
    html += figures(plots) + table_html(results, model);
  }
  return html;
}

std::vector<std::string> quality_lessons(const Results& results) {
  std::vector<std::string> said;
  for (const std::string& model : models_of(results)) {
    for (const char* method : {"lora", "rslora"}) {
      const Points points = points_of(results, model, method, main_base(results, model));
      if (points.size() < 2) continue;
      said.push_back(format("%s, scale %s: the best learning rate goes from %g at rank %ld to %g at rank %ld.", model.c_str(),
                            method[0] == 'l' ? "α/r" : "α/√r", points.front()->learning_rate, static_cast<long>(points.front()->rank),
                            points.back()->learning_rate, static_cast<long>(points.back()->rank)));
    }
    for (auto& text : verdict(results, model)) said.push_back(std::move(text));
  }
  return said;
}

}  // namespace rank_tradeoff
