#pragma once

/// Layers: dense, frozen, quantized, low-rank adapted, embeddings.

#include <lowrank/nn/adapted_linear.hpp>
#include <lowrank/nn/any_linear.hpp>
#include <lowrank/nn/dora.hpp>
#include <lowrank/nn/dora_linear.hpp>
#include <lowrank/nn/embedding.hpp>
#include <lowrank/nn/embedding_lora.hpp>
#include <lowrank/nn/forward_together.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/init.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/linear_layer.hpp>
#include <lowrank/nn/lora.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/nn/lora_scale.hpp>
#include <lowrank/nn/lora_weights.hpp>
#include <lowrank/nn/parameter.hpp>
#include <lowrank/nn/quantized_linear.hpp>
#include <lowrank/nn/update_ranges.hpp>
