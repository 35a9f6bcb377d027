#pragma once

/// The library, from the bottom layer up: quantized weights, products, layers, autograd, optimizers. What costs a compiler more is asked
/// for by name: adapters.hpp (their algebra), io.hpp (files), cuda.hpp.

#include <lowrank/config.hpp>
#include <lowrank/error.hpp>

#include <lowrank/core/buffer.hpp>
#include <lowrank/core/device.hpp>
#include <lowrank/core/matrix.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/random.hpp>
#include <lowrank/core/types.hpp>

#include <lowrank/quant.hpp>

#include <lowrank/ops/activation.hpp>
#include <lowrank/ops/attention.hpp>
#include <lowrank/ops/embedding.hpp>
#include <lowrank/ops/loss.hpp>
#include <lowrank/ops/norm.hpp>
#include <lowrank/product/multiply.hpp>
#include <lowrank/ops/rope.hpp>

#include <lowrank/autograd.hpp>
#include <lowrank/update.hpp>

#include <lowrank/nn.hpp>
#include <lowrank/optim.hpp>
