#include <transformer/data/load.hpp>

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include <lowrank/error.hpp>

#include <transformer/chat_tokens.hpp>

namespace transformer {

namespace {

/// Turns records into examples, one after the other.
class DatasetMaker {
 public:
  DatasetMaker(const Tokenizer& tokenizer, const Records& records, const DataOptions& options)
      : tokenizer_(tokenizer), records_(records), options_(options) {
    data_.report.name = records.name;
    data_.report.format = records.format;
    data_.report.place = records.place;
    data_.report.records = static_cast<Index>(records.items.size());
    data_.report.unused = records.unused;
    if (records.kind == RecordKind::messages) read_template();
  }

  Dataset run() {
    for (std::size_t i = 0; i < records_.items.size(); ++i) {
      const Record& record = records_.items[i];
      const bool is_held_out = options_.hold_out && i % 10 == 9;
      std::vector<Example>& side = is_held_out ? data_.held_out : data_.train;
      if (records_.kind == RecordKind::text)
        add_text(record, side);
      else
        add_marked(record, side);
    }
    finish();
    return std::move(data_);
  }

 private:
  Encoded encode(std::string_view text, const EncodeOptions& options, Index place) {
    Encoded encoded = tokenizer_.encode_text(text, options);
    auto& notes = data_.report.notes;
    if (encoded.spelled_first) remark(notes, spelled_twice(encoded.ids.front(), "in front"), place);
    if (encoded.spelled_last) remark(notes, spelled_twice(encoded.ids.back(), "behind"), place);
    if (encoded.spelled_inner)
      remark(notes,
             lowrank::concat("the text spells out the special token ", tokenizer_.token_text(*encoded.spelled_inner),
                             ", which is read as text; --special-tokens tokens reads it as the token"),
             place);
    return encoded;
  }

  std::string spelled_twice(std::int32_t id, const char* where) const {
    return lowrank::concat("the text spells out ", tokenizer_.token_text(id), ", which is put ", where, " anyway; it is there once");
  }

  void add_text(const Record& record, std::vector<Example>& side) {
    if (record.text.empty()) return remark(data_.report.left_out, "the text is empty", record.place);
    const TextPart part = records_.is_plain ? TextPart::whole : TextPart::closed;
    const Encoded encoded = encode(record.text, {part, options_.spelled}, record.place);
    if (encoded.ids.size() < 2) return remark(data_.report.left_out, "one token predicts nothing", record.place);
    data_.report.tokens += static_cast<Index>(encoded.ids.size());
    if (options_.hold_out && records_.items.size() == 1) {
      Dataset split = split_stream(encoded.ids, options_.length, records_.name);
      data_.train = std::move(split.train);
      data_.held_out = std::move(split.held_out);
      return;
    }
    std::vector<Example> parts = windows(encoded.ids, options_.length);
    std::move(parts.begin(), parts.end(), std::back_inserter(side));
  }

  /// A record of which a part is to be learned: one sequence, as long as it may be.
  void add_marked(const Record& record, std::vector<Example>& side) {
    Encoded encoded = records_.kind == RecordKind::completion ? encode_completion(record) : encode_messages(record);
    Example example{std::move(encoded.ids), std::move(encoded.marked)};
    const auto longest = static_cast<std::size_t>(options_.length) + 1;
    const auto first = std::find(example.learned.begin() + (example.learned.empty() ? 0 : 1), example.learned.end(), true);
    if (first == example.learned.end()) return remark(data_.report.left_out, "there is nothing to predict", record.place);
    if (static_cast<std::size_t>(first - example.learned.begin()) >= longest)
      return remark(data_.report.left_out,
                    lowrank::concat("what is to be learned begins after the ", options_.length, " tokens of --sequence"), record.place);
    if (example.ids.size() > longest) {
      const bool loses =
          std::find(example.learned.begin() + static_cast<std::ptrdiff_t>(longest), example.learned.end(), true) != example.learned.end();
      if (loses) remark(data_.report.cut, lowrank::concat("at the ", options_.length, " tokens of --sequence"), record.place);
      example.ids.resize(longest);
      example.learned.resize(longest);
    }
    data_.report.tokens += static_cast<Index>(example.ids.size());
    side.push_back(std::move(example));
  }

  Encoded encode_completion(const Record& record) {
    if (record.completion.empty()) remark(data_.report.notes, "the completion is empty: its end alone is learned", record.place);
    const std::string text = record.text + record.completion;
    const TextRange completion(record.text.size(), text.size());
    return encode(text, {TextPart::closed, options_.spelled, {&completion, 1}}, record.place);
  }

  void read_template() {
    lowrank::check<lowrank::FormatError>(!tokenizer_.chat_template().empty(), "data", records_.name,
                                         " holds messages, but the model has no chat template to write them with; give prompt and "
                                         "completion, or put chat_template.jinja beside the model's tokenizer.json");
    template_.emplace(tokenizer_.chat_template());
    chat_ = chat_options(tokenizer_);
  }

  Encoded encode_messages(const Record& record) const {
    try {
      return encode_chat(tokenizer_, template_->render(record.messages, chat_));
    } catch (const lowrank::Error& error) {
      lowrank::fail<lowrank::ValueError>("data", records_.name, ' ', records_.place, ' ', record.place, ": ", error.what());
    }
  }

  void finish() {
    DataReport& report = data_.report;
    for (const auto* side : {&data_.train, &data_.held_out})
      for (const Example& example : *side)
        for (std::size_t i = 1; i < example.ids.size(); ++i) report.predicted += example.predicts(i);
    report.held_out = static_cast<Index>(data_.held_out.size());
    report.sequences = static_cast<Index>(data_.train.size()) + report.held_out;
    lowrank::check<lowrank::ValueError>(!data_.train.empty(), "data", "nothing is left to learn of ", report.summary(),
                                        "; give other data, or a larger --sequence");
    lowrank::check<lowrank::ValueError>(!options_.strict || report.is_whole(), "data", report.summary(),
                                        "; --strict-data allows none of that: leave it away, or change the data");
  }

  const Tokenizer& tokenizer_;
  const Records& records_;
  const DataOptions& options_;
  std::optional<ChatTemplate> template_ = {};  // of records of messages
  ChatOptions chat_ = {};
  Dataset data_;
};

}  // namespace

Dataset make_dataset(const Tokenizer& tokenizer, const Records& records, const DataOptions& options) {
  return DatasetMaker(tokenizer, records, options).run();
}

}  // namespace transformer
