#pragma once

/// Rows of a token table that are trained in the place of its own (PEFT's trainable_token_indices), and a head that follows its table.

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/update/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Row i of `rows` [n, dim] stands in for the table's row of the token ids[i].
template <class S = float>
struct TokenRows {
  std::vector<std::int32_t> ids = {};
  Parameter<S> rows = {};
};

namespace detail {

template <class S>
void check_token_rows(const char* operation, const TokenRows<S>& own, Index vocabulary, Index dim) {
  check_ids(operation, own.ids, vocabulary);
  check<ShapeError>(own.rows.rows() == static_cast<Index>(own.ids.size()) && own.rows.cols() == dim, operation, "rows are [",
                    own.rows.rows(), ", ", own.rows.cols(), "], there are ", own.ids.size(), " tokens and dim = ", dim,
                    "; give a row a token");
}

/// Z in the place of Y = f(X), recorded.
template <class S, class Backward>
Var<S> record_changed(Var<S> y, const Var<S>& x, Activation<S> z, bool trains, Backward backward) {
  return y.tape() ? y.tape()->record(std::move(z), {y, x}, std::move(backward), trains) : Var<S>(std::move(z));
}

}  // namespace detail

/// Y [dim, T], columns of a table [vocabulary, dim], with the rows' own for their tokens, recorded. Throws ShapeError, ValueError.
template <class S>
Var<S> replace_columns(Var<S> y, std::span<const std::int32_t> tokens, Index vocabulary, TokenRows<S>& own) {
  detail::check_token_rows("replace_columns", own, vocabulary, y.rows());
  std::unordered_map<std::int32_t, Index> place;
  for (std::size_t i = 0; i < own.ids.size(); ++i) place.emplace(own.ids[i], static_cast<Index>(i));
  std::vector<std::pair<Index, Index>> changed;  // column of Y, row
  for (std::size_t t = 0; t < tokens.size(); ++t)
    if (const auto found = place.find(tokens[t]); found != place.end()) changed.emplace_back(static_cast<Index>(t), found->second);
  Activation<S> z = y.take();
  for (const auto& [t, row] : changed) z.col(t) = own.rows.value.row(row).transpose();
  auto backward = [rows = Handle(own.rows), changed = std::move(changed)](auto& flow) {
    Activation<S> g = flow.take();
    for (const auto& [t, row] : changed) {
      if (rows->needs_grad()) rows->gradient().row(row) += g.col(t).transpose();
      g.col(t).setZero();
    }
    flow.add(0, std::move(g));
  };
  return y.tape() ? y.tape()->record(std::move(z), {y}, std::move(backward), own.rows.needs_grad()) : Var<S>(std::move(z));
}

/// Logits Y = W X [vocabulary, T] with those of the rows, R X, for their tokens, recorded. Keeps X. Throws ShapeError, ValueError.
template <class S>
Var<S> replace_logits(Var<S> y, const Var<S>& x, TokenRows<S>& own) {
  detail::check_token_rows("replace_logits", own, y.rows(), x.rows());
  Activation<S> z = y.take();
  const Activation<S> logits = multiply(factor(own.rows).source(), x.value());  // [n, dim] · [dim, T]
  for (std::size_t i = 0; i < own.ids.size(); ++i) z.row(own.ids[i]) = logits.row(static_cast<Index>(i));
  auto backward = [rows = Handle(own.rows), ids = own.ids, x = x.kept()](auto& flow) {
    Activation<S> g = flow.take(), own_g(static_cast<Index>(ids.size()), g.cols());
    for (std::size_t i = 0; i < ids.size(); ++i) own_g.row(static_cast<Index>(i)) = g.row(ids[i]), g.row(ids[i]).setZero();
    if (rows->needs_grad()) accumulate_outer(rows->gradient(), own_g, *x.get());         // G Xᵀ   [n, dim]
    if (flow.needs(1)) flow.add(1, multiply_transposed(factor(*rows).source(), own_g));  // Rᵀ G   [dim, T]
    flow.add(0, std::move(g));
  };
  return detail::record_changed(std::move(y), x, std::move(z), own.rows.needs_grad(), std::move(backward));
}

/// Y + s Aᵀ (Bᵀ X): logits [vocabulary, T] of a head that is the token table with the table's update, A [r, vocabulary], B [dim, r],
/// recorded.
///
/// Keeps X and Bᵀ X. Throws ShapeError.
template <class S>
Var<S> add_table_logits(Var<S> y, const Var<S>& x, LoraWeights<S>& table) {
  check<ShapeError>(table.a.cols() == y.rows() && table.b.rows() == x.rows(), "add_table_logits", "y is [", y.rows(), ", ", y.cols(),
                    "], x is [", x.rows(), ", ", x.cols(), "], but A has ", table.a.cols(), " columns and B ", table.b.rows(), " rows");
  Activation<S> h = multiply_transposed(factor(table.b).source(), x.value());  // Bᵀ X   [r, T]
  Activation<S> z = y.take();
  z += table.scale * multiply_transposed(factor(table.a).source(), h);  // s Aᵀ H   [vocabulary, T]
  auto backward = [a = Handle(table.a), b = Handle(table.b), s = table.scale, h = std::move(h), x = x.kept()](auto& flow) {
    const Activation<S>& g = flow.gradient();
    const Activation<S> u = s * multiply(factor(*a).source(), g);       // s A G   [r, T]
    if (a->needs_grad()) accumulate_outer(a->gradient(), h, g, s);      // s H Gᵀ  [r, vocabulary]
    if (b->needs_grad()) accumulate_outer(b->gradient(), *x.get(), u);  // X Uᵀ    [dim, r]
    if (flow.needs(1)) flow.add(1, multiply(factor(*b).source(), u));   // B U     [dim, T]
    flow.add(0, flow.take());
  };
  return detail::record_changed(std::move(y), x, std::move(z), table.needs_grad(), std::move(backward));
}

}  // namespace lowrank::inline LOWRANK_ABI
