#pragma once

/// What takes a compiler long and is no template: the kernels of every target. A program of many units may define LOWRANK_SEPARATE_KERNELS
/// for all of them, and include this header in one, which then holds that code for all.

#include <lowrank/kernels/target/quantize_tables.hpp>
#include <lowrank/kernels/target/tables.hpp>
