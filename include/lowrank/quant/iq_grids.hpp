#pragma once

/// The grids of ggml's IQ formats: of all vectors of eight (or four) small numbers the ones that codes may stand for.

#include <cstdint>

#include <lowrank/config.hpp>

namespace lowrank::inline LOWRANK_ABI::quant {

/// Each is an array of `points` times `values` numbers, point by point, unpacked at its first use.
///
/// | grid | points | values | used by |
/// |---|---|---|---|
/// | iq1 | 2048 | 8 of {-1, 0, 1} | IQ1_S, IQ1_M |
/// | iq2_xxs, iq2_xs, iq2_s | 256, 512, 1024 | 8 of {8, 25, 43} | the format of that name |
/// | iq3_xxs | 256 | 4 of {4, 12, …, 52, 62} | IQ3_XXS |
/// | iq3_s | 512 | 4 of {1, 3, …, 15} | IQ3_S |
const std::int8_t* iq1_grid();
const std::int8_t* iq2_xxs_grid();  ///< See iq1_grid.
const std::int8_t* iq2_xs_grid();   ///< See iq1_grid.
const std::int8_t* iq2_s_grid();    ///< See iq1_grid.
const std::int8_t* iq3_xxs_grid();  ///< See iq1_grid.
const std::int8_t* iq3_s_grid();    ///< See iq1_grid.

}  // namespace lowrank::inline LOWRANK_ABI::quant

#if !defined(LOWRANK_COMPILED)
#include <lowrank/quant/iq_grids.inl>
#endif
