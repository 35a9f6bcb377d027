#pragma once

/// Files: safetensors, GGUF, adapters of PEFT, llama.cpp and mlx-lm, checkpoints of bitsandbytes, GPTQ and AWQ, the state of a run; a
/// model's weights by name. Needs nlohmann-json.

#include <lowrank/io/bitsandbytes.hpp>
#include <lowrank/io/bitsandbytes_write.hpp>
#include <lowrank/io/checkpoint.hpp>
#include <lowrank/io/finite.hpp>
#include <lowrank/io/gguf.hpp>
#include <lowrank/io/gguf_lora.hpp>
#include <lowrank/io/gguf_matrix.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/io/gptq.hpp>
#include <lowrank/io/imatrix.hpp>
#include <lowrank/io/mlx.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/io/safetensors_folder.hpp>
#include <lowrank/io/safetensors_matrix.hpp>
#include <lowrank/io/weights.hpp>
