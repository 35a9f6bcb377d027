#pragma once

/// Tape, variables and the operations on them.

#include <lowrank/autograd/arithmetic.hpp>
#include <lowrank/autograd/broadcast.hpp>
#include <lowrank/autograd/checkpoint.hpp>
#include <lowrank/autograd/convolution.hpp>
#include <lowrank/autograd/elementwise.hpp>
#include <lowrank/autograd/functions.hpp>
#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/autograd/kept.hpp>
#include <lowrank/autograd/losses.hpp>
#include <lowrank/autograd/matmul.hpp>
#include <lowrank/autograd/norm.hpp>
#include <lowrank/autograd/parameter.hpp>
#include <lowrank/autograd/reduce.hpp>
#include <lowrank/autograd/shape.hpp>
#include <lowrank/autograd/tape.hpp>
#include <lowrank/autograd/var.hpp>
