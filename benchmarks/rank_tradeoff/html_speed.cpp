#include <rank_tradeoff/html.hpp>
#include <rank_tradeoff/select.hpp>

namespace rank_tradeoff {
namespace {

constexpr double shares[] = {0.05, 0.10, 0.25};

/// Measured points and the predicted line of each base, in one colour.
support::Plot overhead_plot(const Results& results, const char* pass, const std::string& method, Index d, Index tokens) {
  support::Plot plot(
      format("%s, %s, d = %ld, T = %ld: times the bare base", pass, method.c_str(), static_cast<long>(d), static_cast<long>(tokens)),
      "rank (points: measured, dashes: predicted)", "time over bare base", {.log_x = true, .log_y = true, .least_y = 0.9});
  for (const auto& base : values_of(results, &Row::base)) {
    const Curve measured = curve(results, "layer", pass, base, method, d, tokens, "over_bare");
    const Curve predicted = curve(results, "layer", pass, base, method, d, tokens, "predicted_over_bare");
    if (measured.ranks.size() < 2) continue;
    plot.points(base, measured.ranks, measured.values);
    plot.dashes("", predicted.ranks, predicted.values);
  }
  return plot;
}

bool has(const Results& results, const char* pass, const std::string& method, Index d, Index tokens) {
  for (const auto& base : values_of(results, &Row::base))
    if (curve(results, "layer", pass, base, method, d, tokens, "over_bare").ranks.size() >= 2) return true;
  return false;
}

std::string overhead_html(const Results& results) {
  const auto sizes = values_of(results, &Row::d), tokens = values_of(results, &Row::tokens);
  std::string html = heading("Cost against rank");
  html += paragraph(
      "For one token the bytes of A and B count, for many their FLOPs. fp32 factors over a 4-bit base are 7 to 14 times as heavy in bytes "
      "as in "
      "FLOPs, so a quantized base makes the rank visible.");
  for (const Index d : {sizes.back(), sizes.front()}) {
    std::vector<support::Plot> plots;
    for (const char* pass : {"forward", "step"})
      for (const Index t : tokens)
        for (const char* method : {"lora", "dora"}) {
          const bool is_main = d == sizes.back() || sizes.size() == 1;
          if (std::string(method) == "dora" && !(is_main && std::string(pass) == "step")) continue;
          if (has(results, pass, method, d, t)) plots.push_back(overhead_plot(results, pass, method, d, t));
        }
    const std::string drawn = figures(plots);
    html += d == sizes.back() ? drawn : details(format("The same for d = %ld", static_cast<long>(d)), drawn);
    if (sizes.size() == 1) break;
  }
  return html;
}

std::string crossing_text(double rank, double largest) {
  return rank <= 0 ? "below 1" : std::isinf(rank) ? format("above %.0f", largest) : format("%.0f", rank);
}

HtmlTable crossover_table(const Results& results, Index d) {
  HtmlTable table(
      {"base", "T", "5 %: FLOPs", "roofline", "measured", "10 %: FLOPs", "roofline", "measured", "25 %: FLOPs", "roofline", "measured"});
  for (const auto& base : values_of(results, &Row::base))
    for (const Index t : values_of(results, &Row::tokens)) {
      const Curve measured = curve(results, "layer", "forward", base, "lora", d, t, "over_bare");
      const Curve predicted = curve(results, "layer", "forward", base, "lora", d, t, "predicted_over_bare");
      if (measured.ranks.size() < 2) continue;
      std::vector<std::string> row{base, integer(t)};
      const double size = static_cast<double>(d), largest = measured.ranks.back();
      for (const double share : shares) {
        row.push_back(format("%.0f", crossover_rank(size, size, share)));
        row.push_back(crossing_text(lasting_crossing(predicted.ranks, predicted.values, 1 + share), largest));
        row.push_back(crossing_text(lasting_crossing(measured.ranks, measured.values, 1 + share), largest));
      }
      table.add(row);
    }
  return table;
}

std::string crossover_html(const Results& results) {
  std::string html =
      heading("Crossover ranks") +
      paragraph(
          "The rank from which an unmerged update makes a forward pass 5, 10 or 25 % dearer than the bare base. By FLOPs alone "
          "it is the share times m n / (m + n); the roofline counts bytes, too.");
  const auto sizes = values_of(results, &Row::d);
  html += paragraph(format("d = %ld:", static_cast<long>(sizes.back()))) + crossover_table(results, sizes.back()).str();
  for (const Index d : sizes)
    if (d != sizes.back()) html += details(format("d = %ld", static_cast<long>(d)), crossover_table(results, d).str());
  return html;
}

std::string break_even_html(const Results& results) {
  HtmlTable table({"layer", "rank", "T", "predicted tokens, m n / (m + n)", "measured", "merge, ms", "merged / bare", "unmerged / merged"});
  for (const Index d : values_of(results, &Row::d))
    for (const auto& base : values_of(results, &Row::base))
      for (const Index rank : {Index{8}, Index{64}, Index{512}})
        for (const Index t : values_of(results, &Row::tokens)) {
          const double tokens = measured_break_even(results, base, d, t, rank), size = static_cast<double>(d);
          const Row* adapted = find(results, "layer", "forward", base, "lora", d, t, rank);
          const Row *merging = find(results, "merge", "merge", base, "lora", d, 0, rank),
                    *merged = find(results, "layer", "forward", base, "merged", d, t, 0),
                    *bare = find(results, "layer", "forward", base, "bare", d, t, 0);
          if (std::isnan(tokens)) continue;
          table.add({format("%s %ld", base.c_str(), static_cast<long>(d)), integer(rank), integer(t),
                     format("%.0f", break_even_tokens(size, size)), std::isinf(tokens) ? "never: no dearer" : format("%.0f", tokens),
                     format("%.2f", 1e3 * merging->seconds()), format("%.2f", merged->seconds() / bare->seconds()),
                     format("%.2f", adapted->counter("over_merged"))});
        }
  return heading("Break-even tokens of merging") +
         paragraph(
             "A merge costs 2 r m n FLOPs once and saves 2 r (m + n) a token, so by FLOPs it has paid after m n / (m + n) tokens whatever "
             "the rank. By the clock: the seconds of a merge over what a token costs more unmerged. Over a 4-bit base a merge also loses "
             "part of the update; the column `survived` below says how much is left.") +
         table.str();
}

std::string merge_html(const Results& results) {
  HtmlTable table({"merge", "rank", "measured, ms", "predicted, ms", "measured / predicted", "unmerge, µs", "survived"});
  for (const Row& row : results.rows) {
    if (row.pass != "merge") continue;
    const Row* back = find(results, "merge", "unmerge", row.base, "lora", row.d, 0, row.rank);
    table.add({format("%s %ld", row.base.c_str(), static_cast<long>(row.d)), integer(row.rank), format("%.2f", 1e3 * row.seconds()),
               format("%.3f", 1e3 * row.predicted), format("%.1f", row.ratio()), back ? format("%.1f", 1e6 * back->seconds()) : "–",
               format("%.3f", row.counter("survived"))},
              row.ratio() > 2 ? "over" : "");
  }
  HtmlTable swaps({"swap", "rank", "token after a swap, µs", "next token, µs", "swap: difference, µs", "predicted, µs"});
  for (const Row& row : results.rows) {
    if (row.part != "swap" || row.pass != "pointer") continue;
    const Row* stay = find(results, "swap", "stay", row.base, "lora", row.d, row.tokens, row.rank);
    swaps.add({format("%s %ld", row.base.c_str(), static_cast<long>(row.d)), integer(row.rank), format("%.1f", 1e6 * row.seconds()),
               format("%.1f", 1e6 * (stay ? stay->seconds() : 0)), format("%.1f", 1e6 * row.counter("swap_seconds")),
               format("%.1f", 1e6 * row.counter("predicted_swap_seconds"))});
  }
  return heading("Merge and swap") + details(format("Merging: %d rows", table.rows()), table.str()) +
         paragraph("A swap is a change of a pointer; what it costs is that the new factors come from memory: 4 r (m + n) bytes.") +
         (swaps.rows() > 0 ? swaps.str() : "");
}

std::string static_html(const Results& results) {
  HtmlTable table({"layer", "rank", "T", "static, µs", "dynamic, µs", "static / dynamic"});
  for (const Row& row : results.rows) {
    if (row.part != "static" || row.method != "static") continue;
    const Row* other = find(results, "static", "forward", row.base, "dynamic", row.d, row.tokens, row.rank);
    table.add({format("%s %ld%s", row.base.c_str(), static_cast<long>(row.d), row.d < 128 ? ", all sizes static" : ""), integer(row.rank),
               integer(row.tokens), format("%.2f", 1e6 * row.seconds()), format("%.2f", 1e6 * (other ? other->seconds() : 0)),
               format("%.2f", row.counter("over_dynamic"))});
  }
  return heading("Static against dynamic rank") +
         paragraph(
             "A static rank alone runs the same kernels, so 1 is expected. With all sizes in the type the layer is plain Eigen without an "
             "allocation; this program is compiled for any processor of its kind, not with -march=native, which would help it further.") +
         table.str();
}

std::string bytes_html(const Results& results) {
  const auto sizes = values_of(results, &Row::d), tokens = values_of(results, &Row::tokens);
  HtmlTable table({"layer", "rank", "base", "adapter", "gradients", "optimizer", "kept for backward", "predicted", "adapter / base"});
  int wrong = 0, counted = 0;
  for (const Row& row : results.rows) {
    if (row.part != "bytes") continue;
    for (const char* name : {"base_bytes", "adapter_bytes", "gradient_bytes", "optimizer_bytes"}) {
      ++counted;
      wrong += row.counter(name) != row.counter(std::string("predicted_") + name);
    }
    if (row.d != sizes.back() || row.tokens != tokens.back()) continue;
    table.add({format("%s %s %ld", row.base.c_str(), row.method.c_str(), static_cast<long>(row.d)), integer(row.rank),
               bytes_text(row.counter("base_bytes")), bytes_text(row.counter("adapter_bytes")), bytes_text(row.counter("gradient_bytes")),
               bytes_text(row.counter("optimizer_bytes")), bytes_text(row.counter("kept_bytes")),
               bytes_text(row.counter("predicted_kept_bytes")), format("%.3f", row.counter("adapter_bytes") / row.counter("base_bytes"))});
  }
  return heading("Bytes") +
         paragraph(format(
             "Of %d sizes of bases, adapters, gradients and optimizer states, %d are exactly as predicted: 4 r (m + n) bytes, the same "
             "for gradients, twice that for AdamW. What a recorded forward pass leaves for the backward pass is asked of malloc and "
             "predicted as 4 T (m + r) bytes (Y and A X; DoRA keeps the unscaled Y, too).",
             counted, counted - wrong)) +
         details(format("Bytes of a layer of %ld, T = %ld", static_cast<long>(sizes.back()), static_cast<long>(tokens.back())),
                 table.str());
}

/// Rows above 2, grouped by what they share, each group with its reason.
std::string explanations_html(const Results& results) {
  struct Group {
    std::string ranks, why;
    double worst = 0, worst_over = 0;
  };
  std::map<std::string, Group> groups;
  int rows = 0, above = 0;
  for (const Row& row : results.rows) {
    if (row.predicted <= 0) continue;
    ++rows;
    if (row.ratio() <= 2 && row.counter("over_ratio") <= 2) continue;
    ++above;
    const std::string key = format("%s %s, %s, d %ld%s", row.method.c_str(), row.pass.c_str(), row.base.c_str(), static_cast<long>(row.d),
                                   row.tokens > 0 ? format(", T %ld", static_cast<long>(row.tokens)).c_str() : "");
    Group& group = groups[key];
    group.ranks += (group.ranks.empty() ? "" : ", ") + integer(row.rank);
    if (row.ratio() >= group.worst || group.why.empty()) group.why = row.why;
    group.worst = std::max(group.worst, row.ratio());
    group.worst_over = std::max(group.worst_over, row.counter("over_ratio"));
  }
  HtmlTable table({"rows", "ranks", "worst time / predicted", "worst overhead / predicted", "why, by experiment"});
  for (const auto& [key, group] : groups)
    table.add({key, group.ranks, format("%.1f", group.worst), group.worst_over > 0 ? format("%.1f", group.worst_over) : "–",
               group.why.empty() ? "not examined: the time was used up" : group.why},
              "text");
  return heading("Where measured exceeds predicted twice") +
         paragraph(format(
             "%d of %d predicted rows take more than twice the roofline, or their overhead is more than twice the predicted one. "
             "For each group the worst row was run again under other conditions: on a 64 x 64 layer (the fixed cost of a call), "
             "with the same weights each time (memory or arithmetic), on one thread (serial parts), and beside rank 16 (kernels fill "
             "tiles of 16 rows).",
             above, rows)) +
         details(format("%zu groups and their reasons", groups.size()), table.str());
}

std::string all_rows_html(const Results& results) {
  std::string html;
  for (const Index d : values_of(results, &Row::d)) {
    HtmlTable table({"row", "measured, µs", "predicted, µs", "measured / predicted", "over bare", "predicted", "over merged", "runs"});
    for (const Row& row : results.rows) {
      if (row.part != "layer" || row.d != d) continue;
      table.add({format("%s %s %s T %ld r %ld", row.base.c_str(), row.method.c_str(), row.pass.c_str(), static_cast<long>(row.tokens),
                        static_cast<long>(row.rank)),
                 format("%.1f", 1e6 * row.seconds()), format("%.1f", 1e6 * row.predicted), format("%.2f", row.ratio()),
                 row.counter("over_bare") > 0 ? format("%.3f", row.counter("over_bare")) : "–",
                 row.counter("over_bare") > 0 ? format("%.3f", row.counter("predicted_over_bare")) : "–",
                 row.counter("over_merged") > 0 ? format("%.3f", row.counter("over_merged")) : "–", std::to_string(row.times.size())},
                row.ratio() > 2 || row.counter("over_ratio") > 2 ? "over" : "");
    }
    html += details(format("All %d rows of d = %ld; those above 2 are marked", table.rows(), static_cast<long>(d)), table.str());
  }
  return html;
}

}  // namespace

std::string speed_html(const Results& results) {
  if (values_of(results, &Row::d).empty()) return "";
  return overhead_html(results) + crossover_html(results) + break_even_html(results) + merge_html(results) + static_html(results) +
         bytes_html(results) + explanations_html(results) + all_rows_html(results);
}

std::string overhead_svg(const Results& results) {
  const auto sizes = values_of(results, &Row::d), tokens = values_of(results, &Row::tokens);
  if (sizes.empty() || !has(results, "forward", "lora", sizes.back(), tokens.front())) return "";
  return overhead_plot(results, "forward", "lora", sizes.back(), tokens.front()).svg();
}

std::vector<std::string> lessons(const Results& results) {
  std::vector<std::string> said;
  const auto sizes = values_of(results, &Row::d), tokens = values_of(results, &Row::tokens);
  if (sizes.empty()) return said;
  const Index d = sizes.back();
  for (const Index t : {tokens.front(), tokens.back()})
    for (const char* base : {"nf4", "fp32"}) {
      const Index rank = 16;
      const Row* row = find(results, "layer", "forward", base, "lora", d, t, rank);
      if (!row) row = find(results, "layer", "forward", base, "lora", d, t, 8);
      if (!row) continue;
      said.push_back(
          format("Rank %ld over %s, d = %ld, T = %ld: a forward pass takes %.2f times the bare base's time; the roofline says %.2f, FLOPs "
                 "alone %.3f.",
                 static_cast<long>(row->rank), base, static_cast<long>(d), static_cast<long>(t), row->counter("over_bare"),
                 row->counter("predicted_over_bare"), row->counter("flops_over_bare")));
    }
  for (const char* base : {"nf4", "fp32"})
    for (const Index rank : {Index{8}, Index{512}}) {
      const double measured = measured_break_even(results, base, d, tokens.back(), rank), size = static_cast<double>(d);
      if (std::isnan(measured)) continue;
      const std::string pays = std::isinf(measured) ? "does not pay: unmerged is no slower" : format("pays after %.0f tokens", measured);
      said.push_back(format("Merging rank %ld into %s, d = %ld, %s (T = %ld a pass); counted in FLOPs it pays after %.0f.",
                            static_cast<long>(rank), base, static_cast<long>(d), pays.c_str(), static_cast<long>(tokens.back()),
                            break_even_tokens(size, size)));
    }
  const Row *step = find(results, "layer", "step", "fp32", "lora", d, tokens.back(), 8),
            *full = find(results, "layer", "step", "fp32", "full", d, tokens.back(), d);
  if (step && full)
    said.push_back(
        format("A training step of rank 8 takes %.2f of full fine-tuning's at T = %ld (FLOPs: %.2f): the base's forward and backward "
               "passes stay, only its weight gradient is saved.",
               step->seconds() / full->seconds(), static_cast<long>(tokens.back()), step->work.flops / full->work.flops));
  return said;
}

}  // namespace rank_tradeoff
