#pragma once

/// Version of the library and the name of its ABI.
///
/// Everything lives in `namespace lowrank::inline LOWRANK_ABI`. The name spells the version, the instruction sets that the unit was
/// compiled for and the macros that change a layout, so that two units compiled with other flags never share an inline function
/// (the linker would keep one of the two bodies); passing a lowrank type between such units is a link error that names the tag.

#define LOWRANK_VERSION_MAJOR 0
#define LOWRANK_VERSION_MINOR 1
#define LOWRANK_VERSION_PATCH 0

#define LOWRANK_ABI v0_1_0
