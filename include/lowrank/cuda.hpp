#pragma once

/// NVIDIA GPUs. Kernels and their launches need nvcc (C++20, --expt-relaxed-constexpr, sm_80 or newer); any compiler may ask
/// cuda::is_available() and cuda::devices(), and pack matrices.

#include <lowrank/cuda/attention_launch.hpp>
#include <lowrank/cuda/device_matrix.hpp>
#include <lowrank/cuda/elementwise.hpp>
#include <lowrank/cuda/linear.hpp>
#include <lowrank/cuda/loss.hpp>
#include <lowrank/cuda/norm.hpp>
#include <lowrank/cuda/optim.hpp>
#include <lowrank/cuda/query.hpp>
#include <lowrank/cuda/runtime.hpp>
#include <lowrank/cuda/segments.hpp>
