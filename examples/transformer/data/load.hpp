#pragma once

#include <transformer/data.hpp>
#include <transformer/data/records.hpp>
#include <transformer/tokenizer.hpp>

/// Records as sequences of tokens to learn.

namespace transformer {

struct DataOptions {
  Index length = 128;    ///< a sequence predicts so many tokens at most
  bool hold_out = true;  ///< a tenth of the data is held out; false: all of it goes into Dataset::train
  bool strict = false;   ///< a record left out or cut, or a field without a use, is an error
  SpelledTokens spelled = SpelledTokens::text;
};

/// Makes examples of records. Each record is a text of its own: no token sees another record's.
///
/// A text begins and is closed as the tokenizer says, is cut into windows where it is longer than a sequence, and all of it is learned; of
/// a prompt with its completion, which are one text, the completion is; of messages what the assistant says. Every tenth record is held
/// out, or, of a single text, its last tenth. A record with nothing to predict within a sequence is left out, a completion or conversation
/// longer than one is cut, and the report says so. Throws ValueError when nothing is left, FormatError for messages without a template.
Dataset make_dataset(const Tokenizer& tokenizer, const Records& records, const DataOptions& options);

}  // namespace transformer
