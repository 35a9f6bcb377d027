#include <thread>

#include <nlohmann/json.hpp>

#include <lowrank/io/file.hpp>

#include <support/table.hpp>

#include <rank_tradeoff/options.hpp>
#include <rank_tradeoff/text.hpp>

// Google Benchmark's JSON (its tools/compare.py reads it) and CSV.

namespace rank_tradeoff {
namespace {

using nlohmann::ordered_json;

void write_file(const std::filesystem::path& path, const std::string& text) {
  lowrank::AtomicFile file(path, "rank_tradeoff");
  file.write(text);
  file.commit();
}

ordered_json context_of(const Results& results) {
  ordered_json context;
  for (const char* key : {"date", "host_name"})
    if (results.context.count(key)) context[key] = results.context.at(key);
  context["executable"] = "rank_tradeoff";
  context["num_cpus"] = std::thread::hardware_concurrency();
  context["mhz_per_cpu"] = 0;
  context["cpu_scaling_enabled"] = false;
  context["caches"] = ordered_json::array();
  context["load_avg"] = ordered_json::array();
  context["library_build_type"] = "release";
  for (const auto& [key, value] : results.context) context[key] = value;
  context["peak_fp32_flops"] = results.peaks.fp32;
  context["peak_bf16_flops"] = results.peaks.bf16;
  context["peak_bytes"] = results.peaks.bandwidth;
  context["region_seconds"] = results.peaks.region;
  context["skipped"] = results.skipped;
  return context;
}

ordered_json entry_of(const Row& row, std::size_t family, double wall, double cpu) {
  ordered_json entry;
  entry["name"] = row.name();
  entry["family_index"] = family;
  entry["per_family_instance_index"] = 0;
  entry["run_name"] = row.name();
  entry["run_type"] = "iteration";
  entry["repetitions"] = row.times.size();
  entry["threads"] = 1;  // of the benchmark; the library's own are in the context
  entry["iterations"] = 1;
  entry["real_time"] = 1e9 * wall;
  entry["cpu_time"] = 1e9 * cpu;
  entry["time_unit"] = "ns";
  if (row.predicted > 0) entry["predicted_time"] = 1e9 * row.predicted;
  if (row.work.flops > 0) entry["flops"] = row.work.flops, entry["bytes"] = row.work.bytes;
  for (const auto& [name, value] : row.counters) entry[name] = value;
  return entry;
}

void add_row(ordered_json& list, const Row& row, std::size_t family) {
  if (row.times.empty()) {
    list.push_back(entry_of(row, family, 0, 0));
    return;
  }
  for (std::size_t i = 0; i < row.times.size(); ++i) {
    list.push_back(entry_of(row, family, row.times[i], row.cpu[i]));
    list.back()["repetition_index"] = i;
  }
  if (row.times.size() < 2) return;
  ordered_json total = entry_of(row, family, row.seconds(), median(row.cpu));
  total["name"] = row.name() + "_median";
  total["run_type"] = "aggregate";
  total["aggregate_name"] = "median";
  total["aggregate_unit"] = "time";
  if (!row.why.empty()) total["label"] = row.why;
  list.push_back(std::move(total));
}

}  // namespace

void write_json(const Results& results, const std::filesystem::path& file) {
  ordered_json json;
  json["context"] = context_of(results);
  json["benchmarks"] = ordered_json::array();
  for (std::size_t i = 0; i < results.rows.size(); ++i) add_row(json["benchmarks"], results.rows[i], i);
  for (const Training& t : results.trainings)
    json["trainings"].push_back({{"model", t.model},
                                 {"method", t.method},
                                 {"base", t.base},
                                 {"rank", t.rank},
                                 {"learning_rate", t.learning_rate},
                                 {"seed", t.seed},
                                 {"steps", t.steps},
                                 {"validation_loss", t.validation},
                                 {"test_loss", t.test},
                                 {"step_seconds", t.step_seconds},
                                 {"trained_bytes", t.trained_bytes},
                                 {"optimizer_bytes", t.optimizer_bytes},
                                 {"checkpoint_bytes", t.checkpoint_bytes}});
  write_file(file, json.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

void write_csv(const Results& results, const std::filesystem::path& file) {
  std::map<std::string, int> counters;
  for (const Row& row : results.rows)
    for (const auto& [name, value] : row.counters) counters[name];
  std::string text = "part,pass,base,method,d,tokens,rank,repetitions,median_seconds,predicted_seconds,flops,bytes";
  for (const auto& [name, unused] : counters) text += ',' + csv_field(name);
  text += ",explanation\n";
  for (const Row& row : results.rows) {
    for (const std::string& word : {row.part, row.pass, row.base, row.method}) text += csv_field(word) + ',';
    text += support::format("%ld,%ld,%ld,%zu,%.9g,%.9g,%.9g,%.9g", static_cast<long>(row.d), static_cast<long>(row.tokens),
                            static_cast<long>(row.rank), row.times.size(), row.seconds(), row.predicted, row.work.flops, row.work.bytes);
    for (const auto& [name, unused] : counters) text += row.counters.count(name) ? support::format(",%.9g", row.counter(name)) : ",";
    text += ',' + csv_field(row.why) + '\n';
  }
  write_file(file, text);
}

}  // namespace rank_tradeoff
