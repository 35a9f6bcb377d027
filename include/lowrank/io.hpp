#pragma once

/// Files: safetensors, GGUF, PEFT adapters, bitsandbytes checkpoints. Needs nlohmann-json.

#include <lowrank/io/bitsandbytes.hpp>
#include <lowrank/io/finite.hpp>
#include <lowrank/io/gguf.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/safetensors.hpp>
