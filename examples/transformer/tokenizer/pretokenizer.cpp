#include <transformer/tokenizer/pretokenizer.hpp>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <utility>

#include <transformer/tokenizer/utf8.hpp>

namespace transformer {

namespace {

/// A stretch of a piece, and whether the pattern matched it.
struct Part {
  std::size_t begin, end;
  bool match;
};

/// Joins neighbours as the behavior says.
void join(std::vector<Part>& parts, SplitBehavior behavior) {
  if (behavior == SplitBehavior::isolated || behavior == SplitBehavior::removed) return;
  const bool backwards = behavior == SplitBehavior::merged_with_next;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<Part> joined;
  bool previous = false;
  for (const Part& part : parts) {
    const bool merges = behavior == SplitBehavior::contiguous ? part.match == previous : part.match && !previous;
    if (!merges || joined.empty())
      joined.push_back(part);
    else if (backwards)
      joined.back().begin = part.begin;
    else
      joined.back().end = part.end;
    previous = part.match;
  }
  if (backwards) std::reverse(joined.begin(), joined.end());
  parts.swap(joined);
}

/// Offsets into the names become offsets into the bytes: one name is one byte.
void to_byte_offsets(std::string_view names, std::vector<Part>& parts) {
  std::size_t position = 0, byte = 0;
  const auto advance = [&](std::size_t target) {
    while (position < target) {
      position += utf8_step(names, position).length;
      ++byte;
    }
    return byte;
  };
  for (Part& part : parts) {
    part.begin = advance(part.begin);
    part.end = advance(part.end);
  }
}

}  // namespace

void PreTokenizer::add_split(Pattern pattern, SplitBehavior behavior, bool invert) {
  Step step{Step::Kind::split, std::move(pattern), behavior, invert, byte_level_, {}};
  steps_.push_back(std::move(step));
}

void PreTokenizer::add_prefix(std::string prefix, bool first_only) {
  steps_.push_back({Step::Kind::prefix, {}, SplitBehavior::isolated, first_only, byte_level_, std::move(prefix)});
}

void PreTokenizer::add_replacement(std::string from, std::string to) {
  Normalizer replacement;
  replacement.add_replacement(std::move(from), std::move(to));
  steps_.push_back({Step::Kind::replacement, {}, SplitBehavior::isolated, false, byte_level_, {}, std::move(replacement)});
}

void PreTokenizer::split(std::string_view text, bool begins_text, const std::function<void(std::string_view)>& visit) const {
  while (!text.empty()) {
    const std::size_t valid = valid_utf8_length(text);
    if (valid > 0) split_valid(text.substr(0, valid), begins_text, visit);
    text.remove_prefix(valid);
    begins_text = false;
    std::size_t broken = 0;
    while (broken < text.size()) {
      const Utf8Step step = utf8_step(text, broken);
      if (step.kind == Utf8Step::Kind::valid) break;
      broken += step.length;
    }
    if (broken > 0) visit(text.substr(0, broken));
    text.remove_prefix(broken);
  }
}

void PreTokenizer::split_valid(std::string_view text, bool begins_text, const std::function<void(std::string_view)>& visit) const {
  std::deque<std::string> owned;  // texts that a step made; pieces point into them
  std::vector<std::string_view> pieces{text}, next;
  for (const Step& step : steps_) {
    next.clear();
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (step.kind == Step::Kind::split) {
        apply_split(step, pieces[i], next);
      } else if (step.kind == Step::Kind::replacement) {
        next.push_back(owned.emplace_back(step.replace(pieces[i])));
      } else if ((step.flag && !(begins_text && i == 0)) || pieces[i].starts_with(step.prefix)) {
        next.push_back(pieces[i]);
      } else {
        next.push_back(owned.emplace_back(step.prefix + std::string(pieces[i])));
      }
    }
    pieces.swap(next);
  }
  for (const std::string_view piece : pieces) visit(piece);
}

void PreTokenizer::apply_split(const Step& step, std::string_view piece, std::vector<std::string_view>& out) {
  const std::string names = step.on_byte_names ? byte_names().encode(piece) : std::string();
  const std::string_view subject = step.on_byte_names ? std::string_view(names) : piece;
  std::vector<Part> parts;
  std::size_t end = 0;
  step.pattern->for_each_match(subject, [&](std::size_t match_begin, std::size_t match_end) {
    if (end != match_begin) parts.push_back({end, match_begin, step.flag});
    parts.push_back({match_begin, match_end, !step.flag});
    end = match_end;
  });
  if (end != subject.size()) parts.push_back({end, subject.size(), step.flag});
  join(parts, step.behavior);
  if (step.on_byte_names) to_byte_offsets(names, parts);
  for (const Part& part : parts)
    if (part.begin != part.end && !(step.behavior == SplitBehavior::removed && part.match))
      out.push_back(piece.substr(part.begin, part.end - part.begin));
}

}  // namespace transformer
