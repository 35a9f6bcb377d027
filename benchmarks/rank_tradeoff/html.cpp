#include <lowrank/io/file.hpp>

#include <rank_tradeoff/html.hpp>
#include <rank_tradeoff/options.hpp>

// The report: one file, no script, light and dark, readable on a phone.

namespace rank_tradeoff {
namespace {

constexpr const char* head = R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>What a rank costs and what it brings</title>
<style>
:root { color-scheme: light dark; --ink: #24292f; --soft: #57606a; --ground: #ffffff; --rule: #d0d7de; --tint: #f6f8fa; --mark: #fff8c5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #c9d1d9; --soft: #8b949e; --ground: #0d1117; --rule: #30363d; --tint: #161b22; --mark: #3a2f0b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 76rem; background: var(--ground); color: var(--ink);
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.5rem; padding-top: 0.8rem; border-top: 1px solid var(--rule); }
p, li { max-width: 48rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1rem; margin: 1rem 0; }
figure { margin: 0; border: 1px solid var(--rule); border-radius: 6px; overflow: hidden; }
figure svg { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.22rem 0.6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { background: var(--tint); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
.over td { background: var(--mark); }
.text td:last-child { text-align: left; white-space: normal; min-width: 22rem; }
details { margin: 0.6rem 0; }
summary { cursor: pointer; color: var(--soft); }
code { font-size: 0.92em; background: var(--tint); padding: 0.1em 0.3em; border-radius: 3px; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
</style></head><body>
<h1>What a rank costs and what it brings</h1>
)";

std::string what_was_run(const Results& results) {
  const auto said = [&](const char* key) {
    const auto found = results.context.find(key);
    return found == results.context.end() ? std::string("?") : found->second;
  };
  std::string html = "<p class=\"soft\">" +
                     html_text(format("%s, %s threads, %s kernels; %s; Eigen %s; %s run of %.0f s on %s", said("processor").c_str(),
                                      said("threads").c_str(), said("target").c_str(), ("g++ or clang " + said("compiler")).c_str(),
                                      said("eigen").c_str(), said("mode").c_str(), results.seconds, said("date").c_str())) +
                     "</p>\n";
  html += paragraph(
      "A layer W [d, d] with an update s B A of rank r runs beside the bare layer and a merged one, in turn, so that what disturbs one "
      "disturbs all; times are medians. Layers and adapters are used in turn from a pool of twice the last-level cache, so that inference "
      "reads "
      "them from memory as a model does that is larger than the caches. fp32 bases compute in fp32, all others in bf16. Beside each "
      "measurement stands what the work must take at least.");
  if (results.skipped.empty()) return html;
  std::string list = "<ul>";
  for (const auto& text : results.skipped) list += "<li>" + html_text(text) + "</li>";
  return html + details(format("Left out of this run: %zu entries", results.skipped.size()), list + "</ul>\n");
}

std::string peaks_html(const Results& results) {
  const Peaks& p = results.peaks;
  HtmlTable table({"ceiling, measured in this run", "value", "how"});
  table.add({"fp32 multiply-add", format("%.0f GFLOP/s", 1e-9 * p.fp32), "innermost loop, panels in the first-level cache"}, "text");
  table.add({"bf16 multiply-add", format("%.0f GFLOP/s", 1e-9 * p.bf16), "the same"}, "text");
  table.add({"memory", format("%.1f GB/s", 1e-9 * p.bandwidth), "reading 256 MiB front to back, all threads"}, "text");
  table.add({"parallel loop", format("%.2f µs", 1e6 * p.region), "entered and left, empty"}, "text");
  std::string html = heading("Ceilings and predictions") + table.str();
  html += paragraph("Predicted time = max(FLOPs / peak, bytes / bandwidth) + parallel loops × their cost, with W [m, n], T tokens:");
  HtmlTable work({"pass", "FLOPs of the base", "of the update", "bytes"});
  work.add({"forward", "2 m n T", "2 r (m + n) T", "W + 4 r (m + n) + 4 T (m + n)"});
  work.add({"backward", "2 m n T", "4 r (m + n) T", "W + 8 r (m + n) + 4 T (m + 2 n)"});
  work.add({"training step", "4 m n T", "6 r (m + n) T + 12 r (m + n)", "both passes + 32 r (m + n) for AdamW"});
  work.add({"DoRA's row lengths, in training", "2 m n r", "2 r² (m + n)", "W + 8 r (m + n)"});
  work.add({"merge", "–", "2 r m n", "2 W + 4 r (m + n)"});
  work.add({"full fine-tuning, a step", "6 m n T", "12 m n", "3 W + 32 m n + 16 T (m + n)"});
  return html + work.str();
}

}  // namespace

void write_html(const Results& results, const std::filesystem::path& file) {
  std::string html = head + what_was_run(results) + heading("What to take from it") + "<ul>";
  for (const auto& text : lessons(results)) html += "<li>" + html_text(text) + "</li>\n";
  for (const auto& text : quality_lessons(results)) html += "<li>" + html_text(text) + "</li>\n";
  html += "</ul>\n" + peaks_html(results) + speed_html(results) + quality_html(results) + "</body></html>\n";
  const auto write = [](const std::filesystem::path& path, const std::string& text) {
    lowrank::AtomicFile out(path, "rank_tradeoff");
    out.write(text);
    out.commit();
  };
  write(file, html);
  const std::string picture = overhead_svg(results);
  if (!picture.empty()) write(std::filesystem::path(file).replace_extension(".svg"), picture);
}

}  // namespace rank_tradeoff
