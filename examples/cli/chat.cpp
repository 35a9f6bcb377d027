#include <algorithm>
#include <cstdio>
#include <string_view>

#include <transformer/chat_template.hpp>
#include <transformer/chat_tokens.hpp>
#include <transformer/data.hpp>
#include <transformer/generate.hpp>

#include <cli/common.hpp>
#include <cli/interrupt.hpp>

namespace cli {
namespace chat {

struct Options {
  Common common;
  std::string model, system, chat_template, variables, cache = "auto";
  std::vector<std::string> adapters;
  transformer::GenerateOptions generate;
};

/// An adapter that a word switches to.
struct NamedAdapter {
  std::string name;
  std::unique_ptr<LoraSet> lora;
};

/// NAME=PATH[:scale], or PATH[:scale] with the last part of the path as name.
NamedAdapter open_named(const Transformer& model, const std::string& spec) {
  const std::size_t equals = spec.find('=');
  std::error_code ignored;
  const bool is_named =
      equals != std::string::npos && equals > 0 && !std::filesystem::exists(split_weight(spec, "the scale").first, ignored);
  const std::string path = is_named ? spec.substr(equals + 1) : spec;
  std::filesystem::path folder = split_weight(path, "the scale").first;
  if (!folder.has_filename()) folder = folder.parent_path();
  return {is_named ? spec.substr(0, equals) : folder.stem().string(), open_adapters(model, {path})};
}

std::vector<NamedAdapter> open_all(const Transformer& model, const std::vector<std::string>& specs) {
  std::vector<NamedAdapter> adapters;
  for (const std::string& spec : specs) {
    adapters.push_back(open_named(model, spec));
    const std::string& name = adapters.back().name;
    const auto same = std::count_if(adapters.begin(), adapters.end(), [&](const NamedAdapter& other) { return other.name == name; });
    lowrank::check<lowrank::ValueError>(same == 1 && name != "none", "chat", "an adapter cannot be named \"", name,
                                        same == 1 ? "\", which is the word for the model alone" : "\", as another is",
                                        "; give --adapter NAME=PATH");
  }
  return adapters;
}

transformer::ChatTemplate open_template(const Tokenizer& tokenizer, const Options& o) {
  if (!o.chat_template.empty()) return transformer::ChatTemplate(transformer::read_text(o.chat_template));
  lowrank::check<lowrank::FormatError>(
      !tokenizer.chat_template().empty(), "chat", o.model,
      " has no chat template, so nothing says how its conversations are written; give one with --chat-template "
      "FILE, or use `lowrank generate`");
  return transformer::ChatTemplate(tokenizer.chat_template());
}

/// A conversation with a model: its messages, and a cache of what the model has read of them.
template <class Device>
class Conversation {
 public:
  Conversation(Session& session, const Options& options, const std::vector<NamedAdapter>& adapters)
      : options_(options),
        session_(session),
        tokenizer_(session.need_tokenizer()),
        template_(open_template(tokenizer_, options)),
        rendering_(transformer::chat_options(tokenizer_)),
        adapters_(adapters) {
    rendering_.add_generation_prompt = true;
    rendering_.find_assistant = false;
    rendering_.variables = options.variables;
    clear();
    use(adapters.empty() ? nullptr : &adapters.front());
    template_check();
  }

  /// Forgets what was said; the system message stays.
  void clear() {
    messages_.clear();
    if (!options_.system.empty()) messages_.push_back({"system", options_.system});
  }

  /// Answers with an adapter from now on, null: none.
  void use(const NamedAdapter* adapter) {
    adapter_ = adapter;
    reader_ =
        std::make_unique<transformer::Reader<Device>>(session_.model, adapter ? adapter->lora.get() : nullptr, options_.generate.cache);
    read_.clear();
  }

  const NamedAdapter* find(std::string_view name) const {
    const auto found = std::find_if(adapters_.begin(), adapters_.end(), [&](const NamedAdapter& known) { return known.name == name; });
    return found == adapters_.end() ? nullptr : &*found;
  }

  std::string adapter_name() const { return adapter_ ? adapter_->name : "none"; }

  /// Says the next message and gets the answer, which `show` sees as it comes. What cannot be rendered or does not fit is not kept.
  Json answer(const std::string& text, const std::function<void(std::string_view)>& show) {
    const std::vector<transformer::Message> before = messages_;
    try {
      messages_.push_back({"user", text});
      const auto [ids, dropped] = fitting();
      const std::size_t reused = reuse(ids);
      const auto result = transformer::generate<Device>(*reader_, tokenizer_, std::span(ids).subspan(reused), options_.generate, show);
      read_ = ids;
      read_.insert(read_.end(), result.ids.begin(), result.ids.end());
      read_.resize(static_cast<std::size_t>(reader_->length()));
      messages_.push_back({"assistant", result.text});
      return {{"user", text},
              {"text", result.text},
              {"adapter", adapter_name()},
              {"prompt_tokens", ids.size()},
              {"reused_tokens", reused},
              {"generated_tokens", result.ids.size()},
              {"dropped_messages", dropped}};
    } catch (...) {
      messages_ = before;
      throw;
    }
  }

 private:
  /// A template that cannot be used is known before anything is typed.
  void template_check() const {
    auto messages = messages_;
    messages.push_back({"user", "Hello"});
    template_.render(messages, rendering_);
  }

  /// The tokens of the messages, with room for an answer; the oldest turns go where they are too many.
  std::pair<std::vector<std::int32_t>, std::size_t> fitting() {
    const Index context = session_.model.config.context;
    const Index room = std::clamp<Index>(options_.generate.tokens, 1, std::max<Index>(context / 4, 1));
    const std::size_t first = messages_.front().role == "system";
    for (std::size_t dropped = 0;;) {
      std::vector<std::int32_t> ids = transformer::encode_chat(tokenizer_, template_.render(messages_, rendering_)).ids;
      if (static_cast<Index>(ids.size()) + room <= context) {
        if (dropped > 0)
          std::fprintf(stderr, "(the context of %td tokens is full: the oldest %zu messages are left out)\n", context, dropped);
        return {std::move(ids), dropped};
      }
      lowrank::check<lowrank::ValueError>(messages_.size() > first + 1, "chat", "the message has ", ids.size(),
                                          " tokens, but the context of ", context, " has room for ", context - room,
                                          " beside an answer; send less");
      const std::size_t turn = std::min<std::size_t>(2, messages_.size() - first - 1);  // a question and its answer
      const auto begin = messages_.begin() + static_cast<std::ptrdiff_t>(first);
      messages_.erase(begin, begin + static_cast<std::ptrdiff_t>(turn));
      dropped += turn;
    }
  }

  /// Keeps of the cache what these tokens begin with, all but the last of them at most; how many.
  std::size_t reuse(const std::vector<std::int32_t>& ids) {
    const auto limit = ids.end() - 1;
    const auto same = static_cast<std::size_t>(std::mismatch(ids.begin(), limit, read_.begin(), read_.end()).first - ids.begin());
    reader_->rewind(static_cast<Index>(same));
    read_.resize(same);
    return same;
  }

  const Options& options_;
  Session& session_;
  const Tokenizer& tokenizer_;
  transformer::ChatTemplate template_;
  transformer::ChatOptions rendering_;
  const std::vector<NamedAdapter>& adapters_;
  const NamedAdapter* adapter_ = nullptr;
  std::unique_ptr<transformer::Reader<Device>> reader_;
  std::vector<std::int32_t> read_;  // what the reader holds
  std::vector<transformer::Message> messages_;
};

void print_help() {
  std::fprintf(stderr,
               "/adapter NAME  answers with that adapter from now on; none: the model alone; without a name: lists them\n"
               "/clear         forgets the conversation\n"
               "/help          this text\n"
               "/quit          ends, as Ctrl-D does; Ctrl-C stops an answer\n");
}

/// /adapter, with or without a name.
template <class Device>
void switch_adapter(Conversation<Device>& conversation, const std::vector<NamedAdapter>& adapters, const std::string& name) {
  const NamedAdapter* found = conversation.find(name);
  if (found || name == "none") {
    conversation.use(found);
    std::fprintf(stderr, "(adapter: %s)\n", conversation.adapter_name().c_str());
    return;
  }
  if (!name.empty()) std::fprintf(stderr, "no adapter is named \"%s\"; ", lowrank::printable(name, 80).c_str());
  std::fprintf(stderr, "adapters:");
  for (const NamedAdapter& adapter : adapters) std::fprintf(stderr, " %s", adapter.name.c_str());
  std::fprintf(stderr, " none (now %s)\n", conversation.adapter_name().c_str());
}

/// Does what a line that begins with / says; false: it is a message.
template <class Device>
bool obey(Conversation<Device>& conversation, const std::vector<NamedAdapter>& adapters, const std::string& line) {
  if (line == "/help") {
    print_help();
  } else if (line == "/clear") {
    conversation.clear();
  } else if (line == "/adapter" || line.starts_with("/adapter ")) {
    const std::size_t name = line.find_first_not_of(' ', std::string_view("/adapter").size());
    switch_adapter(conversation, adapters, name == std::string::npos ? "" : line.substr(name, line.find_last_not_of(' ') + 1 - name));
  } else {
    return false;
  }
  return true;
}

template <class Device>
Json converse(Session& session, const Options& given, const std::vector<NamedAdapter>& adapters) {
  Interrupt interrupt;
  Options o = given;
  o.generate.is_stopped = [&] { return interrupt.is_asked_for(); };
  Conversation<Device> conversation(session, o, adapters);
  const auto show = [](std::string_view piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  };
  Json turns = Json::list();
  const bool asks = is_terminal();
  if (asks) std::fprintf(stderr, "Type a message, or /help.\n");
  while (true) {
    interrupt.forget();
    if (asks) std::fprintf(stderr, "> ");
    const std::optional<std::string> line = read_line();
    if (!line || *line == "/quit") break;
    if (line->find_first_not_of(" \t") == std::string::npos || obey(conversation, adapters, *line)) continue;
    try {
      turns.push_back(conversation.answer(*line, show));
    } catch (const lowrank::ValueError& error) {
      if (!asks) throw;
      std::fprintf(stderr, "%s", lowrank::printable(error.what()).c_str());
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  if (asks) std::fprintf(stderr, "\n");
  return turns;
}

void run(Options o) {
  o.generate.sampler.seed = o.common.seed;
  o.generate.cache = parse_cache(o.cache);
  transformer::Sampler{o.generate.sampler};  // refuses wrong options before the model is read
  if (!o.common.json.empty()) ensure_writable(o.common.json, false);
  Session session = open_session(o.model, o.common, transformer::Base::native, "generate");
  const std::vector<NamedAdapter> adapters = open_all(session.model, o.adapters);
  const Json turns = on_device(session, [&](auto device) { return converse<decltype(device)>(session, o, adapters); });
  auto json = common_report(session, adapters.empty() ? nullptr : adapters.front().lora.get());
  json["turns"] = turns;
  write_json(o.common.json, json);
}

}  // namespace chat

void add_chat(Command app) {
  auto o = std::make_shared<chat::Options>();
  o->generate.tokens = 1024;
  Command command = app.add_command("chat", "a conversation, with the model's own chat template");
  command.add_option("--model", o->model, "a .gguf file, a Hugging Face folder, or demo").required();
  command.add_option("--adapter", o->adapters,
                     "an adapter, as PATH, PATH:scale or NAME=PATH; may be repeated: the first answers until /adapter NAME switches");
  command.add_option("--system", o->system, "the system message");
  command.add_option("--chat-template", o->chat_template, "a file with a template in Jinja, instead of the model's");
  command.add_option("--variables", o->variables, "more of the template's variables as JSON, such as {\"enable_thinking\": false}");
  command.add_option("--tokens", o->generate.tokens, "at most so many new tokens an answer").in_range(1, 1 << 24).shows_default();
  command.add_option("--temperature", o->generate.sampler.temperature, "0: the most likely token").not_negative().shows_default();
  command.add_option("--top-k", o->generate.sampler.top_k, "draw from the k most likely; 0: all").not_negative().shows_default();
  command.add_option("--top-p", o->generate.sampler.top_p, "draw from the most likely that hold this probability")
      .in_range(0.0, 1.0)
      .shows_default();
  add_cache_option(command, o->cache);
  add_common(command, o->common, Devices::cpu_and_cuda);
  command.when_called([o] { chat::run(*o); });
}

}  // namespace cli
