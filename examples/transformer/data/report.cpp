#include <transformer/data/report.hpp>

#include <algorithm>

#include <lowrank/error.hpp>
#include <lowrank/io/bytes.hpp>

namespace transformer {

namespace {

/// "lines 1, 2, 5", with a few numbers at most.
std::string places_text(const std::vector<Index>& places, const std::string& place) {
  constexpr std::size_t shown = 5;
  std::string text = place + (places.size() > 1 ? "s " : " ");
  for (std::size_t i = 0; i < std::min(places.size(), shown); ++i) text += lowrank::concat(i > 0 ? ", " : "", places[i]);
  if (places.size() > shown) text += lowrank::concat(" and ", places.size() - shown, " more");
  return text;
}

/// "; left out 3 (why: lines 1, 2, 5), 1 (another reason: line 4)".
std::string remarks_text(const char* head, const std::vector<DataReport::Remark>& remarks, const std::string& place) {
  std::string text;
  for (const auto& [what, places] : remarks)
    text += lowrank::concat(text.empty() ? head : ", ", places.size(), " (", what, ": ", places_text(places, place), ')');
  return text;
}

}  // namespace

void remark(std::vector<DataReport::Remark>& remarks, const std::string& what, Index place) {
  auto found = std::find_if(remarks.begin(), remarks.end(), [&](const auto& remark) { return remark.what == what; });
  if (found == remarks.end()) found = remarks.insert(found, {what, {}});
  found->places.push_back(place);
}

std::string DataReport::summary() const {
  std::string text = lowrank::concat(name, ": ", format, ", ", records, records == 1 ? " record, " : " records, ", tokens, " tokens in ",
                                     sequences, sequences == 1 ? " sequence" : " sequences");
  if (held_out > 0) text += lowrank::concat(" (", held_out, " held out)");
  text += lowrank::concat(", ", predicted, " to predict");
  text += remarks_text("; left out ", left_out, place) + remarks_text("; cut ", cut, place);
  for (std::size_t i = 0; i < unused.size(); ++i) text += (i == 0 ? "; not used: " : ", ") + lowrank::name_text(unused[i]);
  return text;
}

std::vector<std::string> DataReport::warnings() const {
  std::vector<std::string> lines;
  for (const auto& [what, places] : notes) lines.push_back(lowrank::concat(name, ' ', places_text(places, place), ": ", what));
  return lines;
}

}  // namespace transformer
