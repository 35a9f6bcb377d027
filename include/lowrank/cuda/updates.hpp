#pragma once

/// Another update for each range of tokens of one batch, on a GPU: three launches for all updates together (cuda/segments.hpp).

#include <lowrank/cuda/layers.hpp>
#include <lowrank/cuda/segments.hpp>
#include <lowrank/nn/update_ranges.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace cuda::detail {

/// Numbers of the host in device memory, as T.
template <class T>
Memory upload_array(Machine& machine, const std::vector<T>& from) {
  Memory memory = machine.reserve(from.size() * sizeof(T));
  machine.upload(from.data(), memory.get(), from.size() * sizeof(T));
  return memory;
}

/// The updates of a batch's ranges: their factors as products read them, and which token has which.
class RangeUpdates {
 public:
  /// Throws ShapeError, ValueError.
  RangeUpdates(Machine& machine, const AnyLinear& base, std::span<const UpdateRange> ranges, Index tokens, bool is_recorded)
      : machine_(machine), tokens_(tokens) {
    std::vector<int> adapter_of_token(static_cast<std::size_t>(tokens), -1);
    for (const UpdateRange& range : ranges) {
      if (!range.update || range.count == 0) continue;
      check_range(base, range, tokens, is_recorded);
      LoraWeights<float>& u = *range.update;
      const auto number = static_cast<int>(parts_.size());
      std::fill_n(adapter_of_token.begin() + range.begin, range.count, number);
      parts_.push_back({range, Rounded(machine, on_device(u.a).value(), u.rank(), u.a.cols()),
                        Rounded(machine, on_device(u.b).value(), u.b.rows(), u.rank(), u.scale)});
      rank_ = std::max(rank_, u.rank());
    }
    tiles_ = token_tiles(adapter_of_token, narrow(static_cast<Index>(parts_.size())), SmallTile::tokens);
  }

  bool empty() const { return parts_.empty(); }
  bool needs_grad() const {
    return std::any_of(parts_.begin(), parts_.end(), [](const Part& part) { return part.range.update->needs_grad(); });
  }

  /// y += s_a B_a (A_a x) of each token's update a; keeps A x.
  void forward(const DeviceActivation& x, DeviceActivation& y) {
    x_ = Rounded(x);
    DeviceActivation h(rank_, tokens_);
    launch<false>(&Part::a, x_, narrow(rank_), h, false);
    h_ = Rounded(h);
    launch<false>(&Part::b, h_, narrow(y.rows()), y, true);
    for (const Part& part : parts_) {
      LoraWeights<float>& u = *part.range.update;
      if (!u.bias.empty())
        machine_.launch(AddToColumns{on_device(u.bias).value(), u.scale, narrow(y.rows()), narrow(part.range.count),
                                     y.data() + part.range.begin * y.rows()});
    }
  }

  /// Adds A_aᵀ (s_a B_aᵀ g) to dx, if given, and the gradients of the factors to theirs.
  void backward(const DeviceActivation& g, DeviceActivation* dx) {
    const Rounded g16(g);
    DeviceActivation u(rank_, tokens_);
    launch<true>(&Part::b, g16, narrow(rank_), u, false);  // s Bᵀ G   [r, T]
    const Rounded u16(u);
    if (dx) launch<true>(&Part::a, u16, narrow(dx->rows()), *dx, true);  // Aᵀ U
    for (const Part& part : parts_) {
      const auto [begin, count, update] = part.range;
      if (update->bias.needs_grad())
        machine_.launch(
            SumColumns{g.data() + begin * g.rows(), update->scale, narrow(g.rows()), narrow(count), on_device(update->bias).gradient()});
      add_outer_of(part, update->a, u16.operand(), narrow(update->rank()), x_.operand(), x_.operand().depth, 1);               // U Xᵀ
      add_outer_of(part, update->b, g16.operand(), g16.operand().depth, h_.operand(), narrow(update->rank()), update->scale);  // s G Hᵀ
    }
  }

 private:
  struct Part {
    UpdateRange range;
    Rounded a, b;  ///< A, s B
  };

  static void check_range(const AnyLinear& base, const UpdateRange& range, Index tokens, bool is_recorded) {
    const LoraWeights<float>& u = *range.update;
    check<ShapeError>(range.begin >= 0 && range.begin + range.count <= tokens, "update_ranges", "tokens [", range.begin, ", ",
                      range.begin + range.count, ") of a batch of ", tokens);
    check<ShapeError>(u.a.cols() == base.in_features() && u.b.rows() == base.out_features(), "update_ranges", "A is [", u.a.rows(), ", ",
                      u.a.cols(), "], B is [", u.b.rows(), ", ", u.b.cols(), "] but the layer is [", base.out_features(), ", ",
                      base.in_features(), ']');
    check_update_here(u, is_recorded);
  }

  /// y = factor_a · h of each token, or turned.
  template <bool Turned>
  void launch(Rounded Part::*factor, const Rounded& h, int rows, DeviceActivation& y, bool accumulates) const {
    std::vector<AdapterView> views;
    for (const Part& part : parts_) views.push_back((part.*factor).adapter(Turned));
    const Memory on_views = upload_array(machine_, views), on_tiles = upload_array(machine_, tiles_);
    Product p;
    p.h = h.operand();
    p.adapters = reinterpret_cast<const AdapterView*>(on_views.get());
    p.tiles = reinterpret_cast<const TokenTile*>(on_tiles.get());
    p.tile_count = narrow(static_cast<Index>(tiles_.size()));
    p.y = y.data();
    p.ldy = p.rows = rows;
    p.tokens = narrow(tokens_);
    p.accumulate = accumulates;
    machine_.launch(ProductMany<4, Turned, SmallTile>{p});  // without a base the bits of its codes do not matter
  }

  /// The gradient of a factor over its range's tokens: += scale · Σ left rightᵀ, of so many numbers of each.
  void add_outer_of(const Part& part, Parameter<float>& parameter, Operand left, int rows, Operand right, int cols, float scale) const {
    if (!parameter.needs_grad()) return;
    left.data += part.range.begin * left.stride, right.data += part.range.begin * right.stride;
    left.depth = rows, right.depth = cols;
    OuterProduct outer;
    outer.left = left, outer.right = right;
    outer.tokens = narrow(part.range.count), outer.scale = scale, outer.c = on_device(parameter).gradient();
    Launch launches(machine_);
    add_outer(launches, outer, machine_.scratch());
  }

  Machine& machine_;
  Index tokens_, rank_ = 0;
  std::vector<Part> parts_;
  std::vector<TokenTile> tiles_;
  Rounded x_, h_;
};

}  // namespace cuda::detail

/// Y = layer(X) becomes each range's adapted output on a GPU, recorded; see add_updates of nn/update_ranges.hpp. LoRA and biases of B;
/// ranks may differ. Throws ShapeError, and ValueError for what a GPU does not do yet: DoRA, dropout.
inline Var<float, Cuda> add_updates(Var<float, Cuda> y, const Var<float, Cuda>& x, const AdaptedLinear& layer,
                                    std::span<const UpdateRange> ranges) {
  const auto updates = std::make_shared<cuda::detail::RangeUpdates>(x.value().machine(), layer.base, ranges, x.cols(), x.tape() != nullptr);
  if (updates->empty()) return y;
  cuda::DeviceActivation z = y.take();
  updates->forward(x.value(), z);
  const auto backward = [updates, rows = x.rows()](auto& flow) {
    if (flow.needs(1)) {
      auto dx = cuda::DeviceActivation::Zero(rows, flow.gradient().cols());
      updates->backward(flow.gradient(), &dx);
      flow.add(1, std::move(dx));
    } else {
      updates->backward(flow.gradient(), nullptr);
    }
    flow.add(0, flow.take());
  };
  return record(std::move(z), {y, x}, backward, updates->needs_grad()).kept_as(layer.base.compute());
}

/// Updates of the token table do not run on a GPU yet. Throws ValueError.
inline Var<float, Cuda> add_embedding_update(Var<float, Cuda>, std::span<const std::int32_t>, Index, LoraWeights<float>&) {
  fail<ValueError>("embedding_lora", "an update of the token table does not run on a GPU yet; leave embed_tokens out, or use the CPU");
}

}  // namespace lowrank::inline LOWRANK_ABI
