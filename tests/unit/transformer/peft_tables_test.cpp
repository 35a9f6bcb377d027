#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include <lowrank/io/peft.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/optim/adamw.hpp>

#include <tests/support/golden.hpp>
#include <transformer/adapters.hpp>
#include <transformer/load.hpp>
#include <transformer/merge_model.hpp>
#include <transformer/merged_weight.hpp>
#include <transformer/open_adapter.hpp>

#include <support/files.hpp>

#include "transformer_support.hpp"

using namespace transformer;
using lowrank::test::GoldenFile;
using lowrank::test::TemporaryFolder;
using transformer_test::golden_folder;

namespace {

const std::filesystem::path peft_tables = golden_folder / "peft_tables";

struct TableCase {
  const char *name, *base;
  bool has_update_of_head = false;
};
const TableCase table_cases[] = {{"norms", "base"},       {"tokens", "base"},        {"tokens_tied", "tied"},       {"tokens_both", "base"},
                                 {"table_alone", "tied"}, {"table_tied", "tied"},    {"update_tied", "tied", true}, {"dora_table", "base"},
                                 {"resized", "base"},     {"resized_saved", "base"}, {"resized_tokens", "tied"}};

struct TableText {
  std::vector<std::int32_t> ids, targets;
  explicit TableText(const GoldenFile& file) : ids(file.ints("ids")) {
    for (std::size_t i = 0; i < ids.size(); ++i) targets.push_back(i % 12 == 11 ? lowrank::ignored_target : ids[i + 1]);
  }
};

template <class Values>
double table_difference(const std::vector<float>& expected, const Values& given) {
  const Eigen::Map<const lowrank::Column<float>> want(expected.data(), static_cast<Index>(expected.size())),
      have(given.data(), given.size());
  REQUIRE(want.size() == have.size());
  return static_cast<double>((want - have).cwiseAbs().maxCoeff() / want.cwiseAbs().maxCoeff());
}

/// Gradients against PEFT's, by the names of the file; returns how many there were.
int check_table_gradients(const TableCase& one, LoraSet& set, const GoldenFile& expected) {
  int count = 0;
  set.visit_parameters([&](const Parameter<float>& parameter) {
    if (!parameter.needs_grad()) return;
    const std::string& name = parameter.name;
    CAPTURE(name);
    std::vector<float> want = expected.floats("grad." + name);
    const bool is_shared = one.has_update_of_head && name.starts_with("model.embed_tokens.");
    if (is_shared) {  // PEFT has the two uses of one matrix as two parameters on one memory: their gradients add up
      const bool is_a = name.ends_with("_A");
      const std::vector<float> of_head = expected.floats(is_a ? "grad.lm_head.lora_B.weight" : "grad.lm_head.lora_A.weight");
      for (Index i = 0; i < parameter.rows(); ++i)
        for (Index j = 0; j < parameter.cols(); ++j)
          want[static_cast<std::size_t>(i * parameter.cols() + j)] += of_head[static_cast<std::size_t>(j * parameter.rows() + i)];
    }
    CHECK(table_difference(want, parameter.grad) < 1e-4);
    count += is_shared ? 2 : 1;
  });
  return count;
}

}  // namespace

TEST_CASE("norms, rows of tokens, tied tables, DoRA of a table and tables that grew: PEFT's logits, loss and gradients") {
  for (const TableCase& one : table_cases) {
    CAPTURE(one.name);
    Transformer model = load_model(peft_tables / one.base);
    const GoldenFile expected((peft_tables / one.name / "expected.safetensors").string());
    const TableText text(expected);
    const Adapter adapter = open_adapter(model.config, peft_tables / one.name);
    LoraSet set = bind(model, adapter);
    const Activation<float> logits = model.logits(text.ids, 2, {.lora = &set}).value();
    CHECK(logits.rows() == vocabulary(model, &set));
    CHECK(table_difference(expected.floats("logits"), logits) < 1e-5);
    for (auto& parameter : parameters(model, set)) std::ranges::fill(parameter.grad(), 0.0f);
    Tape<float> tape;
    const Var<float> loss = model.loss(text.ids, text.targets, 2, {.tape = &tape, .lora = &set, .recompute = true});
    CHECK(static_cast<double>(loss.item()) == doctest::Approx(static_cast<double>(expected.floats("loss")[0])).epsilon(1e-5));
    tape.backward(loss);
    const auto names = expected.names();
    const auto of_file = std::count_if(names.begin(), names.end(), [](const std::string& name) { return name.starts_with("grad."); });
    CHECK(check_table_gradients(one, set, expected) == of_file);
    Transformer plain = merged(model, set);
    CHECK(table_difference(expected.floats("logits"), plain.logits(text.ids, 2).value()) < 1e-5);
  }
}

TEST_CASE("norms and tables: both files are written back byte by byte, and through a set with the same numbers") {
  for (const TableCase& one : table_cases) {
    CAPTURE(one.name);
    const TemporaryFolder folder;
    const Adapter adapter = lowrank::peft::load(peft_tables / one.name);
    lowrank::peft::save(adapter, folder / "same");
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
      CHECK(lowrank::test::read_file(folder / "same" / file) == lowrank::test::read_file(peft_tables / one.name / file));
    Transformer model = load_model(peft_tables / one.base);
    const LoraSet set = bind(model, adapter);
    lowrank::peft::save(to_adapter(model, set, adapter.config), folder / "again");
    LoraSet again = bind(model, lowrank::peft::load(folder / "again"));
    const TableText text(GoldenFile((peft_tables / one.name / "expected.safetensors").string()));
    LoraSet first = set;
    CHECK(model.logits(text.ids, 2, {.lora = &again}).value() == model.logits(text.ids, 2, {.lora = &first}).value());
    for (const lowrank::StoredTensor& tensor : adapter.saved) {
      const auto is = [&](const char* part) { return tensor.name.find(part) != tensor.name.npos; };
      if (is("modules_to_save") || is("original_module") || is("lm_head.token_adapter.trainable_tokens_delta")) continue;  // said once
      const auto& saved = lowrank::peft::load(folder / "again").saved;
      CHECK_MESSAGE(std::any_of(saved.begin(), saved.end(), [&](const auto& other) { return other.name == tensor.name; }), tensor.name);
    }
    if (!adapter.saved.empty())
      CHECK_THROWS_WITH_AS(lowrank::gguf::check_adapter(adapter, gguf_base(model.config), "x.gguf"),
                           doctest::Contains("GGUF adapters cannot hold"), lowrank::ValueError);
  }
}

TEST_CASE("what is trained here beside the linear maps is saved and loaded with the same bits, and can be merged") {
  const auto table_config = [](const char* change) {
    lowrank::LoraConfig config{.rank = 3, .alpha = 6, .target_modules = std::vector<std::string>{"q_proj"}};
    const std::string what = change;
    if (what == "norms") config.modules_to_save = {"norm"};
    if (what == "tokens") config.trained_tokens[""] = {3, 11, 7};
    if (what == "both tables") config.trained_tokens = {{"embed_tokens", {1, 5}}, {"lm_head", {2, 3}}};
    if (what == "table") config.modules_to_save = {"embed_tokens"};
    if (what == "update" || what == "dora") config.target_modules = std::vector<std::string>{"q_proj", "embed_tokens"};
    if (what == "dora") lowrank::set_method(config, "dora");
    return config;
  };
  const TableText text(GoldenFile((peft_tables / "norms/expected.safetensors").string()));
  const std::tuple<const char*, const char*, bool> trained[] = {
      {"norms", "base", false}, {"tokens", "base", false}, {"tokens", "tied", false}, {"both tables", "base", false},
      {"table", "tied", false}, {"table", "tied", true},   {"update", "tied", true},  {"dora", "base", false}};
  for (const auto& [what, base, ties] : trained) {
    CAPTURE(what);
    CAPTURE(ties);
    Transformer model = load_model(peft_tables / base);
    lowrank::LoraConfig config = table_config(what);
    config.ensure_weight_tying = ties;
    LoraSet set = new_lora(model, config, lowrank::LoraInit::kaiming, 3);
    const Activation<float> before = model.logits(text.ids, 2).value();
    CHECK(transformer_test::distance(model.logits(text.ids, 2, {.lora = &set}).value(), before) < 1e-6);
    lowrank::AdamW<float> optimizer(parameters(model, set), {.learning_rate = 0.02f});
    for (int step = 0; step < 3; ++step) {
      optimizer.zero_grad();
      Tape<float> tape;
      tape.backward(model.loss(text.ids, text.targets, 2, {.tape = &tape, .lora = &set}));
      optimizer.step();
    }
    const Activation<float> after = model.logits(text.ids, 2, {.lora = &set}).value();
    CHECK(transformer_test::distance(after, before) > 1e-2);
    const TemporaryFolder folder;
    lowrank::peft::save(to_adapter(model, set, config), folder / "a");
    LoraSet again = bind(model, lowrank::peft::load(folder / "a"));
    CHECK(model.logits(text.ids, 2, {.lora = &again}).value() == after);
    merge_model(model, set, peft_tables / base, folder / "merged", {});
    CHECK(transformer_test::distance(load_model(folder / "merged").logits(text.ids, 2).value(), after) < 1e-5);
  }
}

TEST_CASE("tables that grew are merged into the folder with their number of tokens") {
  for (const TableCase& one : {TableCase{"resized", "base"}, TableCase{"resized_saved", "base"}, TableCase{"resized_tokens", "tied"}}) {
    CAPTURE(one.name);
    const Transformer model = load_model(peft_tables / one.base);
    const TemporaryFolder folder;
    merge_model(model, bind(model, lowrank::peft::load(peft_tables / one.name)), peft_tables / one.base, folder / "merged", {});
    Transformer merged_model = load_model(folder / "merged");
    CHECK(merged_model.config.vocabulary == 44);
    const GoldenFile expected((peft_tables / one.name / "expected.safetensors").string());
    CHECK(table_difference(expected.floats("logits"), merged_model.logits(TableText(expected).ids, 2).value()) < 1e-5);
  }
}

TEST_CASE("an adapter for more tokens than the model has is refused with both numbers where its tables are not all there") {
  const Transformer model = load_model(peft_tables / "base");
  const auto refused = [&](const Adapter& adapter, const char* part) {
    const std::string complaint = lowrank::test::complaint([&] { bind(model, adapter); });
    CHECK_MESSAGE(complaint.find(part) != complaint.npos, complaint);
  };
  Adapter adapter = lowrank::peft::load(peft_tables / "resized");
  std::erase_if(adapter.saved, [](const auto& tensor) { return tensor.name == "lm_head.weight"; });
  refused(adapter, "trained with 44 tokens, the model has 40, and the adapter brings model.embed_tokens but not lm_head");
  adapter = lowrank::peft::load(peft_tables / "dora_table");
  lowrank::ModuleTensors& table = adapter.layers.at("model.embed_tokens");
  table.a() = lowrank::from_weight("a", lowrank::Weight<float>::Zero(3, 44));
  refused(adapter, "the adapter was trained with 44 tokens, the model has 40");
  adapter.saved.clear();
  refused(adapter, "the adapter was trained with 44 tokens, the model has 40");
}

TEST_CASE("copies of norms are saved as the family's files have them, w - 1 in Gemma's") {
  const std::filesystem::path gemma = golden_folder / "architectures/gemma3";
  Transformer model = load_model(gemma);
  lowrank::LoraConfig config{.rank = 2, .alpha = 2, .target_modules = std::vector<std::string>{"q_proj"}, .modules_to_save = {"norm"}};
  const LoraSet set = new_lora(model, config, lowrank::LoraInit::kaiming, 3);
  const Adapter adapter = to_adapter(model, set, config);
  const auto file = lowrank::safetensors::File::open(gemma / "model.safetensors");
  CHECK(adapter.saved.size() == model.named_norms().size());
  for (const lowrank::StoredTensor& tensor : adapter.saved) {
    const lowrank::Weight<float> mine = lowrank::to_weight(tensor), theirs = lowrank::to_weight(file.at(tensor.name));
    CHECK_MESSAGE((mine - theirs).cwiseAbs().maxCoeff() < 1e-6f, tensor.name);
  }
  LoraSet again = bind(model, adapter);
  const std::vector<std::int32_t> ids{1, 2, 3};
  CHECK(transformer_test::distance(model.logits(ids, 1, {.lora = &again}).value(), model.logits(ids, 1).value()) < 1e-6);
}
