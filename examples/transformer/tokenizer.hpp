#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/io/gguf.hpp>

#include <transformer/tokenizer/data.hpp>
#include <transformer/tokenizer/merge.hpp>

namespace transformer {

/// What a text is where it stands, and so what belongs around it.
enum class TextPart {
  inner,   ///< the text alone
  prompt,  ///< to be continued: the first token in front, never a last one
  whole,   ///< from beginning to end: the first token in front, and the last one where the file puts one behind every text
  closed   ///< whole, and closed by end of text even where the file asks for none: what a model is to learn to end
};

/// What becomes of a special token (end of text, a role of a chat) that a text spells out.
enum class SpelledTokens { text, tokens };

/// How a text is encoded; ranges are bytes of the text.
struct EncodeOptions {
  TextPart part = TextPart::whole;
  SpelledTokens spelled = SpelledTokens::text;
  std::span<const TextRange> marks = {};    ///< tokens that reach into them are marked
  std::span<const TextRange> literal = {};  ///< hold no special token in any case
};

/// The tokens of a text.
struct Encoded {
  std::vector<std::int32_t> ids;
  std::vector<bool> marked;                   ///< of each token
  bool spelled_first = false;                 ///< the text itself spelled the first token out, which is there once
  bool spelled_last = false;                  ///< likewise the last one
  std::optional<std::int32_t> spelled_inner;  ///< a special token that the text spells out elsewhere and that stayed text
};

/// Text to tokens and back: byte pair encoding as the model's files describe it.
///
/// encode() finds added tokens (chat markers, end of text), normalizes what lies between, cuts it with the pre-tokenizer's patterns and
/// merges each piece. Any bytes may come in: what is not UTF-8 is merged byte by byte; a byte that the vocabulary has no token for becomes
/// the unknown token, or nothing where there is none (as in the reference implementations). A const tokenizer may be used by many threads.
class Tokenizer {
 public:
  /// Throws FormatError when the parts do not fit together.
  explicit Tokenizer(TokenizerData data);

  /// From the metadata of a GGUF file (`tokenizer.ggml.*`). Throws FormatError.
  static Tokenizer from_gguf(const lowrank::gguf::File& file);
  /// From tokenizer.json, with tokenizer_config.json and its companions where they exist. Throws IoError, FormatError.
  static Tokenizer from_folder(const std::filesystem::path& folder);

  /// The ids of a text, with what its part asks for around it. A first or last token that the text spells out itself is there once.
  /// Cost: O(n log n).
  std::vector<std::int32_t> encode(std::string_view text, TextPart part = TextPart::whole,
                                   SpelledTokens spelled = SpelledTokens::text) const {
    return encode_text(text, {part, spelled}).ids;
  }

  /// The same with marks: a text is one text however many parts it is put together from, and a token across the border of a mark is marked.
  /// A mark up to the end of the text takes the last token with it. Cost: O(n log n) for each border of a mark besides.
  Encoded encode_text(std::string_view text, const EncodeOptions& options) const;

  /// The bytes of a text; valid UTF-8 only if the ids are. Throws ValueError for an id outside [0, vocab_size).
  std::string decode(std::span<const std::int32_t> ids) const;

  /// The bytes that a token stands for. Throws ValueError.
  const std::string& token_text(std::int32_t id) const;

  std::int32_t vocab_size() const { return static_cast<std::int32_t>(bytes_.size()); }
  std::optional<std::int32_t> bos() const { return data_.bos; }
  /// The tokens that end a generated text, end of text and end of turn; first the one that the file names.
  const std::vector<std::int32_t>& eos() const { return data_.ends; }
  bool is_eos(std::int32_t id) const;
  /// The token with that text, special or not.
  std::optional<std::int32_t> find(std::string_view text) const;
  /// The special tokens' texts.
  std::vector<std::string> special_tokens() const;
  /// The model's chat template in Jinja, as the file has it, or nothing. ChatTemplate runs it.
  const std::string& chat_template() const { return data_.chat_template; }
  /// Decoding takes away one leading blank that encoding put there.
  bool strips_leading_space() const { return data_.strip_leading_space; }

 private:
  void check_ids() const;
  void collect_tokens();
  void collect_merges();
  std::string bytes_of(std::size_t id, bool verbatim) const;
  std::string spelling(std::span<const std::int32_t> ids) const;
  std::span<const std::int32_t> first_tokens(TextPart part) const;
  std::span<const std::int32_t> last_tokens(TextPart part) const;
  void append_text(std::string_view text, const SpecialPlaces& special, std::vector<std::int32_t>& ids) const;
  std::size_t decoded_bytes(std::string_view text, const SpecialPlaces& special) const;
  void mark_tokens(std::string_view text, const SpecialPlaces& special, const TextRange& range, std::size_t first, Encoded& encoded) const;
  std::vector<Symbol> symbols_of(std::string_view piece) const;
  void append_character(std::string_view piece, std::size_t begin, std::size_t length, std::vector<Symbol>& symbols) const;
  void append_piece(std::string_view piece, std::vector<std::int32_t>& ids) const;
  void append_fallback(std::string_view text, std::vector<std::int32_t>& ids) const;

  TokenizerData data_;
  std::vector<std::string> bytes_;  // what each token stands for
  TokenMap ids_;                    // of the tokens that merges work on, by bytes (byte_pairs) or spelling
  TokenMap added_ids_;
  std::array<std::int32_t, 256> byte_ids_{};  // the token of a byte, or -1
  std::size_t longest_ = 0;                   // bytes of the longest key of ids_
  MergeTable merges_;
  AddedTokens added_, added_normalized_;
};

/// Decodes a stream of tokens into text that is valid UTF-8 at every moment.
///
/// A character whose bytes are spread over several tokens appears with the last of them; bytes that can be no character appear as U+FFFD.
class StreamDecoder {
 public:
  /// `continues`: other text came before, so a leading blank stays.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool continues = false)
      : tokenizer_(&tokenizer), strip_(tokenizer.strips_leading_space() && !continues) {}

  /// The text that this token completes, often empty.
  std::string push(std::int32_t id);

  /// What was held back, at the end of the stream.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool strip_;
  std::string held_;  // the beginning of a character: 3 bytes at most
};

}  // namespace transformer
