#pragma once

/// Methods of adaptation: what each adds to a layer's product.

#include <lowrank/update/adalora.hpp>
#include <lowrank/update/any_update.hpp>
#include <lowrank/update/dora.hpp>
#include <lowrank/update/embedding.hpp>
#include <lowrank/update/entry.hpp>
#include <lowrank/update/fields.hpp>
#include <lowrank/update/hra.hpp>
#include <lowrank/update/ia3.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/lora.hpp>
#include <lowrank/update/lora_scale.hpp>
#include <lowrank/update/lora_xs.hpp>
#include <lowrank/update/method.hpp>
#include <lowrank/update/miss.hpp>
#include <lowrank/update/oft.hpp>
#include <lowrank/update/registry.hpp>
#include <lowrank/update/vera.hpp>
