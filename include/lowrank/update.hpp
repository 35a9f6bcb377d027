#pragma once

/// Methods of adaptation: what each adds to a layer's product.

#include <lowrank/update/dora.hpp>
#include <lowrank/update/embedding.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/lora.hpp>
#include <lowrank/update/lora_scale.hpp>
#include <lowrank/update/method.hpp>
