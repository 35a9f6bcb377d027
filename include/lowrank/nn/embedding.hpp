#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/shape.hpp>
#include <lowrank/autograd/parameter.hpp>
#include <lowrank/autograd/tape.hpp>
#include <lowrank/kernels/format/source.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/nn/parameter.hpp>
#include <lowrank/nn/print.hpp>
#include <lowrank/ops/embedding.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Rows ids of a table [vocabulary, dim] as columns [dim, T]; recorded on the tape, if there is one, while the table is trainable.
template <class S, class Device = Cpu>
Var<S, Device> embedding(Tape<S, Device>* tape, Parameter<S>& table, std::span<const std::int32_t> ids) {
  const DenseSource<S> source(table.value.data(), table.rows(), table.cols());
  ArrayOn<S, Device> y = embedding_forward<S>(source, ids);
  if (tape == nullptr) return Var<S, Device>(std::move(y));
  if (!table.needs_grad()) return tape->input(std::move(y));
  auto backward = [table = Handle(table), ids = std::vector<std::int32_t>(ids.begin(), ids.end())](auto& flow) {
    embedding_backward(table->gradient(), ids, flow.gradient());
  };
  return tape->record(std::move(y), {}, std::move(backward), true);
}

/// Table of a vector a token, trainable: ids to [dim, T].
template <class S = float>
class Embedding {
 public:
  using Scalar = S;

  /// Table [vocabulary, dim].
  explicit Embedding(Weight<S> table) {
    table_.name = "weight";
    table_.value = std::move(table);
  }
  /// Drawn from N(0, 1).
  Embedding(Index vocabulary, Index dim, std::uint64_t seed = 0) : Embedding(drawn(vocabulary, dim, seed)) {}

  Index vocabulary() const { return table_.rows(); }
  Index dim() const { return table_.cols(); }

  /// Column t is row ids[t], without a tape. Throws ValueError for an id outside the table.
  Activation<S> operator()(std::span<const std::int32_t> ids) const {
    return embedding_forward<S>(DenseSource<S>(table_.value.data(), vocabulary(), dim()), ids);
  }
  /// The same, recorded on the tape.
  template <class Device>
  Var<S, Device> operator()(Tape<S, Device>& tape, std::span<const std::int32_t> ids) & {
    return embedding(&tape, table_, ids);
  }
  auto operator()(auto&, std::span<const std::int32_t>) && = delete;  // the recording refers to the layer: give the layer a name first

  Parameter<S>& table() { return table_; }
  const Parameter<S>& table() const { return table_; }
  void set_trainable(bool trainable) { table_.trainable = trainable; }

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(table_);
  }

 private:
  static Weight<S> drawn(Index vocabulary, Index dim, std::uint64_t seed) {
    element_count("embedding", "the table [vocabulary, dim]", {vocabulary, dim}, 1);
    Weight<S> table(vocabulary, dim);
    fill_normal(table, 1.0, Random(seed, 0, Role::table));
    return table;
  }

  Parameter<S> table_;
};

/// `Embedding fp32 [256, 64], 16384 of 16384 parameters trainable, 66 kB`.
template <class S>
std::string describe(const Embedding<S>& layer) {
  return concat("Embedding ", detail::scalar_text<S>(), ' ', detail::sizes_text(layer.vocabulary(), layer.dim()),
                detail::layer_tail(layer));
}

}  // namespace lowrank::inline LOWRANK_ABI
