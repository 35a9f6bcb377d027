#pragma once

#include <cstddef>
#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// A model's chat template: from messages to the text that the model was trained to continue.

namespace transformer {

/// One message of a conversation.
struct Message {
  std::string role, content;
  std::string more = {};  ///< further members as a JSON object, such as {"tool_calls": […]}; one named role or content replaces it
};

/// What a template is rendered with, besides the messages.
struct ChatOptions {
  bool add_generation_prompt = false;  ///< end with what opens the assistant's next message
  bool find_assistant = true;          ///< fill Rendered::assistant; costs two further renderings an assistant message, at worst
  std::string bos_token = {}, eos_token = {};
  std::string variables = {};                    ///< further variables as a JSON object, such as {"tools": […], "enable_thinking": false}
  std::vector<std::string> control_tokens = {};  ///< the vocabulary's: where a message spells one out it is text, see Rendered::spelled
  std::optional<std::time_t> now = {};           ///< what strftime_now() says in local time; nothing: the clock
};

/// Bytes [first, second) of a text.
using TextRange = std::pair<std::size_t, std::size_t>;

/// A conversation as text, with ranges in it; ranges rise and do not touch each other.
struct Rendered {
  std::string text;
  std::vector<TextRange> assistant = {};  ///< the assistant's own words, each with what ends its turn: what a model is to learn
  std::vector<TextRange> spelled = {};    ///< control tokens that a message spells out: to be encoded as text, not as tokens
};

namespace jinja {
class Template;
}

/// A chat template, parsed once. A const one may be used by many threads.
class ChatTemplate {
 public:
  /// Throws FormatError with line and column for what is no Jinja, or is Jinja beyond what chat templates use.
  explicit ChatTemplate(std::string source);

  /// The conversation as text.
  ///
  /// The assistant's words are those inside {% generation %} where the template has it. Elsewhere they are what message i adds to the
  /// messages before it with the generation prompt. Throws ValueError where that is ambiguous (the template writes earlier messages
  /// differently once others follow), when the template itself refuses the conversation, for text that is not UTF-8, and for a template
  /// that would run, nest or grow without bound; FormatError for JSON that is none.
  Rendered render(std::span<const Message> messages, const ChatOptions& options = {}) const;

 private:
  Rendered render_once(std::span<const Message> messages, const ChatOptions& options) const;
  void find_assistant(std::span<const Message> messages, const ChatOptions& options, Rendered& rendered) const;

  std::shared_ptr<const jinja::Template> template_;
};

}  // namespace transformer
