#include <lowrank/update/embedding.hpp>

#include "problems.hpp"

using namespace lowrank;

namespace {

/// An update of a token table of 50 words, added to the last tokens of a batch, one word twice.
template <class S>
void pin_table_update(pins::Results& results, const std::string& name) {
  auto update = make_lora<S>(50, 48, {.rank = 4, .alpha = 6, .seed = 5});
  pins::move_update(update, 6);
  for (const Index tokens : {1, 9, 40}) {
    std::vector<std::int32_t> ids;
    for (Index t = 0; t < tokens; ++t) ids.push_back(static_cast<std::int32_t>(t * 17 % 23));
    const auto y = pins::drawn_columns<S>(48, tokens + 3, 1), g = pins::drawn_columns<S>(48, tokens + 3, 2);
    const std::string at = name + "/t" + std::to_string(tokens);
    results.add(at + "/y", add_embedding_update(Var<S>(y), ids, 3, update).value());
    pins::clear_gradients(update);
    Tape<S> tape;
    const Var<S> input = tape.variable(y), z = add_embedding_update(input * input, ids, 3, update);
    results.add(at + "/taped", z.value());
    tape.backward(z, g);
    results.add(at + "/dy", tape.gradient(input));
    pins::add_gradients(results, at, update);
  }
}

}  // namespace

TEST_CASE("pinned: an update of a token table") {
  pins::check_pinned("embedding", [](pins::Results& results) {
    pin_table_update<float>(results, "float");
    pin_table_update<double>(results, "double");
  });
}
