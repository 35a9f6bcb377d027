#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <transformer/tokenizer/pretokenizer.hpp>

namespace transformer {

/// The splitting patterns of the models that GGUF files name in `tokenizer.ggml.pre`, as their makers' tokenizer.json has them.
namespace patterns {

inline constexpr std::string_view gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view digit = R"(\p{N})";
inline constexpr std::string_view three_digits = R"(\p{N}{1,3})";
inline constexpr std::string_view llama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view qwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view qwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view tekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|)"
    R"(\s+(?!\S)|\s+)";
inline constexpr std::string_view gpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view bloom = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
inline constexpr std::string_view symbols = R"([\p{P}$+<=>^~|]+)";  // what Falcon's converters call punctuation
inline constexpr std::string_view symbols_and_backtick = R"([\p{P}$+<=>^~|`]+)";
inline constexpr std::string_view ascii_triple = "[0-9][0-9][0-9]";
inline constexpr std::string_view line_break = R"([\r\n])";
inline constexpr std::string_view hangul_and_han = "[一-龥ࠀ-一가-퟿]+";
inline constexpr std::string_view han_and_kana = "[一-龥぀-ゟ゠-ヿ]+";
// Letters with case, range by range; a blank may lead.
inline constexpr std::string_view deepseek_letters =
    R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼ)"
    R"(ℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)";
inline constexpr std::string_view deepseek_marks = R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)";
inline constexpr std::string_view deepseek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace patterns

/// A pre-tokenizer that GGUF files know by name, and the habits that go with it.
struct NamedPreTokenizer {
  std::vector<std::string_view> names;
  std::vector<std::string_view> splits;  ///< applied one after the other, matches isolated
  bool ignore_merges = false;            ///< a piece that is a token stays whole even where merges would not build it
  bool adds_bos = false;                 ///< unless the file says otherwise
};

inline const std::vector<NamedPreTokenizer>& named_pretokenizers() {
  using namespace patterns;
  static const std::vector<NamedPreTokenizer> table{
      {{"default"}, {symbols, gpt2, R"(\p{N}+)", ascii_triple}},
      {{"gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat", "mellum", "a.x-4.0"},
       {gpt2}},
      {{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}, {digit, gpt2}},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0"}, {llama3}, true, true},
      {{"dbrx", "smaug-bpe", "chatglm-bpe", "glm4"}, {llama3}},
      {{"qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan", "kormo", "solar-open", "grok-2"}, {qwen2}},
      {{"qwen35"}, {qwen35}},
      {{"tekken"}, {tekken}, true, true},
      {{"gpt-4o", "llama4", "kanana2", "minimax-m2"}, {gpt4o}},
      {{"deepseek-llm"}, {line_break, deepseek_letters, deepseek_marks, R"(\s+$)", hangul_and_han, R"(\p{N}+)"}},
      {{"deepseek-coder"}, {line_break, R"(\s?\p{L}+)", R"(\s?\p{P}+)", hangul_and_han, digit}},
      {{"deepseek-v3", "hunyuan-dense", "joyai-llm"}, {three_digits, han_and_kana, deepseek3}},
      {{"falcon"}, {symbols_and_backtick, gpt2, ascii_triple}},
      {{"bloom", "poro-chat", "gpt3-finnish"}, {bloom}},
      {{"viking"}, {bloom, digit}},
  };
  return table;
}

/// The entry with that name. Throws FormatError that lists every name known.
inline const NamedPreTokenizer& named_pretokenizer(std::string_view name) {
  std::string known;
  for (const NamedPreTokenizer& entry : named_pretokenizers()) {
    if (std::find(entry.names.begin(), entry.names.end(), name) != entry.names.end()) return entry;
    for (const std::string_view other : entry.names) known.append(known.empty() ? "" : ", ").append(other);
  }
  fail<FormatError>("tokenizer", "tokenizer.ggml.pre names the pre-tokenizer ", lowrank::name_text(name),
                    ", which is not known here; known are ", known);
}

}  // namespace transformer
