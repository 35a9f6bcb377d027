// The kernels of every target and Eigen's decompositions, compiled once for all units that are built with LOWRANK_SEPARATE_KERNELS.
#include <lowrank/separate.hpp>
