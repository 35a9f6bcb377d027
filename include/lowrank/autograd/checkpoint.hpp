#pragma once

#include <memory>
#include <utility>

#include <lowrank/autograd/tape.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// y = f(x) of which nothing but x is kept: the backward pass runs f again on a tape of its own, then sweeps it.
///
/// f takes and returns a Var, and computes the same each time; dropout draws the same masks. For a block of a model it trades a third more
/// FLOPs for the memory of all that the block would keep. What f refers to must live until backward() has run. Chen et al. 2016.
template <class S, class Device, class Function>
Var<S, Device> checkpoint(const Var<S, Device>& x, Function f) {
  Tape<S, Device>* const tape = x.tape();
  if (tape == nullptr) return f(x);
  const bool needs_x = x.requires_grad();
  auto draws = std::make_shared<Draws>();
  std::shared_ptr<ArrayOn<S, Device>> y;
  {
    Tape<S, Device> scratch;
    scratch.record_draws(*draws);
    auto result = f(needs_x ? scratch.variable(x.value()) : scratch.input(x.value()));
    if (!result.requires_grad()) return Var<S, Device>(tape->input(result.take()));
    y = detail::share(result.take());
  }
  auto backward = [f, draws, kept = x.kept(), needs_x](auto& flow) {
    Tape<S, Device> again;
    again.repeat_draws(*draws);
    const auto input = needs_x ? again.variable(*kept.get()) : again.input(*kept.get());
    const auto output = f(input);
    again.backward(output, flow.take());
    if (needs_x) flow.add(0, again.gradient(input));
  };
  return record(std::move(y), {x}, std::move(backward), true);
}

}  // namespace lowrank::inline LOWRANK_ABI
