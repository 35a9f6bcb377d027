#include <transformer/jinja/template.hpp>

#include <algorithm>

#include <transformer/jinja/evaluator.hpp>
#include <transformer/jinja/parser.hpp>

namespace transformer::jinja {

namespace {
bool holds_generation(const Block& block) {
  return std::any_of(block.begin(), block.end(), [](const Statement& s) {
    const auto inside = [](const Branch& branch) { return holds_generation(branch.body); };
    return s.kind == Statement::Kind::generation || holds_generation(s.body) || holds_generation(s.otherwise) ||
           std::any_of(s.branches.begin(), s.branches.end(), inside);
  });
}
}  // namespace

Template::Template(std::string_view source) : statements_(parse(source)), has_generation_(holds_generation(statements_)) {}

Template::Result Template::render(Run& run, Variables variables) const {
  Evaluator evaluator(run, std::move(variables));
  evaluator.execute(statements_);
  return {std::move(evaluator.text()), evaluator.generated()};
}

}  // namespace transformer::jinja
