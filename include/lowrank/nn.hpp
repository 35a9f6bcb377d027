#pragma once

/// Layers: dense, frozen, quantized, adapted, embeddings.

#include <lowrank/nn/adapted.hpp>
#include <lowrank/nn/adapted_linear.hpp>
#include <lowrank/nn/any_linear.hpp>
#include <lowrank/nn/convolution.hpp>
#include <lowrank/nn/dora_linear.hpp>
#include <lowrank/nn/dropout.hpp>
#include <lowrank/nn/embedding.hpp>
#include <lowrank/nn/forward_together.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/linear_layer.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/nn/parameter.hpp>
#include <lowrank/nn/print.hpp>
#include <lowrank/nn/recorded_group.hpp>
#include <lowrank/nn/state.hpp>
#include <lowrank/nn/summary.hpp>
