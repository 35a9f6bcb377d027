#pragma once

/// A model's state as one safetensors file, with that of its optimizer: a program that is killed goes on to the same bits.

#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/io/safetensors.hpp>
#include <lowrank/nn/state.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Writes the arrays to a safetensors file, atomically. Throws IoError; then nothing has changed.
void save_state(const std::filesystem::path& file, std::span<const StateArray> arrays, const safetensors::Metadata& metadata = {});

/// The arrays and those of an optimizer, under "optimizer/".
template <class Optimizer>
std::vector<StateArray> with_optimizer(std::vector<StateArray> arrays, Optimizer& optimizer) {
  for (StateArray& array : optimizer.state()) {
    array.name = "optimizer/" + array.name;
    arrays.push_back(std::move(array));
  }
  return arrays;
}

/// Fills the arrays from a file. Throws FormatError, with a list of names, when the file lacks one of them, has one that is not among them
/// or one of another type or shape; IoError. Then nothing has changed.
///
/// Arrays of an optimizer may be left in the file, when none is among `arrays`: to serve what was trained.
void load_state(const std::filesystem::path& file, std::span<const StateArray> arrays);

namespace detail {

// What is on a GPU of the parameters is of before.
template <class Model>
void drop_copies(Model& model) {
  walk(model, [](const std::string&, auto& parameter) { parameter.device.drop(); });
}

}  // namespace detail

/// Saves a model's parameters, by path, and its dropouts' streams. Throws IoError; then nothing has changed.
template <class Model>
void save(Model& model, const std::filesystem::path& file, const StateOptions& options = {}) {
  save_state(file, state(model, options));
}
/// The same with an optimizer: its moments, steps and learning rates, so also where a schedule stands.
template <class Model, class Optimizer>
requires requires(Optimizer& optimizer) { optimizer.state(); }
void save(Model& model, Optimizer& optimizer, const std::filesystem::path& file, const StateOptions& options = {}) {
  save_state(file, with_optimizer(state(model, options), optimizer));
}

/// Loads what save() wrote of a model built the same way; options must be those it was saved with.
///
///   if (std::filesystem::exists(file)) load(model, optimizer, file);
///   for (Index step = optimizer.steps(); step < steps; ++step) …
/// Throws FormatError with a list of missing, unexpected and misshapen names, IoError; then nothing has changed.
template <class Model>
void load(Model& model, const std::filesystem::path& file, const StateOptions& options = {}) {
  load_state(file, state(model, options));
  detail::drop_copies(model);
}
template <class Model, class Optimizer>
requires requires(Optimizer& optimizer) { optimizer.state(); }
void load(Model& model, Optimizer& optimizer, const std::filesystem::path& file, const StateOptions& options = {}) {
  load_state(file, with_optimizer(state(model, options), optimizer));
  detail::drop_copies(model);
}

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/checkpoint.inl>
#endif
