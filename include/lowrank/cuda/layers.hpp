#pragma once

/// Linear layers, the token table and the loss on a GPU, for Vars: frozen bases in their own format, with low-rank updates that train.

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include <lowrank/cuda/ops.hpp>
#include <lowrank/nn/forward_together.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace cuda {

/// A layer's weight on the device, in the bits that it has on the host (cuda/packed.hpp); dense numbers as bfloat16.
struct WeightCopy : DeviceCopy {
  WeightCopy(Machine& machine, const PackedMatrix& packed) : view(packed.facts) {
    const auto put = [&](const auto& from, auto& to) {
      if (from.empty()) return;
      const std::size_t bytes = from.size() * sizeof(from[0]);
      pieces.push_back(machine.reserve_exactly(bytes));
      machine.upload(from.data(), pieces.back().get(), bytes);
      to = reinterpret_cast<std::decay_t<decltype(to)>>(pieces.back().get());
    };
    put(packed.codes, view.codes);
    put(packed.scales, view.scales);
    put(packed.offsets, view.offsets);
    put(packed.scale_map, view.scale_map);
    put(packed.half_scales, view.half_scales);
    put(packed.half_offsets, view.half_offsets);
    put(packed.scale_codes, view.scale_codes);
  }

  std::vector<Memory> pieces;
  PackedView view;
};

namespace detail {

inline PackedMatrix pack_any(const WeightView& weight) {
  return weight.kind() == WeightView::Kind::blocks ? pack(weight.blocks()) : pack_bfloat16(weight);
}

}  // namespace detail

/// The layer's weight on the machine in use, packed and copied when it is asked for the first time.
inline const PackedView& on_device(const AnyLinear& layer) {
  const auto make = [&] {
    return layer.visit([](const auto& held) { return std::make_unique<WeightCopy>(Machine::current(), detail::pack_any(held.source())); });
  };
  return layer.device().get<WeightCopy>(make).view;
}

/// Rows of bfloat16 in memory of their own: what a product reads.
class Rounded {
 public:
  Rounded() = default;
  /// factor · x, `count` rows of `cols` numbers, with room for `room` more behind each.
  Rounded(Machine& machine, const float* x, Index count, Index cols, float factor = 1, Index room = 0) : count_(detail::narrow(count)) {
    rows_.cols = detail::narrow(cols), rows_.room = detail::narrow(room);
    memory_ = machine.reserve(static_cast<std::size_t>(count * rows_.stride()) * sizeof(bfloat16));
    rows_.data = reinterpret_cast<bfloat16*>(memory_.get());
    Launch launch(machine);
    rows_.fill(launch, x, count_, factor);
  }
  explicit Rounded(const DeviceActivation& x, Index room = 0) : Rounded(x.machine(), x.data(), x.cols(), x.rows(), 1, room) {}

  /// x in the rows of `front`, so many numbers into its room.
  Rounded(const Rounded& front, Index at, const DeviceActivation& x) : memory_(front.memory_), count_(front.count_) {
    rows_.cols = detail::narrow(x.rows());
    rows_.data = front.rows_.data + round_up(front.rows_.cols, chunk_size) + at;
    rows_.room = detail::narrow(front.rows_.stride() - rows_.stride());
    Launch launch(x.machine());
    rows_.fill(launch, x.data(), count_);
  }
  /// Room that so many numbers take.
  static Index room_of(Index cols) { return round_up(cols, chunk_size); }

  /// The rows as the columns of an activation again.
  DeviceActivation widened() const {
    DeviceActivation x(rows_.cols, count_);
    x.machine().launch(FromBfloat16{rows_.data, rows_.stride(), count_, rows_.cols, x.data()});
    return x;
  }
  Operand operand() const { return rows_.operand(); }
  PackedView view() const { return rows_.view(count_); }
  /// The low-rank columns of a product: rows of s B, or of A for a turned one.
  AdapterView adapter(bool is_turned) const {
    return {rows_.data, rows_.stride(), is_turned ? count_ : rows_.cols, is_turned ? rows_.cols : count_};
  }

 private:
  Memory memory_;
  BrainRows rows_;
  int count_ = 0;
};

/// What Compute::bf16 keeps of a value for the backward pass.
inline auto rounded_copy(const DeviceActivation& x) {
  return [copy = std::make_shared<const Rounded>(x)] { return copy->widened(); };
}

namespace detail {

/// y = W X of a weight, or turned, plus the low-rank columns factor · h and a bias, if given.
template <bool Turned>
void product_into(Machine& machine, const PackedView& w, const Rounded& x, Index tokens, float* y, const Rounded* factor = nullptr,
                  const Rounded* h = nullptr, const float* bias = nullptr, bool accumulate = false) {
  Product p = product_of(w, x.operand(), Turned ? w.cols : w.rows, narrow(tokens), y);
  p.accumulate = accumulate;
  if (factor) p.h = h->operand(), p.adapter = factor->adapter(Turned);
  p.bias = bias;
  Launch launch(machine);
  multiply<Turned>(launch, p, machine.scratch());
}
template <bool Turned>
DeviceActivation product(Machine& machine, const PackedView& w, const Rounded& x, Index tokens, const Rounded* factor = nullptr,
                         const Rounded* h = nullptr, const float* bias = nullptr) {
  DeviceActivation y(Turned ? w.cols : w.rows, tokens);
  product_into<Turned>(machine, w, x, tokens, y.data(), factor, h, bias);
  return y;
}

/// Throws ValueError for what a GPU does not do yet.
inline void check_update_here(const LoraWeights<float>& update, bool is_recorded) {
  check<ValueError>(!update.is_dora(), "linear", "DoRA does not run on a GPU yet; use the CPU, or merge the adapter first");
  check<ValueError>(!is_recorded || update.dropout == 0, "linear",
                    "dropout of an adapter's input does not run on a GPU yet; train with dropout = 0, or on the CPU");
}
inline void check_use_here(const LayerUse& use, bool is_recorded) {
  check<ValueError>(!use.layer->base.weight_trainable(), "linear",
                    "the layer's weight is trainable; on a GPU weights are frozen and updates train: call set_trainable(false)");
  if (use.update) check_update_here(*use.update, is_recorded);
}

/// C += scale · Σₜ L Rᵀ into a parameter's gradient.
inline void add_outer_gradient(Machine& machine, Parameter<float>& parameter, const Rounded& left, const Rounded& right, Index tokens,
                               float scale) {
  OuterProduct outer;
  outer.left = left.operand(), outer.right = right.operand();
  outer.tokens = narrow(tokens), outer.scale = scale, outer.c = cuda::on_device(parameter).gradient();
  Launch launch(machine);
  add_outer(launch, outer, machine.scratch());
}

/// What one layer's backward pass reads: [W | s B] and X, A X, all as the products read them.
struct LayerRecord {
  LayerUse use;
  Rounded a, b;                      ///< A, s B
  std::shared_ptr<const Rounded> x;  ///< where A is trained
  Rounded h;

  /// y = W X + b + s B (A X); A X comes to lie in the rows of X, `place` numbers into their room.
  DeviceActivation forward(const std::shared_ptr<const Rounded>& input, Index place, Index tokens, Machine& machine) {
    const PackedView& w = cuda::on_device(use.layer->base);
    Parameter<float>& bias = use.layer->base.bias();
    const float* const added = bias.empty() ? nullptr : cuda::on_device(bias).value();
    if (!use.update) return product<false>(machine, w, *input, tokens, nullptr, nullptr, added);
    LoraWeights<float>& u = *use.update;
    a = Rounded(machine, cuda::on_device(u.a).value(), u.rank(), u.a.cols());
    b = Rounded(machine, cuda::on_device(u.b).value(), u.b.rows(), u.rank(), u.scale);
    h = Rounded(*input, place, product<false>(machine, a.view(), *input, tokens));   // A X   [r, T]
    DeviceActivation y = product<false>(machine, w, *input, tokens, &b, &h, added);  // [W | s B] [X ; A X]
    if (u.a.needs_grad()) x = input;
    if (!u.bias.empty()) machine.launch(AddToColumns{cuda::on_device(u.bias).value(), u.scale, narrow(y.rows()), narrow(tokens), y.data()});
    return y;
  }

  template <class Flow>
  void backward(Flow& flow) {
    const DeviceActivation& g = flow.gradient();
    Machine& machine = g.machine();
    add_bias_gradient(use.layer->base.bias(), g, 1);
    const Rounded g16(g, use.update ? Rounded::room_of(use.update->rank()) : 0);
    const PackedView& w = cuda::on_device(use.layer->base);
    if (!use.update) {
      add_turned(flow, machine, w, g16, nullptr, nullptr);
      return;
    }
    LoraWeights<float>& update = *use.update;
    add_bias_gradient(update.bias, g, update.scale);
    const Rounded u(g16, 0, product<true>(machine, b.view(), g16, g.cols()));                          // s Bᵀ G   [r, T]
    add_turned(flow, machine, w, g16, &a, &u);                                                         // Wᵀ G + Aᵀ U
    if (update.a.needs_grad()) add_outer_gradient(machine, update.a, u, *x, g.cols(), 1);              // U Xᵀ
    if (update.b.needs_grad()) add_outer_gradient(machine, update.b, g16, h, g.cols(), update.scale);  // s G (A X)ᵀ
  }

 private:
  /// dX, added by the product itself where another layer's dX is there already.
  template <class Flow>
  static void add_turned(Flow& flow, Machine& machine, const PackedView& w, const Rounded& g16, const Rounded* factor, const Rounded* u) {
    if (!flow.needs(0)) return;
    const Index tokens = flow.gradient().cols();
    if (DeviceActivation* const sum = flow.sum_so_far(0); sum && sum->rows() == w.cols && sum->cols() == tokens)
      product_into<true>(machine, w, g16, tokens, sum->data(), factor, u, nullptr, true);
    else
      flow.add(0, product<true>(machine, w, g16, tokens, factor, u));
  }
  static void add_bias_gradient(Parameter<float>& bias, const DeviceActivation& g, float factor) {
    if (bias.needs_grad())
      g.machine().launch(SumColumns{g.data(), factor, narrow(g.rows()), narrow(g.cols()), cuda::on_device(bias).gradient()});
  }
};

/// Ids or targets on the device; a recorded step reads them anew from where they are.
inline Memory upload_ids(Machine& machine, std::span<const std::int32_t> ids) {
  Memory memory = machine.reserve(ids.size_bytes());
  machine.upload(ids.data(), memory.get(), ids.size_bytes(), true);
  return memory;
}
inline const std::int32_t* as_ids(const Memory& memory) { return reinterpret_cast<const std::int32_t*>(memory.get()); }

}  // namespace detail

}  // namespace cuda

/// layer(x) of several layers for one x [in, T] on a GPU: one [out, T] a layer; x is rounded once for all.
///
/// Updates train, bases do not. Throws ShapeError, and ValueError for what a GPU does not do yet: DoRA, dropout.
inline std::vector<Var<float, Cuda>> forward_together(std::span<const LayerUse> uses, const Var<float, Cuda>& x) {
  for (const LayerUse& use : uses) {
    detail::check_input("linear", x.rows(), x.cols(), use.layer->in_features());
    cuda::detail::check_use_here(use, x.tape() != nullptr);
  }
  Index room = 0, place = 0;
  for (const LayerUse& use : uses)
    if (use.update) room += cuda::Rounded::room_of(use.update->rank());
  const auto input = std::make_shared<const cuda::Rounded>(x.value(), room);
  std::vector<Var<float, Cuda>> outputs;
  for (const LayerUse& use : uses) {
    auto layer = std::make_shared<cuda::detail::LayerRecord>();
    layer->use = use;
    const bool trains = use.layer->base.bias().needs_grad() || (use.update && use.update->needs_grad());
    auto y = layer->forward(input, place, x.cols(), x.value().machine());
    if (use.update) place += cuda::Rounded::room_of(use.update->rank());
    auto output = record(
        std::move(y), {x}, [layer](auto& flow) { layer->backward(flow); }, trains);
    outputs.push_back(std::move(output).kept_as(use.layer->base.compute()));
  }
  return outputs;
}

/// Rows ids of a table as columns [in, T], on the machine in use; a constant that knows the tape, if there is one. Throws ValueError.
inline Var<float, Cuda> embed(AnyLinear& table, Tape<float, Cuda>* tape, std::span<const std::int32_t> ids) {
  for (std::size_t t = 0; t < ids.size(); ++t)
    check<ValueError>(ids[t] >= 0 && ids[t] < table.out_features(), "embedding", "id ", ids[t], " at token ", t, " is outside [0, ",
                      table.out_features(), "); the ids belong to another vocabulary");
  check<ValueError>(!table.weight_trainable(), "embedding", "the token table is trainable; on a GPU it is frozen: use the CPU");
  auto& machine = cuda::Machine::current();
  cuda::DeviceActivation x(table.in_features(), static_cast<Index>(ids.size()));
  const cuda::Memory numbers = cuda::detail::upload_ids(machine, ids);
  machine.launch(cuda::EmbeddingForward{cuda::on_device(table), cuda::detail::as_ids(numbers), cuda::detail::narrow(x.cols()), x.data()});
  return tape ? tape->input(std::move(x)) : Var<float, Cuda>(std::move(x));
}

}  // namespace lowrank::inline LOWRANK_ABI
