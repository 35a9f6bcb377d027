#pragma once

/// Adapters: what they are, which modules they change.

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/adapters/config.hpp>
#include <lowrank/adapters/path_pattern.hpp>
#include <lowrank/adapters/target.hpp>
