#pragma once

/// Optimizers: AdamW, SGD, learning rate schedules, clipping.

#include <lowrank/optim/adamw.hpp>
#include <lowrank/optim/clip.hpp>
#include <lowrank/optim/schedule.hpp>
#include <lowrank/optim/sgd.hpp>
