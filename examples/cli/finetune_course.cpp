#include <cli/finetune.hpp>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <utility>

namespace cli::finetune {

namespace {

using Parameters = std::vector<lowrank::ParameterRef<float>>;

/// A run on its way: what a checkpoint holds.
class Journey {
 public:
  Journey(const Options& options, const std::vector<Setting>& settings, Session& session, LoraSet& lora, const transformer::Dataset& data)
      : o_(options),
        settings_(settings),
        session_(session),
        lora_(lora),
        data_(data),
        parameters_(transformer::parameters(session.model, lora)),
        optimizer_(make_optimizer(options, parameters_)),
        progress_(options.train.steps, "step") {
    if (o_.keep_best) keep();
    if (o_.resume) load();
  }

  /// Goes on until the steps are done or patience ends.
  Course run() {
    for (auto step = static_cast<Index>(course_.losses.size());; step = static_cast<Index>(course_.losses.size())) {
      if (is_due(step)) evaluate(step);
      if (step >= o_.train.steps || is_out_of_patience()) break;
      const Index every = o_.evaluate_every;
      train({step, every > 0 ? (step / every + 1) * every : o_.train.steps});
    }
    if (o_.keep_best && course_.best()) restore();
    return std::move(course_);
  }

 private:
  /// B and what else begins at zero apart: it may have a rate of its own.
  static lowrank::AdamW<float> make_optimizer(const Options& o, Parameters& parameters) {
    const auto is_b = [](const auto& parameter) { return parameter.name.find("lora_B") != std::string::npos || parameter.cols == 1; };
    const auto first_b = std::stable_partition(parameters.begin(), parameters.end(), std::not_fn(is_b));
    lowrank::AdamWOptions rates{.learning_rate = o.train.learning_rate, .weight_decay = o.train.weight_decay};
    lowrank::AdamW<float> optimizer({parameters.begin(), first_b}, rates);
    rates.learning_rate *= o.lora_plus;
    optimizer.add_group({first_b, parameters.end()}, rates);
    return optimizer;
  }

  bool is_due(Index step) const {
    const bool is_place = o_.evaluate_every > 0 && step > 0 && (step % o_.evaluate_every == 0 || step == o_.train.steps);
    return is_place && (course_.evaluations.empty() || course_.evaluations.back().step < step);
  }

  void evaluate(Index step) {
    course_.evaluations.push_back({step, held_out_loss(session_, lora_, data_)});
    const bool is_best = course_.best() == &course_.evaluations.back();
    progress_.say(format("step %ld: held-out loss %.4f%s", static_cast<long>(step), course_.evaluations.back().loss,
                         is_best ? ", the best so far" : ""));
    if (is_best && o_.keep_best) keep();
  }

  bool is_out_of_patience() const {
    if (o_.patience == 0 || course_.evaluations.empty()) return false;
    return &course_.evaluations.back() - course_.best() >= o_.patience;
  }

  void train(const transformer::Stretch& stretch) {
    transformer::TrainOptions options = o_.train;
    if (!o_.checkpoint.empty()) options.read_every = o_.checkpoint_every;
    on_device(session_, [&](auto device) {
      transformer::train<decltype(device)>(
          session_.model, &lora_, optimizer_, parameters_, data_.train, options, [this](const auto& step) { note(step); }, stretch);
    });
  }

  void note(const transformer::StepReport& step) {
    course_.losses.push_back(step.loss);
    course_.seconds.push_back(step.seconds);
    course_.tokens += static_cast<double>(step.tokens);
    progress_.show(step.step + 1, step.loss, static_cast<double>(step.tokens) / step.seconds);
    const bool due = (step.step + 1) % o_.checkpoint_every == 0 || step.step + 1 == o_.train.steps;
    if (!o_.checkpoint.empty() && due) save();
  }

  void keep() {
    best_.clear();
    for (const auto& parameter : parameters_) best_.emplace_back(parameter.value().begin(), parameter.value().end());
  }
  void restore() {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      std::copy(best_[i].begin(), best_[i].end(), parameters_[i].value().begin());
      parameters_[i].device().drop();
    }
  }

  /// Parameters, optimizer state, and the best parameters where they are kept.
  std::vector<lowrank::StateArray> state() {
    std::vector<lowrank::StateArray> arrays = changing_state(parameters_, optimizer_);
    for (std::size_t i = 0; i < best_.size(); ++i)
      arrays.push_back(
          lowrank::state_array("best/" + parameters_[i].name, std::span<float>(best_[i]), {parameters_[i].rows, parameters_[i].cols}));
    return arrays;
  }

  void save() {
    std::vector<double> steps, losses;
    for (const auto& [step, loss] : course_.evaluations) steps.push_back(static_cast<double>(step)), losses.push_back(loss);
    Checkpoint(o_.checkpoint).save(state(), settings_, {{"losses", course_.losses}, {"evaluated", steps}, {"held_out", losses}});
  }

  void load() {
    const Checkpoint checkpoint(o_.checkpoint);
    checkpoint.load(state());
    course_.losses = checkpoint.list("losses");
    const std::vector<double> steps = checkpoint.list("evaluated"), losses = checkpoint.list("held_out");
    const auto done = static_cast<Index>(course_.losses.size());  // those with a loss that was not finite changed nothing
    const bool are_places =
        std::all_of(steps.begin(), steps.end(), [&](double step) { return step > 0 && step <= static_cast<double>(done); });
    lowrank::check<lowrank::FormatError>(optimizer_.steps() <= done && steps.size() == losses.size() && are_places, "checkpoint",
                                         o_.checkpoint, ": has ", done, " losses of ", optimizer_.steps(), " steps, and ", losses.size(),
                                         " evaluations at ", steps.size(), " places of them; it is damaged");
    for (std::size_t i = 0; i < steps.size(); ++i) course_.evaluations.push_back({static_cast<Index>(steps[i]), losses[i]});
  }

  const Options& o_;
  const std::vector<Setting>& settings_;
  Session& session_;
  LoraSet& lora_;
  const transformer::Dataset& data_;
  Parameters parameters_;
  lowrank::AdamW<float> optimizer_;
  Progress progress_;
  Course course_;
  std::vector<std::vector<float>> best_;
};

}  // namespace

const Evaluated* Course::best() const {
  const auto least = std::min_element(evaluations.begin(), evaluations.end(), [](const auto& a, const auto& b) { return a.loss < b.loss; });
  return least == evaluations.end() ? nullptr : &*least;
}

double held_out_loss(Session& session, LoraSet& lora, const transformer::Dataset& data) {
  return on_device(session,
                   [&](auto device) { return transformer::evaluate<decltype(device)>(session.model, &lora, data.held_out).mean_nll; });
}

Course run_training(const Options& options, const std::vector<Setting>& settings, Session& session, LoraSet& lora,
                    const transformer::Dataset& data) {
  return Journey(options, settings, session, lora, data).run();
}

}  // namespace cli::finetune
