#include <cli/finetune.hpp>

#include <algorithm>
#include <cstdio>
#include <utility>

#include <lowrank/io/peft.hpp>

#include <transformer/open_adapter.hpp>
#include <transformer/save_gguf.hpp>

namespace cli {
namespace finetune {
namespace {

/// --data and --evaluation-data.
std::vector<transformer::Records> read_data(const Options& o) {
  std::vector<transformer::Records> files{transformer::read_records(o.data)};
  if (!o.evaluation_data.empty()) files.push_back(transformer::read_records(o.evaluation_data));
  return files;
}

transformer::Dataset load_datasets(const Options& o, Session& session, const std::vector<transformer::Records>& files) {
  transformer::DataOptions reading = o.reading;
  reading.length = o.sequence;
  reading.hold_out = files.size() == 1;
  transformer::Dataset data = make_data(session, files.front(), reading);
  if (files.size() > 1) data.held_out = make_data(session, files.back(), reading).train;
  return data;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

void save(const Options& o, const Session& session, const transformer::StartedLora& started, lowrank::LoraConfig config) {
  const LoraSet lora = transformer::plain_lora(started, config);  // for the base as its file has it
  if (o.format == "gguf") return transformer::save_gguf_adapter(session.model, lora, o.out);
  lowrank::peft::save(transformer::to_adapter(session.model, lora, config), o.out);
}

Json evaluations(const Course& course) {
  Json list = Json::list();
  for (const auto& [step, loss] : course.evaluations) list.push_back({{"step", step}, {"loss", loss}});
  return list;
}

void report(const Options& o, const Session& session, LoraSet& lora, const Course& course, double before, double after, bool has_held_out) {
  double seconds = 0;
  for (const double step : course.seconds) seconds += step;
  auto json = common_report(session, &lora);
  json["steps"] = static_cast<Index>(course.losses.size());
  json["learning_rate"] = o.train.learning_rate;
  json["loss_first"] = course.losses.front();
  json["loss_last"] = course.losses.back();
  json["loss_curve"] = course.losses;
  json["evaluation_loss_before"] = has_held_out ? Json(before) : Json();
  json["evaluation_loss_after"] = has_held_out ? Json(after) : Json();
  json["evaluations"] = evaluations(course);
  json["best_step"] = course.best() ? Json(course.best()->step) : Json();
  json["seconds"] = seconds;
  json["step_seconds_median"] = median(course.seconds);
  json["tokens_per_second"] = seconds > 0 ? course.tokens / seconds : 0;
  Table table({"", "before", "after"});
  table.add({"loss of a training batch", format("%.4f", course.losses.front()), format("%.4f", course.losses.back())});
  if (has_held_out) table.add({"loss on held-out text", format("%.4f", before), format("%.4f", after)});
  table.print();
  const Index trained = lowrank::trainable_parameters(lora), all = session.model.parameter_count() + lowrank::parameter_count(lora);
  std::printf("  %s trained %ld of %ld parameters (%.2f %%), %.3f s a step, peak memory %s\n", o.out.c_str(), static_cast<long>(trained),
              static_cast<long>(all), 100.0 * static_cast<double>(trained) / static_cast<double>(all), median(course.seconds),
              human_bytes(peak_memory()).c_str());
  write_json(o.common.json, json);
}

/// The set as --init says; afterwards the base is in the format of --base.
transformer::StartedLora start(const Options& o, Session& session, lowrank::LoraConfig& config, const transformer::Dataset& data) {
  transformer::StartOptions options = o.start;
  options.start = transformer::parse_start(o.init);
  options.seed = o.common.seed;
  options.batch = o.train.batch;
  const bool is_loftq = options.start == transformer::LoraStart::loftq;
  transformer::StartedLora started = transformer::start_lora(session.model, config, options, data.train);
  if (is_loftq) {  // its targets are NF4 already, and stay the same to the bit
    transformer::convert_base(session.model, transformer::parse_base(o.base));
    session.model.set_compute(session.compute);
  }
  return started;
}

/// The saved adapter of --adapter as a set to be trained further, with masks of dropout of this run's own.
transformer::StartedLora go_on(const Options& o, const Session& session, const lowrank::Adapter& adapter) {
  transformer::StartedLora started{transformer::bind(session.model, adapter)};
  for (std::size_t s = 0; s < started.lora.slots.size(); ++s)
    if (auto* dropout = started.lora.slots[s].dropout())
      *dropout = lowrank::InputDropout<float>::of_layer(static_cast<double>(dropout->probability), o.common.seed, s);
  return started;
}

void freeze_a(LoraSet& lora) {
  for (auto& update : lora.slots)
    if (update && update.lora()) update.lora()->a.trainable = false;
}

/// Throws where an output could not be written: before hours of work, not after.
void check_outputs(const Options& o, const Session& session, const LoraSet& lora) {
  ensure_writable(o.out, o.format == "peft");
  if (o.format == "gguf") transformer::check_gguf_adapter(session.model, lora, o.out);
  for (const std::string& path : {o.plot, o.common.json})
    if (!path.empty()) ensure_writable(path, false);
}

/// What the run is known by. Throws FormatError where it is to go on from the checkpoint of another one.
std::vector<Setting> known_by(const Options& o, const Session& session, const lowrank::LoraConfig& config, const transformer::Dataset& data,
                              const lowrank::Adapter* adapter) {
  if (o.checkpoint.empty()) return {};
  std::vector<Setting> all =
      settings({o, config, compute_name(session.compute), transformer::fingerprint(session.model), transformer::fingerprint(data.train),
                transformer::fingerprint(data.held_out), adapter ? transformer::fingerprint(*adapter) : 0});
  if (o.resume) Checkpoint(o.checkpoint).check_same_run(all);
  return all;
}

void run(const Command& command, Options o) {
  check_options(o);
  auto files = read_data(o);  // before a large model is read in vain
  Session session = open_session(o.model, o.common, transformer::parse_base(o.init == "loftq" ? "native" : o.base), "train");
  lowrank::check<lowrank::ValueError>(o.sequence <= session.model.config.context, "finetune", "--sequence ", o.sequence,
                                      " exceeds the model's context of ", session.model.config.context);
  std::optional<lowrank::Adapter> saved;
  if (!o.adapter.empty()) saved = transformer::open_adapter(session.model.config, o.adapter);
  if (saved) check_same_update(command, o, saved->config);
  const transformer::Dataset data = load_datasets(o, session, std::exchange(files, {}));
  lowrank::LoraConfig config = saved ? saved->config : lora_config(o);
  settle(o, config, session.model, data);
  const std::vector<Setting> settings = known_by(o, session, config, data, saved ? &*saved : nullptr);
  transformer::StartedLora started = saved ? go_on(o, session, *saved) : start(o, session, config, data);
  LoraSet& lora = started.lora;
  if (o.freeze_a) freeze_a(lora);
  check_outputs(o, session, lora);
  const bool has_held_out = !data.held_out.empty();
  lowrank::check<lowrank::ValueError>(has_held_out || o.evaluate_every == 0, "finetune", o.data,
                                      " is too short to hold a part back, and --eval-every needs one; give --evaluation-data");
  if (!has_held_out) std::fprintf(stderr, "no held-out text: %s is too short to hold a part back\n", o.data.c_str());
  const double before = has_held_out ? held_out_loss(session, lora, data) : 0;
  const Course course = run_training(o, settings, session, lora, data);
  const Evaluated* const last = o.keep_best ? course.best() : course.evaluations.empty() ? nullptr : &course.evaluations.back();
  const double after = last ? last->loss : has_held_out ? held_out_loss(session, lora, data) : 0;
  save(o, session, started, config);  // not before: an update that gives no finite loss replaces nothing
  if (!o.plot.empty()) write_text(o.plot, loss_svg(course.losses, "Training loss"));
  report(o, session, lora, course, before, after, has_held_out);
}

}  // namespace
}  // namespace finetune

void add_finetune(Command app) {
  auto options = std::make_shared<finetune::Options>();
  Command command = app.add_command("finetune", "trains a low-rank adapter on a frozen model and saves it");
  finetune::add_options(command, *options);
  command.when_called([command, options] { finetune::run(command, *options); });
}

}  // namespace cli
