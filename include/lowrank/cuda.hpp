#pragma once

/// Var and Tape on an NVIDIA GPU, for any C++20 compiler: Array<float, Cuda>, the operations of autograd/functions.hpp on it, linear layers
/// with low-rank updates, losses, AdamW.
///
///   const auto gpu = cuda::open_gpu();   // from the one unit that nvcc compiled, see cuda/gpu.hpp
///   cuda::Use use(gpu);
///   Tape<float, Cuda> tape;
///   Var<float, Cuda> y = forward_together(layers, tape.input(cuda::DeviceActivation(x)))[0];
///
/// Parameters, weights and adapters stay the host's objects; each keeps a copy on the device, made when it is used there for the first time
/// (DeviceSlot). Trained numbers come back with DeviceAdamW::download(). Which GPUs there are any program may ask: cuda::is_available() and
/// cuda::devices().

#include <lowrank/autograd/checkpoint.hpp>
#include <lowrank/autograd/functions.hpp>
#include <lowrank/cuda/adamw.hpp>
#include <lowrank/cuda/layers.hpp>
#include <lowrank/cuda/loss.hpp>
#include <lowrank/cuda/ops.hpp>
#include <lowrank/cuda/query.hpp>
