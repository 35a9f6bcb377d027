#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include <lowrank/cuda.hpp>

#include <transformer/generate.inl>
#include <transformer/model.inl>
#include <transformer/train.inl>

/// Running, training and sampling on a GPU: what the other units compile for the CPU, and the two places that differ.

namespace transformer {

using lowrank::cuda::DeviceActivation;

namespace {
/// Puts columns behind the first `length` of one of the cache's arrays. What it returns is a window, not a copy.
DeviceActivation append(const Cache<Cuda>& cache, DeviceActivation& all, const DeviceActivation& fresh) {
  const Index wanted = cache.length + fresh.cols();
  if (all.cols() < wanted) {
    DeviceActivation larger(fresh.rows(), std::max(wanted, 2 * all.cols()));
    if (cache.length > 0) larger.set_columns(0, all.leftCols(cache.length));
    all = std::move(larger);
  }
  all.set_columns(cache.length, fresh);
  return all.leftCols(wanted);
}
}  // namespace

/// See cache.hpp; a GPU's keys and values are fp32.
DeviceActivation attend(Cache<Cuda>& cache, Index layers, Index i, const DeviceActivation& q, const DeviceActivation& k,
                        const DeviceActivation& v, const lowrank::AttentionShape& shape, lowrank::Compute compute) {
  cache.keys.resize(static_cast<std::size_t>(layers)), cache.values.resize(static_cast<std::size_t>(layers));
  const DeviceActivation keys = append(cache, cache.keys[static_cast<std::size_t>(i)], k);
  const DeviceActivation values = append(cache, cache.values[static_cast<std::size_t>(i)], v);
  return attention_forward(q, keys, values, shape, compute).y;
}

/// On the GPU in use. A shape of batch is recorded when it comes first, and run as a whole from then on.
template <>
class Steps<Cuda> {
 public:
  Steps(Transformer& model, LoraSet* lora, lowrank::AdamW<float>& optimizer, const std::vector<ParameterRef<float>>&,
        const TrainOptions& options)
      : model_(model), lora_(lora), options_(options), optimizer_(optimizer) {
    lowrank::check<lowrank::ValueError>(!lora || !has_penalties(*lora), "train",
                                        "the adapter's method adds a term to the loss, which GPUs do not compute; train it on the CPU");
  }

  double run(std::span<const Batch> parts) {
    optimizer_.begin_step();
    return parts.size() == 1 ? run_whole(parts.front()) : run_parts(parts);
  }
  void download() { optimizer_.download(); }

 private:
  static constexpr std::size_t most_shapes = 4;  // each has its own memory

  /// A step of one pass, recorded where its shape comes again.
  double run_whole(const Batch& batch) {
    const bool all_count = std::find(batch.targets.begin(), batch.targets.end(), lowrank::ignored_target) == batch.targets.end();
    const auto shape = std::pair(batch.ids.size(), batch.sequences.count());
    const auto found = recorded_.find(shape);
    const bool is_recorded = all_count && batch.sequences.are_equal();
    if (found != recorded_.end() && is_recorded) return found->second->run(batch);
    if (!is_recorded || recorded_.size() == most_shapes) return step(batch).item();
    auto fresh = std::make_unique<RecordedStep>(*this, batch);
    const double loss = fresh->losses.front().item();
    recorded_.emplace(shape, std::move(fresh));
    return loss;
  }

  double run_parts(std::span<const Batch> parts) {
    double loss = 0;
    for (const Batch& part : parts) {
      const double share = share_of(part, parts);
      loss += share * pass(part, static_cast<float>(share)).item();
    }
    optimizer_.update(options_.clip_norm);
    return loss;
  }

  struct RecordedStep {
    Batch batch;
    std::vector<Var<float, Cuda>> losses;  // of the rehearsal, which was a step like any other, and of the last run
    lowrank::cuda::Recording recording;

    RecordedStep(Steps& steps, const Batch& first)
        : batch(first), recording(lowrank::cuda::Machine::current(), [&] { losses.push_back(steps.step(batch)); }) {}
    double run(const Batch& next) {
      std::copy(next.ids.begin(), next.ids.end(), batch.ids.begin());
      std::copy(next.targets.begin(), next.targets.end(), batch.targets.begin());
      recording.run();
      return losses.back().item();
    }
  };

  Var<float, Cuda> step(const Batch& batch) {
    Var<float, Cuda> loss = pass(batch, 1);
    optimizer_.update(options_.clip_norm);
    return loss;
  }

  /// The loss of a batch; a share of its gradient joins the parameters'.
  Var<float, Cuda> pass(const Batch& batch, float share) {
    Var<float, Cuda> loss = model_.loss<Cuda>(batch.ids, batch.targets, batch.sequences,
                                              {.tape = &tape_, .lora = lora_, .recompute = recomputes(model_, options_, batch)});
    if (loss.requires_grad()) tape_.backward(loss, DeviceActivation::Constant(1, 1, share));
    return loss;
  }

  Transformer& model_;
  LoraSet* lora_;
  const TrainOptions& options_;
  lowrank::cuda::DeviceAdamW optimizer_;
  Tape<float, Cuda> tape_;
  std::map<std::pair<std::size_t, Index>, std::unique_ptr<RecordedStep>> recorded_;
};

template Var<float, Cuda> Transformer::hidden(std::span<const std::int32_t>, const Sequences&, Pass<Cuda>);
template Var<float, Cuda> Transformer::logits(std::span<const std::int32_t>, const Sequences&, Pass<Cuda>);
template Var<float, Cuda> Transformer::next_logits(std::span<const std::int32_t>, Pass<Cuda>);
template Var<float, Cuda> Transformer::loss(std::span<const std::int32_t>, std::span<const std::int32_t>, const Sequences&, Pass<Cuda>);
template class Reader<Cuda>;
template Activation<float> read_logits<Cuda>(Transformer&, LoraSet*, std::span<const std::int32_t>);
template Generation generate<Cuda>(Transformer&, LoraSet*, const Tokenizer&, std::span<const std::int32_t>, const GenerateOptions&,
                                   const std::function<void(std::string_view)>&);
template Generation generate<Cuda>(Reader<Cuda>&, const Tokenizer&, std::span<const std::int32_t>, const GenerateOptions&,
                                   const std::function<void(std::string_view)>&);

template void train<Cuda>(Transformer&, LoraSet*, lowrank::AdamW<float>&, const std::vector<ParameterRef<float>>&,
                          const std::vector<Example>&, const TrainOptions&, const std::function<void(const StepReport&)>&, const Stretch&);
template Evaluation evaluate<Cuda>(Transformer&, LoraSet*, const std::vector<Example>&, Index);

}  // namespace transformer
