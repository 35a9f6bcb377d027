#pragma once

/// Storage in few bits: formats, quantize, dequantize, error.

#include <lowrank/quant/any_matrix.hpp>
#include <lowrank/quant/dequantize.hpp>
#include <lowrank/quant/error.hpp>
#include <lowrank/quant/fp4.hpp>
#include <lowrank/quant/iq4.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/mxfp4.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q4_0.hpp>
#include <lowrank/quant/q4_1.hpp>
#include <lowrank/quant/q4_k.hpp>
#include <lowrank/quant/q5.hpp>
#include <lowrank/quant/q6_k.hpp>
#include <lowrank/quant/q8_0.hpp>
#include <lowrank/quant/quantized_matrix.hpp>
