#pragma once

/// Storage in few bits: formats, quantize, dequantize, error.

#include <lowrank/quant/any_matrix.hpp>
#include <lowrank/quant/dequantize.hpp>
#include <lowrank/quant/error.hpp>
#include <lowrank/quant/fp4.hpp>
#include <lowrank/quant/ggml_formats.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/quantized_matrix.hpp>
