#include <transformer/tokenizer/regex.hpp>

#include <cstdint>
#include <new>
#include <utility>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <lowrank/error.hpp>
#include <lowrank/io/bytes.hpp>

namespace transformer {

using lowrank::check;
using lowrank::FormatError;

namespace {

/// Spells a pattern of the tokenizers world (Oniguruma) so that PCRE2 means the same by it.
class PatternTranslator {
 public:
  explicit PatternTranslator(std::string_view pattern) : pattern_(pattern) {}

  std::string operator()() {
    if (pattern_.starts_with("(*")) refuse("a verb (*…)");
    while (position_ < pattern_.size()) {
      if (at(0) == '\\')
        escape();
      else if (in_class_)
        class_member();
      else if (at(0) == '[')
        begin_class();
      else if (at(0) == '}' && at(1) == '+')
        refuse("a possessive interval {…}+");
      else
        copy(1);
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    lowrank::fail<FormatError>("tokenizer", "the pattern ", lowrank::name_text(pattern_), " uses ", what,
                               ", which this tokenizer cannot match as its makers meant it");
  }
  char at(std::size_t ahead) const { return position_ + ahead < pattern_.size() ? pattern_[position_ + ahead] : '\0'; }
  void copy(std::size_t count) {
    result_ += pattern_.substr(position_, count);
    position_ += count;
  }

  void escape() {
    switch (at(1)) {
      case 's':
      case 'S':
        return put_class(R"(\p{Z}\x09-\x0D\x{85})");
      case 'w':
      case 'W':
        return put_class(R"(\p{L}\p{M}\p{Nd}\p{Pc})");
      case 'h':
      case 'H':
        return put_class("0-9A-Fa-f");
      case 'p':
      case 'P':
      case 'x': {  // \p{Name} and \x{2028} are copied whole
        const std::size_t end = at(2) == '{' ? pattern_.find('}', position_) : std::string_view::npos;
        return copy(end == std::string_view::npos ? 2 : end + 1 - position_);
      }
      case '\0':
        refuse("a backslash at its end");
      default:
        if (std::string_view("KGXRyYQC").find(at(1)) != std::string_view::npos) refuse(std::string("\\") + at(1));
        copy(2);
    }
  }

  /// The class of an escape; a capital letter is its negation.
  void put_class(std::string_view members) {
    const bool negated = at(1) < 'a';
    if (in_class_ && negated) refuse("\\S, \\W or \\H inside a class");
    result_ += in_class_ ? std::string(members) : (negated ? "[^" : "[") + std::string(members) + "]";
    position_ += 2;
  }

  void begin_class() {
    in_class_ = true;
    copy(at(1) == '^' ? 2 : 1);
    if (at(0) != ']') return;
    result_ += '\\';  // a bracket that closes nothing yet is a member
    copy(1);
  }

  void class_member() {
    const std::size_t end = at(0) == '[' && at(1) == ':' ? pattern_.find(":]", position_) : std::string_view::npos;
    if (end != std::string_view::npos) return copy(end + 2 - position_);  // [:alpha:]
    if (at(0) == '[') refuse("a class inside a class");
    if (at(0) == '&' && at(1) == '&') refuse("an intersection of classes");
    if (at(0) == ']') in_class_ = false;
    copy(1);
  }

  std::string_view pattern_;
  std::size_t position_ = 0;
  bool in_class_ = false;
  std::string result_;
};

struct Free {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};

std::string message(int error) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

/// Whether there is a match at or after a position; `match` then holds it.
bool find(const Pattern& pattern, const pcre2_code* code, std::string_view subject, std::size_t position, pcre2_match_data* match) {
  const auto attempt = [&](std::uint32_t options) {
    return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), position, options, match, nullptr);
  };
  int count = attempt(PCRE2_NO_UTF_CHECK);
  // Compiled matching has 32 KiB of stack; the interpreter has the heap.
  if (count == PCRE2_ERROR_JIT_STACKLIMIT) count = attempt(PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT);
  if (count == PCRE2_ERROR_NOMATCH) return false;
  if (count < 0)  // a count that is none has no message
    lowrank::fail<lowrank::ValueError>("tokenizer", "the pattern ", lowrank::name_text(pattern.text()), " gave up on a text of ",
                                       subject.size(), " bytes: ", message(count));
  return true;
}

}  // namespace

Pattern::Pattern(std::string_view pattern, Kind kind) : text_(pattern) {
  const std::string spelled = kind == Kind::regex ? PatternTranslator(pattern)() : text_;
  std::unique_ptr<pcre2_compile_context, Free> context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  // Oniguruma's ^ and $ always mean lines; a literal takes no other option.
  const std::uint32_t options =
      kind == Kind::regex ? PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C : PCRE2_UTF | PCRE2_LITERAL;
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* const code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelled.data()), spelled.size(), options, &error, &offset, context.get());
  if (code == nullptr)
    lowrank::fail<FormatError>("tokenizer", "the pattern ", lowrank::name_text(text_), " is not valid at byte ", offset, ": ",
                               message(error));
  code_.reset(code, Free{});
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where it cannot, the interpreter does the same, slower
}

void Pattern::for_each_match(std::string_view subject, const std::function<void(std::size_t, std::size_t)>& visit) const {
  const std::unique_ptr<pcre2_match_data, Free> match(pcre2_match_data_create(1, nullptr));
  if (!match) throw std::bad_alloc();
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  for (std::size_t position = 0; position <= subject.size();) {
    if (!find(*this, code, subject, position, match.get())) return;
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
    visit(static_cast<std::size_t>(range[0]), static_cast<std::size_t>(range[1]));
    position = range[1];
    if (range[0] != range[1]) continue;
    do {
      ++position;  // past an empty match by one character
    } while (position < subject.size() && (static_cast<unsigned char>(subject[position]) & 0xC0) == 0x80);
  }
}

}  // namespace transformer
