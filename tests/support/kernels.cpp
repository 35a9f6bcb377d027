// The kernels of every target, compiled once for all units that are built with LOWRANK_SEPARATE_KERNELS.
#include <lowrank/kernels/tables.hpp>
