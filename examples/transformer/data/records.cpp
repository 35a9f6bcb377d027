#include <transformer/data/records.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <initializer_list>
#include <string_view>
#include <utility>

#include <lowrank/error.hpp>
#include <lowrank/io/bytes.hpp>
#include <lowrank/io/file.hpp>
#include <lowrank/io/json.hpp>

#include <transformer/data/csv.hpp>
#include <transformer/data/format.hpp>

namespace transformer {

namespace {

using lowrank::check;
using lowrank::FormatError;
using lowrank::json::Json;

constexpr std::string_view json_blanks = " \t\r\n";
constexpr std::string_view record_fields = R"(text, or prompt and completion, or messages)";

/// The kinds of record by their fields.
struct KindOfRecord {
  RecordKind kind;
  std::vector<std::string> fields;
};
const std::array<KindOfRecord, 3>& record_kinds() {
  static const std::array<KindOfRecord, 3> all{
      {{RecordKind::text, {"text"}}, {RecordKind::completion, {"prompt", "completion"}}, {RecordKind::messages, {"messages"}}}};
  return all;
}

/// Collects records and keeps what they have in common.
class Collector {
 public:
  Collector(std::string name, std::string format, std::string place) {
    records_.name = std::move(name);
    records_.format = std::move(format);
    records_.place = std::move(place);
  }

  void add(const Json& object, Index place) {
    const std::string where = lowrank::concat(records_.name, ' ', records_.place, ' ', place);
    check<FormatError>(object.is_object(), "data", where, " is ", lowrank::json::excerpt(object), "; a record is an object with ",
                       record_fields);
    const KindOfRecord& kind = kind_of(object, where);
    check<FormatError>(records_.items.empty() || kind.kind == records_.kind, "data", where, " has ", kind.fields.front(),
                       ", unlike the records before it; use one kind in a file");
    records_.kind = kind.kind;
    for (const auto& [name, value] : object.items())
      if (std::find(kind.fields.begin(), kind.fields.end(), name) == kind.fields.end()) add_unused(name);
    Record record{.place = place};
    if (kind.kind == RecordKind::text) record.text = text_field(object, "text", where);
    if (kind.kind == RecordKind::completion) {
      record.text = text_field(object, "prompt", where);
      record.completion = text_field(object, "completion", where);
    }
    if (kind.kind == RecordKind::messages) record.messages = messages_field(object, where);
    records_.items.push_back(std::move(record));
  }

  Records finish() {
    check<FormatError>(!records_.items.empty(), "data", records_.name, " holds no record; a record has ", record_fields);
    return std::move(records_);
  }

 private:
  static const KindOfRecord& kind_of(const Json& object, const std::string& where) {
    const KindOfRecord* found = nullptr;
    for (const KindOfRecord& kind : record_kinds()) {
      const auto has = [&](const std::string& field) { return object.contains(field); };
      if (std::none_of(kind.fields.begin(), kind.fields.end(), has)) continue;
      check<FormatError>(found == nullptr, "data", where, " has ", found ? found->fields.front() : "", " and ", kind.fields.front(),
                         "; keep the fields of one kind: ", record_fields);
      check<FormatError>(std::all_of(kind.fields.begin(), kind.fields.end(), has), "data", where, " has one of ", kind.fields.front(),
                         " and ", kind.fields.back(), "; a record needs both");
      found = &kind;
    }
    std::string names;
    for (const auto& [name, value] : object.items()) names += (names.empty() ? "" : ", ") + lowrank::name_text(name);
    check<FormatError>(found != nullptr, "data", where, names.empty() ? " has no field" : " has the fields ", names, "; a record has ",
                       record_fields);
    return *found;
  }

  static std::string text_field(const Json& object, const char* field, const std::string& where) {
    const Json& value = object.at(field);
    check<FormatError>(value.is_string(), "data", where, ": ", field, " is ", lowrank::json::excerpt(value), "; it must be a string");
    return value.get<std::string>();
  }

  static std::vector<Message> messages_field(const Json& object, const std::string& where) {
    const Json& list = object.at("messages");
    check<FormatError>(list.is_array() && !list.empty(), "data", where, ": messages is ", lowrank::json::excerpt(list),
                       R"(; it must be a list such as [{"role": "user", "content": "…"}, …])");
    std::vector<Message> messages;
    for (const Json& entry : list) {
      check<FormatError>(entry.is_object() && entry.contains("role") && entry.contains("content"), "data", where, ": a message is ",
                         lowrank::json::excerpt(entry), "; it must be an object with role and content");
      Message message{text_field(entry, "role", where), ""};
      Json more = entry;
      more.erase("role");
      if (entry.at("content").is_string()) {
        message.content = entry.at("content").get<std::string>();
        more.erase("content");
      }
      if (!more.empty()) message.more = lowrank::json::text_of(more);
      messages.push_back(std::move(message));
    }
    return messages;
  }

  void add_unused(const std::string& name) {
    if (std::find(records_.unused.begin(), records_.unused.end(), name) == records_.unused.end()) records_.unused.push_back(name);
  }

  Records records_;
};

std::string_view after_blanks(std::string_view text) { return text.substr(std::min(text.size(), text.find_first_not_of(json_blanks))); }

/// Whether a text is meant as JSON records: it begins like an object or an array of objects, or all of it is a JSON array.
bool looks_like_json(std::string_view text) {
  text = after_blanks(text);
  const std::string_view inner = after_blanks(text.substr(std::min<std::size_t>(1, text.size())));
  if (text.starts_with('{')) return inner.starts_with('"') || inner.starts_with('}');
  return text.starts_with('[') && (inner.starts_with('{') || Json::accept(text));
}

Records read_array_records(const Json& array, const std::string& name) {
  Collector records(name, "JSON array", "record");
  Index number = 0;
  for (const Json& object : array) records.add(object, ++number);
  return records.finish();
}

Records read_json_records(std::string_view text, const std::string& name) {
  const std::string_view begin = after_blanks(text);
  if (begin.starts_with('[')) return read_array_records(lowrank::json::parse(text, "data", name), name);
  if (!Json::accept(begin.substr(0, begin.find('\n'))) && Json::accept(begin))  // one object over several lines
    return read_array_records(Json::array({lowrank::json::parse(begin, "data", name)}), name);
  Collector records(name, "JSON lines", "line");
  Index number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.size(), text.find('\n', at));
    const std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(json_blanks) == std::string_view::npos) continue;
    records.add(lowrank::json::parse(line, "data", lowrank::concat(name, " line ", number)), number);
  }
  return records.finish();
}

/// The separator with which the first line names the fields of a record, or '\0'. One column alone may be a word of a text.
char csv_separator(std::string_view text, const std::string& name, bool one_column) {
  const std::size_t begin = text.find_first_not_of("\r\n");
  const std::string_view header = text.substr(begin, text.find_first_of("\r\n", begin) - begin);
  for (const char separator : {',', '\t', ';'}) {
    if (header.find(separator) == std::string_view::npos && !one_column) continue;
    if (std::count(header.begin(), header.end(), '"') % 2 != 0) continue;  // a quote that ends in a later line: no header, or a strange one
    const auto columns = CsvReader(header, separator, name).next();
    for (const KindOfRecord& kind : record_kinds())
      if (kind.kind != RecordKind::messages && std::all_of(kind.fields.begin(), kind.fields.end(), [&](const std::string& field) {
            return std::find(columns.begin(), columns.end(), field) != columns.end();
          }))
        return separator;
  }
  return '\0';
}

Records read_csv(std::string_view text, char separator, const std::string& name) {
  CsvReader rows(text, separator, name);
  Collector records(name, separator == '\t' ? "TSV" : "CSV", "line");
  const std::vector<std::string> header = rows.next();
  for (std::size_t i = 0; i < header.size(); ++i)
    check<FormatError>(std::find(header.begin(), header.begin() + static_cast<std::ptrdiff_t>(i), header[i]) ==
                           header.begin() + static_cast<std::ptrdiff_t>(i),
                       "data", name, " has two columns ", lowrank::name_text(header[i]), "; keep one of them");
  for (auto row = rows.next(); !row.empty(); row = rows.next()) {
    check<FormatError>(row.size() == header.size(), "data", name, " line ", rows.line(), " has ", row.size(), " cells but the header ",
                       header.size(), "; put a cell that holds a separator or a newline in quotes");
    Json object = Json::object();
    for (std::size_t i = 0; i < row.size(); ++i) object[header[i]] = std::move(row[i]);
    records.add(object, rows.line());
  }
  return records.finish();
}

bool has_extension(const std::filesystem::path& path, std::initializer_list<std::string_view> extensions) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return std::find(extensions.begin(), extensions.end(), extension) != extensions.end();
}

}  // namespace

Records read_records(const std::filesystem::path& path) {
  const std::string text = read_data_text(path), name = lowrank::path_text(path);
  const std::string_view begin = after_blanks(text);
  check<FormatError>(!begin.empty(), "data", name, " holds ", text.empty() ? "nothing" : "nothing but blanks", "; give text to learn");
  if (looks_like_json(text)) return read_json_records(text, name);
  const std::string_view line = begin.substr(0, std::min<std::size_t>(begin.find_first_of("\r\n"), 60));
  check<FormatError>(!has_extension(path, {".json", ".jsonl", ".ndjson"}), "data", name, " is no JSON: it begins with ",
                     lowrank::name_text(std::string(line)), "; a record is an object with ", record_fields);
  const bool named_csv = has_extension(path, {".csv", ".tsv"});
  const char separator = csv_separator(text, name, named_csv);
  if (separator != '\0') return read_csv(text, separator, name);
  check<FormatError>(!named_csv, "data", name, " has the first line ", lowrank::name_text(std::string(line)),
                     "; it must name the columns: text, or prompt and completion");
  Records records{.name = name, .format = "plain text", .is_plain = true};
  records.items.push_back({.text = text, .place = 1});
  return records;
}

}  // namespace transformer
