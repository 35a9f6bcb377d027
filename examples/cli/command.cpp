#include <cli/command.hpp>

#include <cmath>
#include <cstdlib>
#include <map>

#include <CLI/CLI.hpp>

#include <lowrank/error.hpp>

namespace cli {

Option Option::required() { return Option(option_->required()); }
Option Option::shows_default() { return Option(option_->capture_default_str()); }
Option Option::shows_default(const std::string& text) { return Option(option_->default_str(text)); }
Option Option::in_range(int low, int high) { return Option(option_->check(CLI::Range(low, high))); }
Option Option::in_range(double low, double high) { return Option(option_->check(CLI::Range(low, high))); }
Option Option::positive() { return Option(option_->check(CLI::PositiveNumber)); }
Option Option::not_negative() { return Option(option_->check(CLI::NonNegativeNumber)); }
Option Option::one_of(std::initializer_list<const char*> words) { return Option(option_->check(CLI::IsMember(words))); }
Option Option::one_of(std::initializer_list<int> numbers) { return Option(option_->check(CLI::IsMember(numbers))); }
Option Option::one_of(const std::vector<std::string>& words) { return Option(option_->check(CLI::IsMember(words))); }
Option Option::separated_by(char delimiter) { return Option(option_->delimiter(delimiter)); }
Option Option::number_or(const char* word) {
  const auto check = [word](const std::string& text) {
    char* end = nullptr;
    const double number = std::strtod(text.c_str(), &end);
    const bool is_number = end != text.c_str() && *end == '\0' && std::isfinite(number) && number > 0;
    return is_number || text == word ? std::string() : text + " is neither a positive number nor " + word;
  };
  return Option(option_->check(CLI::Validator(check, lowrank::concat("POSITIVE or ", word))));
}
Option Option::needs(Option other) { return Option(option_->needs(other.option_)); }
Option Option::excludes(Option other) { return Option(option_->excludes(other.option_)); }

bool Option::is_given() const { return option_->count() > 0; }

Command Command::add_command(const char* name, const char* help) { return Command(app_->add_subcommand(name, help)); }

void Command::require_command() { app_->require_subcommand(1); }

Option Command::add_option(const char* name, std::string& value, const char* help) { return Option(app_->add_option(name, value, help)); }
Option Command::add_option(const char* name, std::vector<std::string>& values, const char* help) {
  return Option(app_->add_option(name, values, help));
}
Option Command::add_option(const char* name, int& value, const char* help) { return Option(app_->add_option(name, value, help)); }
Option Command::add_option(const char* name, lowrank::Index& value, const char* help) {
  return Option(app_->add_option(name, value, help));
}
Option Command::add_option(const char* name, std::vector<lowrank::Index>& values, const char* help) {
  return Option(app_->add_option(name, values, help));
}
Option Command::add_option(const char* name, std::uint64_t& value, const char* help) { return Option(app_->add_option(name, value, help)); }
Option Command::add_option(const char* name, float& value, const char* help) { return Option(app_->add_option(name, value, help)); }
Option Command::add_option(const char* name, double& value, const char* help) { return Option(app_->add_option(name, value, help)); }
Option Command::add_flag(const char* name, bool& value, const char* help) { return Option(app_->add_flag(name, value, help)); }

Option Command::add_choice(const char* name, const std::vector<std::pair<std::string, int>>& words, const char* help,
                           const std::function<void(int)>& choose) {
  std::string names;
  for (const auto& [word, number] : words) names += (names.empty() ? "{" : ",") + word;
  return Option(app_->add_option_function<int>(name, choose, help)
                    ->type_name("ENUM")
                    ->transform(CLI::CheckedTransformer(std::map(words.begin(), words.end())).description(names + '}')));
}

bool Command::is_given(const std::string& name) const { return app_->get_option(name)->count() > 0; }

void Command::when_called(std::function<void()> run) { app_->callback(std::move(run)); }

void fail_required(const char* options) { throw CLI::RequiredError(options); }

Program::Program(const char* description, const char* name, const std::string& version)
    : app_(std::make_shared<CLI::App>(description, name)) {
  app_->set_version_flag("--version", version);
  app_->require_subcommand(1);
  app_->failure_message([](const CLI::App*, const CLI::Error& error) {
    return lowrank::concat("lowrank: ", lowrank::printable(error.what()), "; see lowrank --help\n");
  });
}

namespace {

/// nan and inf are numbers to the parser of options, and nan passes the checks of ranges. A transformation comes before those.
void refuse_not_finite(CLI::App& app) {
  const auto check = [](std::string& text) {
    return std::isfinite(std::strtod(text.c_str(), nullptr)) ? std::string() : text + " is not a finite number";
  };
  for (CLI::Option* option : app.get_options())
    if (option->get_type_name().starts_with("FLOAT")) option->transform(CLI::Validator(check, ""));
  for (CLI::App* command : app.get_subcommands({})) refuse_not_finite(*command);
}

}  // namespace

int Program::run(int argc, char** argv) {
  refuse_not_finite(*app_);
  try {
    app_->parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app_->exit(error) == 0 ? 0 : 2;
  }
}

}  // namespace cli
