#pragma once

/// Optimizers: AdamW (also with 8-bit state), Lion, SGD, learning rate schedules, clipping.

#include <lowrank/optim/adamw.hpp>
#include <lowrank/optim/adamw8bit.hpp>
#include <lowrank/optim/clip.hpp>
#include <lowrank/optim/lion.hpp>
#include <lowrank/optim/schedule.hpp>
#include <lowrank/optim/sgd.hpp>
