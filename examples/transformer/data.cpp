#include <transformer/data.hpp>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

#include <lowrank/error.hpp>
#include <lowrank/io/json.hpp>

#include <transformer/tokenizer.hpp>

namespace transformer {

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  lowrank::check<lowrank::IoError>(file.is_open() && !std::filesystem::is_directory(path), "read_text", "cannot open ", path,
                                   "; give the path of a readable file");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  lowrank::check<lowrank::IoError>(!file.bad(), "read_text", "reading ", path, " failed");
  return text;
}

std::vector<Example> windows(const std::vector<std::int32_t>& ids, Index length) {
  std::vector<Example> examples;
  for (std::size_t begin = 0; begin + 1 < ids.size(); begin += static_cast<std::size_t>(length)) {
    const std::size_t end = std::min(ids.size(), begin + static_cast<std::size_t>(length) + 1);
    examples.push_back({{ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.begin() + static_cast<std::ptrdiff_t>(end)}});
  }
  return examples;
}

Dataset split_stream(const std::vector<std::int32_t>& ids, Index length, const std::string& name) {
  const auto count = static_cast<Index>(ids.size());
  lowrank::check<lowrank::ValueError>(count > length, "load_data", name, " holds ", count, " tokens but one sequence takes ", length + 1,
                                      "; give more text or a smaller --sequence");
  const Index train_count = std::max(count - count / 10, length + 1);
  const auto border = ids.begin() + train_count;
  Dataset data{windows({ids.begin(), border}, length), windows({border, ids.end()}, length)};
  std::erase_if(data.train, [&](const Example& example) { return static_cast<Index>(example.ids.size()) <= length; });
  return data;
}

namespace {

/// One line of a .jsonl file: free text, or a prompt with the completion that is to be learned.
struct Record {
  std::string text, completion;
  bool has_completion = false;
};

std::vector<Record> read_jsonl(const std::filesystem::path& path) {
  std::vector<Record> records;
  std::istringstream lines(read_text(path));
  Index number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto json = lowrank::json::parse(line, "load_data", lowrank::concat(path, " line ", number));
    const auto text = [&](const char* key) { return json.is_object() && json.contains(key) && json[key].is_string(); };
    lowrank::check<lowrank::FormatError>(text("text") || (text("prompt") && text("completion")), "load_data", path, " line ", number,
                                         R"( is not {"text": "…"} or {"prompt": "…", "completion": "…"})");
    if (text("text"))
      records.push_back({json["text"].get<std::string>(), {}, false});
    else
      records.push_back({json["prompt"].get<std::string>(), json["completion"].get<std::string>(), true});
    lowrank::check<lowrank::FormatError>(records.back().has_completion == records.front().has_completion, "load_data", path, " line ",
                                         number, " mixes texts with prompts and completions; use one kind in a file");
  }
  lowrank::check<lowrank::FormatError>(!records.empty(), "load_data", path, " holds no record; give one JSON object a line");
  return records;
}

/// A prompt and its completion as one sequence that ends with end-of-text; only the completion is predicted.
Example completion_example(const Tokenizer& tokenizer, const Record& record, Index length) {
  Example example{tokenizer.encode(record.text)};
  example.predict_from = std::max<Index>(1, static_cast<Index>(example.ids.size()));
  const auto completion = tokenizer.encode(record.completion, false);
  example.ids.insert(example.ids.end(), completion.begin(), completion.end());
  if (!tokenizer.eos().empty()) example.ids.push_back(tokenizer.eos().front());
  if (static_cast<Index>(example.ids.size()) > length + 1) example.ids.resize(static_cast<std::size_t>(length) + 1);
  return example;
}

/// Every tenth record is held out; records whose completion does not fit into the sequence teach nothing and are dropped.
Dataset completion_data(const Tokenizer& tokenizer, const std::vector<Record>& records, Index length, const std::string& name) {
  Dataset data;
  for (std::size_t i = 0; i < records.size(); ++i) {
    Example example = completion_example(tokenizer, records[i], length);
    if (static_cast<Index>(example.ids.size()) > example.predict_from)
      (i % 10 == 9 ? data.held_out : data.train).push_back(std::move(example));
  }
  lowrank::check<lowrank::ValueError>(!data.train.empty(), "load_data", "no completion of ", name, " begins within ", length,
                                      " tokens; give a larger --sequence");
  return data;
}

/// The ids of a text file, or of a .jsonl file of texts, each closed by end-of-text.
std::vector<std::int32_t> token_stream(const Tokenizer& tokenizer, const std::vector<Record>& records) {
  std::vector<std::int32_t> ids;
  for (const Record& record : records) {
    const auto part = tokenizer.encode(record.text);
    ids.insert(ids.end(), part.begin(), part.end());
    if (records.size() > 1 && !tokenizer.eos().empty()) ids.push_back(tokenizer.eos().front());
  }
  return ids;
}

std::vector<Record> read_records(const std::filesystem::path& path) {
  if (path.extension() == ".jsonl") return read_jsonl(path);
  return {{read_text(path), {}, false}};
}

}  // namespace

Dataset load_data(const Tokenizer& tokenizer, const std::filesystem::path& path, Index length) {
  const std::vector<Record> records = read_records(path);
  if (records.front().has_completion) return completion_data(tokenizer, records, length, path.string());
  return split_stream(token_stream(tokenizer, records), length, path.string());
}

std::vector<Example> load_evaluation(const Tokenizer& tokenizer, const std::filesystem::path& path, Index length) {
  const std::vector<Record> records = read_records(path);
  if (records.front().has_completion) {
    Dataset data = completion_data(tokenizer, records, length, path.string());
    std::move(data.held_out.begin(), data.held_out.end(), std::back_inserter(data.train));
    return data.train;
  }
  std::vector<Example> examples = windows(token_stream(tokenizer, records), length);
  lowrank::check<lowrank::ValueError>(!examples.empty(), "load_data", path.string(),
                                      " holds fewer than two tokens; there is nothing to predict");
  return examples;
}

}  // namespace transformer
