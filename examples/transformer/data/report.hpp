#pragma once

#include <string>
#include <vector>

#include <lowrank/core/types.hpp>

namespace transformer {

using lowrank::Index;

/// What became of a data file on its way to the model, so that nothing of it goes in silence.
struct DataReport {
  /// Records of which the same must be said; places are their numbers.
  struct Remark {
    std::string what;
    std::vector<Index> places;
  };

  std::string name, format, place;                          ///< place: what a number counts, "line" or "record"
  Index records = 0, sequences = 0, held_out = 0;           ///< held_out: of the sequences
  Index tokens = 0, predicted = 0;                          ///< tokens: of the texts, each once, however they are cut
  std::vector<Remark> left_out = {}, cut = {}, notes = {};  ///< notes: what went well though it is unusual
  std::vector<std::string> unused = {};                     ///< fields or columns that no record has a use for

  /// All of it in one line.
  std::string summary() const;
  /// A line for each note.
  std::vector<std::string> warnings() const;
  bool is_whole() const { return left_out.empty() && cut.empty() && unused.empty(); }
};

/// Adds a place to the remark with that text.
void remark(std::vector<DataReport::Remark>& remarks, const std::string& what, Index place);

}  // namespace transformer
