#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/tensor.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One named array of a model's or an optimizer's state, where it lies: to be written to a file, or filled from one.
struct StateArray {
  std::string name;
  DType dtype;
  std::vector<Index> shape;
  std::span<std::byte> bytes;
  /// What is wrong with bytes that shall be put there, as a text, or null; no function where all bytes are right.
  const char* (*fault)(std::span<const std::byte>) = nullptr;

  /// The numbers. Throws ValueError unless T is what they are.
  template <class T>
  std::span<T> numbers() const {
    check<ValueError>(dtype == detail::dtype_of<T>(), "state", name, " holds ", dtype_name(dtype), " but ",
                      dtype_name(detail::dtype_of<T>()), " is asked for");
    return {reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
};

/// Refers to numbers of a state.
template <class T>
StateArray state_array(std::string name, std::span<T> numbers, std::vector<Index> shape) {
  return {std::move(name), detail::dtype_of<T>(), std::move(shape), std::as_writable_bytes(numbers)};
}
template <class T>
StateArray state_array(std::string name, T& number) {
  return state_array(std::move(name), std::span<T>(&number, 1), {});
}

}  // namespace lowrank::inline LOWRANK_ABI
