#pragma once

/// What adds to a layer's product: LoRA, DoRA and what a method must have. Other methods are included by name (update/vera.hpp …).

#include <lowrank/update/dora.hpp>
#include <lowrank/update/embedding.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/lora.hpp>
#include <lowrank/update/lora_scale.hpp>
#include <lowrank/update/method.hpp>
