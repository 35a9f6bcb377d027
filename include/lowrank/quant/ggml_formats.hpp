#pragma once

#include <string_view>
#include <tuple>

#include <lowrank/quant/iq1.hpp>
#include <lowrank/quant/iq2.hpp>
#include <lowrank/quant/iq3.hpp>
#include <lowrank/quant/iq4.hpp>
#include <lowrank/quant/mxfp4.hpp>
#include <lowrank/quant/nvfp4.hpp>
#include <lowrank/quant/q2_k.hpp>
#include <lowrank/quant/q3_k.hpp>
#include <lowrank/quant/q4_0.hpp>
#include <lowrank/quant/q4_1.hpp>
#include <lowrank/quant/q4_k.hpp>
#include <lowrank/quant/q5.hpp>
#include <lowrank/quant/q6_k.hpp>
#include <lowrank/quant/q8_0.hpp>
#include <lowrank/quant/ternary.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The block formats of ggml that are read: the one list of them. A new one is a header of its own and a line here.
using GgmlFormats = std::tuple<Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K, Iq1S, Iq1M, Iq2Xxs, Iq2Xs, Iq2S, Iq3Xxs, Iq3S, Iq4Nl,
                               Iq4Xs, Tq1, Tq2, Mxfp4, Nvfp4>;

/// Calls visit(Format()) for the format with that name in ggml, such as Q4_1; whether there is one.
template <class Visit>
bool visit_ggml_format(std::string_view name, const Visit& visit) {
  const auto visit_one_of = [&]<class... Formats>(const std::tuple<Formats...>*) {
    return ((Formats::name == name && (visit(Formats()), true)) || ...);
  };
  return visit_one_of(static_cast<const GgmlFormats*>(nullptr));
}

}  // namespace lowrank::inline LOWRANK_ABI
