#pragma once

#include <cstdint>
#include <span>

#include <lowrank/kernels/format/source.hpp>
#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

void check_ids(const char* operation, std::span<const std::int32_t> ids, Index vocabulary);

}  // namespace detail

/// Row ids[t] of the table [vocabulary, dim] as column t; gives [dim, T]. Throws ValueError for an id outside the table.
template <class S = float, Source Table>
Activation<S> embedding_forward(const Table& table, std::span<const std::int32_t> ids) {
  detail::check_ids("embedding_forward", ids, table.rows());
  const Index dim = table.cols(), tokens = static_cast<Index>(ids.size());
  Activation<S> y(dim, tokens);
  detail::for_each_token(dim, tokens, [&](Index t) { table.decode(ids[static_cast<std::size_t>(t)], 1, 0, dim, y.col(t).data(), dim); });
  return y;
}

/// Adds column t of G [dim, T] into row ids[t] of dtable [vocabulary, dim].
///
/// Equal ids add in the order of the tokens: threads share the columns of the table. Throws ShapeError, ValueError.
template <MatrixLike G, class S = ScalarOf<G>>
void embedding_backward(WeightRef<S> dtable, std::span<const std::int32_t> ids, const G& gradient) {
  const ActivationView<S> g(gradient);
  check<ShapeError>(g.rows() == dtable.cols() && g.cols() == static_cast<Index>(ids.size()), "embedding_backward", "g is [", g.rows(), ", ",
                    g.cols(), "] but dtable is [", dtable.rows(), ", ", dtable.cols(), "] and there are ", ids.size(),
                    " ids; g must be [dim, tokens] with one id a token");
  detail::check_ids("embedding_backward", ids, dtable.rows());
  parallel_ranges(g.rows(), 64, [&](Index begin, Index end) {
    for (Index t = 0; t < g.cols(); ++t) {
      dtable.row(ids[static_cast<std::size_t>(t)]).segment(begin, end - begin) += g.col(t).segment(begin, end - begin).transpose();
    }
  });
}

#if defined(LOWRANK_COMPILED)
extern template void embedding_backward(WeightRef<float>, std::span<const std::int32_t>, const Activation<float>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/embedding.inl>
#endif
