#include <transformer/jinja/arguments.hpp>

#include <algorithm>

#include <transformer/jinja/operators.hpp>

namespace transformer::jinja {

Bound::Bound(Run& run, std::string_view what, const Arguments& arguments, std::initializer_list<std::string_view> parameters,
             std::size_t required)
    : run_(run), what_(what), given_(parameters.size(), nullptr) {
  run.check(arguments.positional.size() <= parameters.size(), what, " takes ", parameters.size(), " arguments at most, not ",
            arguments.positional.size());
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) given_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(parameters.begin(), parameters.end(), name);
    run.check(found != parameters.end(), what, " has no argument `", name, "` that is supported");
    const Value*& place = given_[static_cast<std::size_t>(found - parameters.begin())];
    run.check(place == nullptr, what, " is given the argument `", name, "` twice");
    place = &value;
  }
  for (std::size_t i = 0; i < required; ++i) run.check(given_[i] != nullptr, what, " needs the argument `", *(parameters.begin() + i), '`');
}

const std::string& Bound::text(std::size_t index) const {
  check_defined(run_, *given_[index]);
  run_.check(given_[index]->is_text(), what_, " wants a text, not ", given_[index]->type_name());
  return given_[index]->as_text();
}

std::int64_t Bound::whole(std::size_t index, std::int64_t otherwise) const {
  if (!given_[index]) return otherwise;
  check_defined(run_, *given_[index]);
  run_.check(given_[index]->is_whole(), what_, " wants a whole number, not ", given_[index]->type_name());
  return given_[index]->as_integer();
}

bool Bound::is_true(std::size_t index, bool otherwise) const { return given_[index] ? jinja::is_true(*given_[index]) : otherwise; }

}  // namespace transformer::jinja
