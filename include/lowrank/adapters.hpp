#pragma once

/// Adapters: what they are, which modules they change, how they begin, and their algebra: sums, other ranks, differences of weights,
/// merging.

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/adapters/combine.hpp>
#include <lowrank/adapters/config.hpp>
#include <lowrank/adapters/eva.hpp>
#include <lowrank/adapters/initialize.hpp>
#include <lowrank/adapters/merge.hpp>
#include <lowrank/adapters/of_model.hpp>
#include <lowrank/adapters/path_pattern.hpp>
#include <lowrank/adapters/recompress.hpp>
#include <lowrank/adapters/residual_matrix.hpp>
#include <lowrank/adapters/spectrum.hpp>
#include <lowrank/adapters/target.hpp>
#include <lowrank/update/set.hpp>
