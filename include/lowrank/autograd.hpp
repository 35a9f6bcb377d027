#pragma once

/// Tape, variables and the operations on them.

#include <lowrank/autograd/arithmetic.hpp>
#include <lowrank/autograd/checkpoint.hpp>
#include <lowrank/autograd/functions.hpp>
#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/autograd/kept.hpp>
#include <lowrank/autograd/parameter.hpp>
#include <lowrank/autograd/tape.hpp>
#include <lowrank/autograd/var.hpp>
