#include <transformer/chat_template.hpp>

#include <algorithm>
#include <string_view>

#include <lowrank/error.hpp>
#include <lowrank/io/bytes.hpp>

#include <transformer/jinja/from_json.hpp>
#include <transformer/jinja/template.hpp>
#include <transformer/tokenizer/utf8.hpp>

namespace transformer {

using lowrank::check;
using lowrank::ValueError;

namespace {

/// Two characters of a plane for private use that no message holds: control tokens that messages spell stand between them while the
/// template runs, so that they are told from the template's own.
struct Marks {
  std::string open, close;
};

Marks find_marks(std::span<const Message> messages) {
  const auto is_free = [&](const std::string& mark) {
    return std::all_of(messages.begin(), messages.end(), [&](const Message& message) {
      return message.content.find(mark) == std::string::npos && message.more.find(mark) == std::string::npos;
    });
  };
  std::vector<std::string> found;
  for (char32_t c = 0xF0000; found.size() < 2 && c < 0xFFFFE; ++c) {
    std::string mark;
    append_utf8(mark, c);
    if (is_free(mark)) found.push_back(std::move(mark));
  }
  check<ValueError>(found.size() == 2, "chat template", "the messages hold every character of plane 15; leave one out");
  return {found[0], found[1]};
}

/// A text with marks around the control tokens that it spells, the longest first where several begin.
std::string marked(const std::string& text, const std::vector<std::string>& control_tokens, const Marks& marks) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const std::string_view rest = std::string_view(text).substr(i);
    std::size_t length = 0;
    for (const std::string& token : control_tokens)
      if (token.size() > length && rest.starts_with(token)) length = token.size();
    if (length > 0) result.append(marks.open).append(rest.substr(0, length)).append(marks.close);
    if (length == 0) result += text[i++];
    i += length;
  }
  return result;
}

jinja::Value marked(const jinja::Value& value, const std::vector<std::string>& control_tokens, const Marks& marks) {
  if (value.is_text()) return jinja::Value::text(marked(value.as_text(), control_tokens, marks));
  if (value.is(jinja::Kind::list)) {
    jinja::Items items;
    for (const jinja::Value& item : value.items()) items.push_back(marked(item, control_tokens, marks));
    return jinja::Value::list(std::move(items));
  }
  if (!value.is_dict()) return value;
  jinja::Entries entries;
  for (const auto& [key, item] : value.as_dict().entries) entries.emplace_back(key, marked(item, control_tokens, marks));
  return jinja::Value::dict(std::move(entries));
}

void check_text(const std::string& text, std::size_t message, const char* what) {
  check<ValueError>(valid_utf8_length(text) == text.size(), "chat template", "the ", what, " of message ", message + 1,
                    " is not UTF-8 at byte ", valid_utf8_length(text));
}

jinja::Value message_value(const Message& message, std::size_t index) {
  check_text(message.role, index, "role");
  check_text(message.content, index, "content");
  jinja::Entries entries = {{jinja::Value::text("role"), jinja::Value::text(message.role)},
                            {jinja::Value::text("content"), jinja::Value::text(message.content)}};
  if (message.more.empty()) return jinja::Value::dict(std::move(entries));
  const jinja::Value more = jinja::from_json(message.more, lowrank::concat("message ", index + 1));
  check<lowrank::FormatError>(more.is_dict(), "chat template", "what message ", index + 1, " holds besides role and content is no object");
  for (const auto& entry : more.as_dict().entries) {
    const auto known = std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return is_same_key(e.first, entry.first); });
    if (known == entries.end())
      entries.push_back(entry);
    else
      known->second = entry.second;
  }
  return jinja::Value::dict(std::move(entries));
}

jinja::Template::Variables variables_of(const ChatOptions& options) {
  jinja::Template::Variables variables = {{"tools", jinja::Value()}, {"documents", jinja::Value()}};
  const auto set = [&](const std::string& name, jinja::Value value) {
    std::erase_if(variables, [&](const auto& variable) { return variable.first == name; });
    variables.emplace_back(name, std::move(value));
  };
  if (!options.bos_token.empty()) set("bos_token", jinja::Value::text(options.bos_token));
  if (!options.eos_token.empty()) set("eos_token", jinja::Value::text(options.eos_token));
  set("add_generation_prompt", jinja::Value::boolean(options.add_generation_prompt));
  if (options.variables.empty()) return variables;
  const jinja::Value more = jinja::from_json(options.variables, "the template's variables");
  check<lowrank::FormatError>(more.is_dict(), "chat template", "the template's variables are no JSON object");
  for (const auto& [name, value] : more.as_dict().entries) set(name.as_text(), value);
  return variables;
}

/// Takes the marks out of a text; what stood between them is spelled.
Rendered without_marks(const std::string& text, const Marks& marks, const std::vector<TextRange>& ranges) {
  Rendered result;
  std::vector<std::size_t> moved;  // where bytes of the marked text that ranges name are now
  std::vector<std::size_t> sought;
  for (const auto& [begin, end] : ranges) sought.insert(sought.end(), {begin, end});
  std::size_t opened = std::string::npos, next = 0;
  for (std::size_t i = 0; i <= text.size();) {
    while (next < sought.size() && sought[next] <= i) moved.push_back(result.text.size()), ++next;
    const std::string_view rest = std::string_view(text).substr(i);
    if (rest.empty()) break;
    if (rest.starts_with(marks.open)) {
      opened = result.text.size();
      i += marks.open.size();
    } else if (rest.starts_with(marks.close)) {
      if (opened < result.text.size()) result.spelled.emplace_back(opened, result.text.size());
      opened = std::string::npos;
      i += marks.close.size();
    } else {
      result.text += text[i++];
    }
  }
  for (std::size_t k = 0; k + 1 < moved.size(); k += 2)
    if (!result.assistant.empty() && result.assistant.back().second == moved[k])
      result.assistant.back().second = moved[k + 1];
    else if (moved[k] < moved[k + 1])
      result.assistant.emplace_back(moved[k], moved[k + 1]);
  return result;
}

/// A range without the blanks that follow the token that ends the turn: nothing is generated after it.
TextRange until_end_token(const std::string& text, TextRange range, const ChatOptions& options) {
  const std::size_t last = text.find_last_not_of(" \t\r\n", range.second - 1);
  if (last == std::string::npos || last < range.first) return range;
  const std::string_view words = std::string_view(text).substr(range.first, last + 1 - range.first);
  const auto ends = [&](const std::string& token) { return !token.empty() && words.ends_with(token); };
  const bool is_ended = ends(options.eos_token) || std::any_of(options.control_tokens.begin(), options.control_tokens.end(), ends);
  return is_ended ? TextRange{range.first, last + 1} : range;
}

}  // namespace

ChatTemplate::ChatTemplate(std::string source) : template_(std::make_shared<const jinja::Template>(source)) {}

Rendered ChatTemplate::render_once(std::span<const Message> messages, const ChatOptions& options) const {
  const Marks marks = find_marks(messages);
  jinja::Items values;
  for (std::size_t i = 0; i < messages.size(); ++i) values.push_back(marked(message_value(messages[i], i), options.control_tokens, marks));
  jinja::Template::Variables variables = variables_of(options);
  variables.emplace_back("messages", jinja::Value::list(std::move(values)));
  jinja::Run run(options.now);
  const jinja::Template::Result result = template_->render(run, std::move(variables));
  return without_marks(result.text, marks, result.generated);
}

Rendered ChatTemplate::render(std::span<const Message> messages, const ChatOptions& options) const {
  Rendered rendered = render_once(messages, options);
  if (!options.find_assistant) rendered.assistant.clear();
  if (options.find_assistant && !template_->has_generation()) find_assistant(messages, options, rendered);
  return rendered;
}

void ChatTemplate::find_assistant(std::span<const Message> messages, const ChatOptions& options, Rendered& rendered) const {
  ChatOptions before = options, after = options;
  before.add_generation_prompt = true;
  after.add_generation_prompt = false;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant") continue;
    const std::string prompt = render_once(messages.first(i), before).text, whole = render_once(messages.first(i + 1), after).text;
    const bool stable = whole.starts_with(prompt) && rendered.text.starts_with(whole);
    check<ValueError>(
        stable, "chat template", "cannot tell the assistant's words of message ", i + 1, ": the template writes ",
        whole.starts_with(prompt) ? "it differently once other messages follow" : "something else than its generation prompt before it",
        "; use a template that encloses them in {% generation %} and {% endgeneration %}");
    if (whole.size() > prompt.size()) rendered.assistant.push_back(until_end_token(rendered.text, {prompt.size(), whole.size()}, options));
  }
}

}  // namespace transformer
