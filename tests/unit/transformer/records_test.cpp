#include <initializer_list>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/error.hpp>
#include <transformer/data/records.hpp>

#include <support/files.hpp>

using lowrank::FormatError;
using transformer::Record;
using transformer::RecordKind;
using transformer::Records;

namespace {

Records read_bytes(const std::string& bytes, const std::string& name = "data.txt") {
  const lowrank::test::TemporaryFolder folder(lowrank::test::memory_place());
  lowrank::test::write_file(folder / name, bytes);
  return transformer::read_records(folder / name);
}

/// That the file is refused, and each of the reasons stands in the message.
void refuses_data(const std::string& bytes, std::initializer_list<const char*> reasons, const std::string& name = "data.txt") {
  const std::string message = lowrank::test::complaint([&] { read_bytes(bytes, name); });
  CAPTURE(bytes.substr(0, 80));
  CAPTURE(message);
  CHECK(message.starts_with("[data] "));
  for (const char* reason : reasons) CHECK(message.find(reason) != std::string::npos);
}

const std::string two_lines = "{\"prompt\": \"a\", \"completion\": \" b\"}\n\n{\"completion\": \"d\\n\", \"prompt\": \"\"}\n";

void check_two(const Records& records, transformer::Index second_place) {
  REQUIRE(records.items.size() == 2);
  CHECK(records.kind == RecordKind::completion);
  CHECK(records.items[0].text == "a");
  CHECK(records.items[0].completion == " b");
  CHECK(records.items[0].place == (records.format == "CSV" || records.format == "TSV" ? 2 : 1));
  CHECK(records.items[1].text.empty());
  CHECK(records.items[1].completion == "d\n");
  CHECK(records.items[1].place == second_place);
}

std::string with_carriage_returns(std::string text) {
  for (std::size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 2) text.insert(at, "\r");
  return text;
}

}  // namespace

TEST_CASE("records are read by what the file holds, whatever its name") {
  for (const std::string name : {"data.txt", "data.json", "data.jsonl", "data", "data.csv"}) {
    CAPTURE(name);
    check_two(read_bytes(two_lines, name), 3);
    check_two(read_bytes(with_carriage_returns(two_lines), name), 3);
    check_two(read_bytes("\xEF\xBB\xBF" + two_lines, name), 3);
    check_two(read_bytes("\n [{\"prompt\": \"a\",\n \"completion\": \" b\"}, {\"prompt\": \"\", \"completion\": \"d\\n\"}]\n", name), 2);
  }
  CHECK(read_bytes(two_lines).format == "JSON lines");
  CHECK(read_bytes("[{\"text\": \"a\"}]").format == "JSON array");
  CHECK(read_bytes("[{\"text\": \"a\"}]").place == "record");
  for (const std::string name : {"data.txt", "data.csv", "data.tsv", "data"}) {
    CAPTURE(name);
    check_two(read_bytes("prompt,completion\na, b\n\"\",\"d\n\"\n", name), 3);
    check_two(read_bytes("\xEF\xBB\xBFprompt,completion\r\na, b\r\n\r\n\"\",\"d\n\"", name), 4);
    check_two(read_bytes("completion;prompt\n b;a\n\"d\n\";\n", name), 3);
    check_two(read_bytes("prompt\tcompletion\na\t b\n\t\"d\n\"\n", name), 3);
    check_two(read_bytes("\"prompt\",\"completion\"\n\"a\",\" b\"\n,\"d\n\"\n", name), 3);
  }
  CHECK(read_bytes("prompt\tcompletion\na\tb\n").format == "TSV");
}

TEST_CASE("a text is a text, and kept to the byte") {
  for (const std::string text :
       {"Once upon a time.\r\nThere was", "[Chapter 1]\n\nIt was", "[1] a citation", "{ not json }", "a, b, c\n1, 2, 3\n", "text",
        "text\nand more", "\"quoted\"", " indented\n", "prompt and completion\n", "{'text': 'Python'}"}) {
    CAPTURE(text);
    const Records records = read_bytes(text);
    CHECK(records.is_plain);
    CHECK(records.format == "plain text");
    REQUIRE(records.items.size() == 1);
    CHECK(records.items[0].text == text);
  }
  CHECK(read_bytes("\xEF\xBB\xBFtext").items[0].text == "text");
}

TEST_CASE("what is no text is refused by what it is, with the way to text") {
  refuses_data(std::string("PAR1\x15\x04\0\0PAR1", 12), {"a Parquet file", "read_parquet"});
  refuses_data("\x1F\x8B\x08", {"gzip -dk"});
  refuses_data("\x28\xB5\x2F\xFD", {"zstd -d"});
  refuses_data("PK\x03\x04", {"a zip archive"});
  refuses_data(std::string("GGUF\3\0\0\0", 8), {"a GGUF model", "--model"});
  refuses_data(std::string("\xFF\xFE"
                           "a\0b\0",
                           6),
               {"UTF-16", "iconv"});
  refuses_data(std::string("\xFE\xFF\0a", 4), {"UTF-16", "iconv"});
  refuses_data(std::string("\xFF\xFE\0\0a\0\0\0", 8), {"UTF-32", "iconv"});
  refuses_data(std::string("a\0b\0\n\0", 6), {"UTF-16LE"});
  refuses_data(std::string("\0a\0b", 4), {"UTF-16BE"});
  refuses_data(std::string("a\0\0\0b\0\0\0", 8), {"UTF-32LE"});
  refuses_data(std::string("text\0more", 9), {"zero byte at byte 4"});
  refuses_data("first\nb\xFF", {"not UTF-8", "byte 7", "line 2", "255"});
  refuses_data("Caf\xE9 noir", {"byte 3", "WINDOWS-1252"});
  refuses_data("{\"text\": \"\xFF\"}\n", {"not UTF-8", "byte 10"}, "data.jsonl");
  refuses_data("", {"holds nothing"});
  refuses_data(" \n\t\r\n", {"nothing but blanks"});
  refuses_data("\xEF\xBB\xBF", {"holds nothing"});
  refuses_data("\n \n", {"nothing but blanks"}, "data.jsonl");
  CHECK_THROWS_AS(transformer::read_records("/nowhere/data.txt"), lowrank::IoError);
}

TEST_CASE("a name that promises another format is refused") {
  refuses_data("hello\n", {"is no JSON", "\"hello\""}, "data.jsonl");
  refuses_data("\"text\"\n", {"is no JSON"}, "data.JSON");
  refuses_data("{'text': 'Python'}\n", {"is no JSON"}, "data.ndjson");
  refuses_data("a,b\n1,2\n", {"\"a,b\"", "name the columns"}, "data.csv");
  refuses_data("Text\nhello\n", {"name the columns"}, "data.csv");
  CHECK(read_bytes("text\nhello\n", "data.csv").items[0].text == "hello");
}

TEST_CASE("a record that is none is refused with its place") {
  const std::string good = "{\"text\": \"a\"}\n";
  refuses_data(good + "{\"txet\": \"a\"}\n", {"line 2", "\"txet\"", "prompt and completion"});
  refuses_data(good + "\n{}\n", {"line 3", "no field"});
  refuses_data("{}", {"line 1", "no field"});
  refuses_data(good + "{\"text\": 5}\n", {"line 2", "text is 5", "string"});
  refuses_data("{\"text\": null}\n", {"line 1", "text is null"});
  refuses_data("{\"text\": [\"a\", \"b\"]}\n", {"line 1", "[\"a\",\"b\"]"});
  refuses_data("{\"prompt\": \"a\", \"completion\": 1.5}\n", {"line 1", "completion is 1.5"});
  refuses_data("{\"prompt\": \"a\"}\n", {"line 1", "needs both"});
  refuses_data("{\"completion\": \"a\"}\n", {"line 1", "needs both"});
  refuses_data("{\"text\": \"t\", \"prompt\": \"p\", \"completion\": \"c\"}\n", {"line 1", "text and prompt", "one kind"});
  refuses_data("{\"text\": \"t\", \"prompt\": \"p\"}\n", {"line 1"});
  refuses_data(good + "{\"prompt\": \"a\", \"completion\": \"b\"}\n", {"line 2", "has prompt", "unlike"});
  refuses_data(good + "[1, 2]\n", {"line 2", "[1,2]"});
  refuses_data(good + "\"a\"\n", {"line 2"});
  refuses_data(good + "{\"text\": \"a\"", {"line 2", "not valid JSON"});
  refuses_data(good + "{\"text\": \"a\"}{\"text\": \"b\"}\n", {"line 2", "not valid JSON"});
  refuses_data(good + "{\"text\": \"a\"} // why\n", {"line 2", "not valid JSON"});
  refuses_data(good + "{\"text\": \"a\", \"x\": NaN}\n", {"line 2", "not valid JSON"});
  refuses_data(good + "{\"text\": \"a\\ud800\"}\n", {"line 2", "not valid JSON"});
  refuses_data("{\"text\": \"a\", \"text\": \"b\"}\n", {"line 1", "\"text\" occurs twice"});
  refuses_data("{\"text\": \"a\", \"x\": " + std::string(100, '[') + std::string(100, ']') + "}\n", {"line 1", "nested"});
}

TEST_CASE("arrays: of records, of something else, in each other") {
  refuses_data("[]", {"holds no record"});
  refuses_data("[1, 2]", {"record 1 is 1"});
  refuses_data("[[{\"text\": \"a\"}]]", {"record 1 is [{\"text\":\"a\"}]"});
  refuses_data("[{\"text\": \"a\"}, {\"txt\": \"b\"}]", {"record 2", "\"txt\""});
  refuses_data("[{\"text\": \"a\"},]", {"not valid JSON"});
  refuses_data("[{\"text\": \"a\"}", {"not valid JSON"});
  refuses_data("[{\"text\": \"a\", \"text\": \"b\"}]", {"occurs twice"});
  CHECK(read_bytes("[\n{\"text\": \"a\"}\n]").items.size() == 1);
  // One object over several lines is one record.
  CHECK(read_bytes("{\n  \"text\": \"a\"\n}\n").items[0].text == "a");
  refuses_data("{\n  \"data\": [{\"text\": \"a\"}]\n}\n", {"record 1", "\"data\""});
  refuses_data("{\n  \"text\": \"a\"\n", {"line 1", "not valid JSON"});
}

TEST_CASE("tables: cells in quotes, columns that are missing, doubled or too many") {
  const Records records = read_bytes("id,text\n1,\"a \"\"quoted\"\" word,\nand a line\"\n2,plain \"quote\"\n3,\n", "data.csv");
  REQUIRE(records.items.size() == 3);
  CHECK(records.items[0].text == "a \"quoted\" word,\nand a line");
  CHECK(records.items[1].text == "plain \"quote\"");
  CHECK(records.items[1].place == 4);
  CHECK(records.items[2].text.empty());
  CHECK(records.unused == std::vector<std::string>{"id"});
  CHECK(read_bytes(",text\n0,a\n").unused == std::vector<std::string>{""});
  CHECK(read_bytes("\ttext\n0\ta\n").items[0].text == "a");
  refuses_data("text,id\na,1\nb\n", {"line 3 has 1 cells", "header 2"});
  refuses_data("text,id\na,1,2\n", {"line 2 has 3 cells"});
  refuses_data("text,text,id\na,b,1\n", {"two columns \"text\""});
  refuses_data("text,id\n\"a,1\nb,2\n", {"line 2", "a quote is not closed"});
  refuses_data("text,id\n\"a\"b,2\n", {"line 2", "closing quote"});
  refuses_data("text,id\n", {"holds no record"});
  refuses_data("text,prompt,completion\na,b,c\n", {"line 2", "text and prompt"});
}

TEST_CASE("fields without a use are named") {
  const Records records = read_bytes("{\"text\": \"a\", \"id\": 1}\n{\"text\": \"b\", \"source\": \"x\", \"id\": 2}\n");
  CHECK(records.unused == std::vector<std::string>{"id", "source"});
}

TEST_CASE("messages keep what they hold") {
  const Records records = read_bytes(
      R"({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": null, "tool_calls": [1]}], "tools": []})");
  CHECK(records.kind == RecordKind::messages);
  REQUIRE(records.items[0].messages.size() == 2);
  CHECK(records.items[0].messages[0].role == "user");
  CHECK(records.items[0].messages[0].content == "hi");
  CHECK(records.items[0].messages[0].more.empty());
  CHECK(records.items[0].messages[1].more == R"({"content":null,"tool_calls":[1]})");
  CHECK(records.unused == std::vector<std::string>{"tools"});
  refuses_data("{\"messages\": []}", {"line 1", "list"});
  refuses_data("{\"messages\": \"hi\"}", {"line 1", "list"});
  refuses_data("{\"messages\": [\"hi\"]}", {"line 1", "role and content"});
  refuses_data("{\"messages\": [{\"role\": \"user\"}]}", {"line 1", "role and content"});
  refuses_data("{\"messages\": [{\"role\": 1, \"content\": \"\"}]}", {"line 1", "role is 1"});
}
