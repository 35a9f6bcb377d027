#include <transformer/tokenizer.hpp>

#include <algorithm>

#include <lowrank/error.hpp>
#include <lowrank/io/bytes.hpp>

#include <transformer/tokenizer/from_folder.hpp>
#include <transformer/tokenizer/from_gguf.hpp>
#include <transformer/tokenizer/utf8.hpp>

namespace transformer {

using lowrank::check;
using lowrank::FormatError;

Tokenizer::Tokenizer(TokenizerData data) : data_(std::move(data)) {
  check_ids();
  collect_tokens();
  if (data_.model != TokenizerModel::scored_pairs) collect_merges();
  data_.tokens = {};
  data_.kinds = {};
  data_.added = {};
  // Each once; the first, which the file names as end of text, stays first.
  std::vector<std::int32_t> ends;
  for (const std::int32_t id : data_.ends)
    if (std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  data_.ends = std::move(ends);
}

void Tokenizer::check_ids() const {
  const std::size_t size = data_.tokens.size();
  check<FormatError>(size > 0 && size <= 1u << 24, "tokenizer", "the vocabulary has ", size, " tokens; 1 to 2^24 are possible");
  check<FormatError>(data_.kinds.empty() || data_.kinds.size() == size, "tokenizer", "the vocabulary has ", size, " tokens but ",
                     data_.kinds.size(), " token types; each token needs one");
  check<FormatError>(data_.scores.size() == size || data_.model != TokenizerModel::scored_pairs, "tokenizer", "the vocabulary has ", size,
                     " tokens but ", data_.scores.size(), " scores; each token needs one");
  const auto inside = [&](std::int32_t id, std::string_view what) {
    check<FormatError>(id >= 0 && static_cast<std::size_t>(id) < size, "tokenizer", "the ", what, " token is ", id,
                       " but the vocabulary has ", size, " tokens");
  };
  if (data_.bos) inside(*data_.bos, "first");
  if (data_.unknown) inside(*data_.unknown, "unknown");
  for (const std::int32_t id : data_.ends) inside(id, "end-of-text");
  for (const std::int32_t id : data_.prefix) inside(id, "first");
  for (const std::int32_t id : data_.suffix) inside(id, "last");
  for (const AddedToken& token : data_.added) inside(token.id, "added");
  for (const float score : data_.scores) check<FormatError>(score == score, "tokenizer", "a token's score is not a number");
}

/// The bytes of a token; a verbatim one (added, control) is spelled as it is.
std::string Tokenizer::bytes_of(std::size_t id, bool verbatim) const {
  const std::string& text = data_.tokens[id];
  if (verbatim) return text;
  if (data_.model == TokenizerModel::byte_pairs) {
    std::string bytes;
    return byte_names().decode(text, bytes) ? bytes : text;
  }
  if (const auto byte = fallback_byte(text)) return std::string(1, static_cast<char>(*byte));
  Normalizer blanks;
  blanks.add_replacement("▁", " ");
  return blanks(text);
}

void Tokenizer::collect_tokens() {
  const std::size_t size = data_.tokens.size();
  std::vector<bool> verbatim(size);
  for (std::size_t id = 0; id < data_.kinds.size(); ++id)
    verbatim[id] =
        data_.kinds[id] == TokenKind::control || data_.kinds[id] == TokenKind::user_defined || data_.kinds[id] == TokenKind::unknown;
  for (const AddedToken& token : data_.added) {
    verbatim[static_cast<std::size_t>(token.id)] = true;
    added_ids_.try_emplace(token.text, token.id);
    AddedToken sought = token;
    if (token.normalized && !data_.normalizer.empty()) {
      sought.text = data_.normalizer(token.text);
      added_normalized_.add(std::move(sought));
    } else {
      added_.add(std::move(sought));
    }
  }
  byte_ids_.fill(-1);
  TokenMap spellings;
  bytes_.reserve(size);
  for (std::size_t id = 0; id < size; ++id) {
    const std::string& text = data_.tokens[id];
    bytes_.push_back(bytes_of(id, verbatim[id]));
    if (text.empty()) continue;
    const auto [first, fresh] = spellings.try_emplace(text, static_cast<std::int32_t>(id));
    check<FormatError>(fresh, "tokenizer", "tokens ", first->second, " and ", id, " are both ", lowrank::name_text(text),
                       "; every token must differ");
    // Merges work on the file's spellings, so a special token that merges happen to build counts too, as in the reference.
    std::string bytes;
    const bool has_bytes = data_.model == TokenizerModel::byte_pairs && byte_names().decode(text, bytes);
    if (data_.model == TokenizerModel::byte_pairs && !has_bytes) continue;
    const std::string& key = has_bytes ? bytes : text;
    ids_.try_emplace(key, static_cast<std::int32_t>(id));
    longest_ = std::max(longest_, key.size());
    if (has_bytes && bytes.size() == 1) byte_ids_[static_cast<unsigned char>(bytes[0])] = static_cast<std::int32_t>(id);
    const auto byte = fallback_byte(text);
    if (byte && data_.model != TokenizerModel::byte_pairs) byte_ids_[*byte] = static_cast<std::int32_t>(id);
  }
}

void Tokenizer::collect_merges() {
  TokenMap spellings;
  for (std::size_t id = 0; id < data_.tokens.size(); ++id) spellings.try_emplace(data_.tokens[id], static_cast<std::int32_t>(id));
  const auto id_of = [&](const std::string& token, std::size_t line) {
    const auto found = spellings.find(token);
    check<FormatError>(!token.empty() && found != spellings.end(), "tokenizer", "merge ", line, " needs the token ",
                       lowrank::name_text(token), ", which the vocabulary of ", data_.tokens.size(), " does not have");
    return found->second;
  };
  merges_.reserve(data_.merges.size());
  for (std::size_t i = 0; i < data_.merges.size(); ++i) {
    const auto& [left, right] = data_.merges[i];
    const std::int32_t left_id = id_of(left, i), right_id = id_of(right, i);
    merges_.add(left_id, right_id, {static_cast<double>(i), id_of(left + right, i)});
  }
  data_.merges = {};
}

std::optional<std::int32_t> Tokenizer::find(std::string_view text) const {
  if (const auto added = added_ids_.find(text); added != added_ids_.end()) return added->second;
  if (const auto token = ids_.find(text); token != ids_.end()) return token->second;
  return std::nullopt;
}

std::span<const std::int32_t> Tokenizer::first_tokens(TextPart part) const {
  return part == TextPart::inner ? std::span<const std::int32_t>() : data_.prefix;
}

std::span<const std::int32_t> Tokenizer::last_tokens(TextPart part) const {
  if (part == TextPart::inner || part == TextPart::prompt) return {};
  if (!data_.suffix.empty() || part == TextPart::whole || data_.ends.empty()) return data_.suffix;
  return std::span(data_.ends).first(1);
}

std::string Tokenizer::spelling(std::span<const std::int32_t> ids) const {
  std::string text;
  for (const std::int32_t id : ids) text += token_text(id);
  return text;
}

Encoded Tokenizer::encode_text(std::string_view text, const EncodeOptions& options) const {
  const auto first = first_tokens(options.part), last = last_tokens(options.part);
  const std::string first_text = spelling(first), last_text = spelling(last);
  Encoded result{{first.begin(), first.end()}, {}, !first_text.empty() && text.starts_with(first_text), false, {}};
  const std::size_t removed = result.spelled_first ? first_text.size() : 0;
  std::string_view body = text.substr(removed);
  result.spelled_last = !last_text.empty() && body.ends_with(last_text);
  if (result.spelled_last) body.remove_suffix(last_text.size());
  const auto in_body = [&](const TextRange& range) {
    const auto place = [&](std::size_t position) { return position < removed ? 0 : std::min(position - removed, body.size()); };
    return TextRange(place(range.first), place(range.second));
  };
  std::vector<TextRange> literal;
  for (const TextRange& range : options.literal) literal.push_back(in_body(range));
  const SpecialPlaces special{options.spelled == SpelledTokens::tokens, literal};
  append_text(body, special, result.ids);
  result.marked.resize(result.ids.size());
  for (const TextRange& range : options.marks) mark_tokens(body, special, in_body(range), first.size(), result);
  const bool to_end =
      std::any_of(options.marks.begin(), options.marks.end(), [&](const TextRange& range) { return range.second >= text.size(); });
  result.ids.insert(result.ids.end(), last.begin(), last.end());
  result.marked.resize(result.ids.size(), to_end);
  const AddedToken* spelled = special.allowed ? nullptr : added_.first_special(body);
  if (spelled == nullptr && !special.allowed) spelled = added_normalized_.first_special(body);
  if (spelled != nullptr) result.spelled_inner = spelled->id;
  return result;
}

/// Marks the tokens, from `first` on, that reach into a range of the text: compared where decoding puts both.
void Tokenizer::mark_tokens(std::string_view text, const SpecialPlaces& special, const TextRange& range, std::size_t first,
                            Encoded& encoded) const {
  const std::size_t begin = decoded_bytes(text.substr(0, range.first), special);
  const std::size_t end = range.second == text.size() ? std::string::npos : decoded_bytes(text.substr(0, range.second), special);
  std::size_t token_begin = 0;
  for (std::size_t i = first; i < encoded.ids.size(); ++i) {
    const std::size_t token_end = token_begin + bytes_[static_cast<std::size_t>(encoded.ids[i])].size();
    if (token_end > begin && token_begin < end) encoded.marked[i] = true;
    token_begin = token_end;
  }
}

/// The bytes that the tokens of a text stand for: where in decoded text what follows it begins, however the text was normalized.
std::size_t Tokenizer::decoded_bytes(std::string_view text, const SpecialPlaces& special) const {
  std::vector<std::int32_t> ids;
  append_text(text, special, ids);
  std::size_t count = 0;
  for (const std::int32_t id : ids) count += bytes_[static_cast<std::size_t>(id)].size();
  return count;
}

void Tokenizer::append_text(std::string_view text, const SpecialPlaces& special, std::vector<std::int32_t>& ids) const {
  for (const AddedTokens::Segment& outer : added_.split(text, special)) {
    if (outer.id >= 0) {
      ids.push_back(outer.id);
      continue;
    }
    const std::string plain = data_.normalizer(text.substr(outer.begin, outer.end - outer.begin));
    for (const AddedTokens::Segment& inner : added_normalized_.split(plain, {special.hold(outer.begin, outer.end)})) {
      if (inner.id >= 0)
        ids.push_back(inner.id);
      else
        data_.pre.split(std::string_view(plain).substr(inner.begin, inner.end - inner.begin), outer.begin == 0 && inner.begin == 0,
                        [&](std::string_view piece) { append_piece(piece, ids); });
    }
  }
}

std::vector<Symbol> Tokenizer::symbols_of(std::string_view piece) const {
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  if (data_.model == TokenizerModel::byte_pairs) {
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const std::int32_t id = byte_ids_[static_cast<unsigned char>(piece[i])];
      if (id >= 0)
        symbols.push_back({i, i + 1, id});
      else if (data_.unknown && !(data_.fuse_unknown && !symbols.empty() && symbols.back().id == *data_.unknown))
        symbols.push_back({i, i + 1, *data_.unknown});
    }
    return symbols;
  }
  for (std::size_t i = 0; i < piece.size();) {
    const std::size_t length = utf8_step(piece, i).length;
    append_character(piece, i, length, symbols);
    i += length;
  }
  return symbols;
}

void Tokenizer::append_character(std::string_view piece, std::size_t begin, std::size_t length, std::vector<Symbol>& symbols) const {
  const auto found = ids_.find(piece.substr(begin, length));
  if (found != ids_.end() || data_.model == TokenizerModel::scored_pairs) {
    symbols.push_back({begin, begin + length, found == ids_.end() ? -1 : found->second});
    return;
  }
  const auto has_byte = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)] >= 0; };
  const std::string_view character = piece.substr(begin, length);
  if (data_.byte_fallback && std::all_of(character.begin(), character.end(), has_byte)) {
    for (std::size_t i = begin; i < begin + length; ++i) symbols.push_back({i, i + 1, byte_ids_[static_cast<unsigned char>(piece[i])]});
  } else if (data_.unknown && !(data_.fuse_unknown && !symbols.empty() && symbols.back().id == *data_.unknown)) {
    symbols.push_back({begin, begin + length, *data_.unknown});
  }
}

void Tokenizer::append_piece(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (data_.ignore_merges)
    if (const auto whole = ids_.find(piece); whole != ids_.end()) return ids.push_back(whole->second);
  std::vector<Symbol> symbols = symbols_of(piece);
  if (data_.model != TokenizerModel::scored_pairs) {
    symbols = merge_symbols(std::move(symbols), [&](const Symbol& left, const Symbol& right) { return merges_.find(left.id, right.id); });
    for (const Symbol& symbol : symbols) ids.push_back(symbol.id);
    return;
  }
  symbols = merge_symbols(std::move(symbols), [&](const Symbol& left, const Symbol& right) -> std::optional<Merge> {
    if (right.end - left.begin > longest_) return std::nullopt;
    const auto found = ids_.find(piece.substr(left.begin, right.end - left.begin));
    if (found == ids_.end()) return std::nullopt;
    return Merge{-static_cast<double>(data_.scores[static_cast<std::size_t>(found->second)]), found->second};
  });
  for (const Symbol& symbol : symbols) {
    if (symbol.id >= 0)
      ids.push_back(symbol.id);
    else
      append_fallback(piece.substr(symbol.begin, symbol.end - symbol.begin), ids);
  }
}

void Tokenizer::append_fallback(std::string_view text, std::vector<std::int32_t>& ids) const {
  for (const char byte : text) {
    const std::int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
    if (id >= 0)
      ids.push_back(id);
    else if (data_.unknown)
      ids.push_back(*data_.unknown);
  }
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string text;
  for (const std::int32_t id : ids) text += token_text(id);
  if (data_.strip_leading_space && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

Tokenizer Tokenizer::from_gguf(const lowrank::gguf::File& file) { return Tokenizer(tokenizer_data_from_gguf(file)); }

Tokenizer Tokenizer::from_folder(const std::filesystem::path& folder) { return Tokenizer(tokenizer_data_from_folder(folder)); }

std::vector<std::string> Tokenizer::special_tokens() const {
  std::vector<std::string> texts = added_.special();
  const std::vector<std::string> normalized = added_normalized_.special();
  texts.insert(texts.end(), normalized.begin(), normalized.end());
  return texts;
}

bool Tokenizer::is_eos(std::int32_t id) const { return std::find(data_.ends.begin(), data_.ends.end(), id) != data_.ends.end(); }

const std::string& Tokenizer::token_text(std::int32_t id) const {
  check<lowrank::ValueError>(id >= 0 && id < vocab_size(), "tokenizer", "token ", id, " is not in the vocabulary of ", vocab_size());
  return bytes_[static_cast<std::size_t>(id)];
}

std::string StreamDecoder::push(std::int32_t id) {
  std::string_view bytes = tokenizer_->token_text(id);
  if (strip_ && !bytes.empty()) {
    if (bytes.front() == ' ') bytes.remove_prefix(1);
    strip_ = false;
  }
  held_ += bytes;
  std::size_t whole = 0;
  while (whole < held_.size()) {
    const Utf8Step step = utf8_step(held_, whole);
    if (step.kind == Utf8Step::Kind::incomplete) break;
    whole += step.length;
  }
  std::string text = replace_invalid_utf8(std::string_view(held_).substr(0, whole));
  held_.erase(0, whole);
  return text;
}

std::string StreamDecoder::finish() { return replace_invalid_utf8(std::exchange(held_, {})); }

}  // namespace transformer
