#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include <lowrank/core/types.hpp>

#include <transformer/chat_template.hpp>

/// The records of a data file, before any of it becomes tokens.

namespace transformer {

using lowrank::Index;

/// What a record holds, and so what of it is learned: a text, all of it; a prompt and its completion, that alone; the messages of a
/// conversation, what the assistant says.
enum class RecordKind { text, completion, messages };

struct Record {
  std::string text = {}, completion = {};  ///< text: the prompt where there is a completion
  std::vector<Message> messages = {};
  Index place = 0;  ///< the line that it begins in, or its number in a JSON array, from 1
};

/// A data file's records, all of one kind.
struct Records {
  std::string name, format;    ///< the file, and what it is
  std::string place = "line";  ///< what Record::place counts
  RecordKind kind = RecordKind::text;
  bool is_plain = false;  ///< a text file, of one record, and no set of records
  std::vector<Record> items = {};
  std::vector<std::string> unused = {};  ///< names of fields that stand beside those of the kind, in the order that they are met in
};

/// Reads plain text, JSON lines, a JSON array of records, or CSV and its like with a header, by what the file holds: a name that promises
/// another format is an error.
///
/// Throws IoError, and FormatError with the place for what is none of them and for a record that lacks its fields, has those of two kinds,
/// has another type in one of them, or is of another kind than the first.
Records read_records(const std::filesystem::path& path);

}  // namespace transformer
