#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/types.hpp>

/// The commands of the program and their options, as CLI11 parses them. Its header costs a compiler seven seconds, so command.cpp alone
/// includes it.

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace cli {

/// An option of a command; each function adds a rule and returns the option.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option required();
  Option shows_default();
  Option shows_default(const std::string& text);
  Option in_range(int low, int high);
  Option in_range(double low, double high);
  Option positive();
  Option not_negative();
  Option one_of(std::initializer_list<const char*> words);
  Option one_of(std::initializer_list<int> numbers);
  Option one_of(const std::vector<std::string>& words);
  Option separated_by(char delimiter);
  /// A word or a positive number.
  Option number_or(const char* word);
  Option needs(Option other);
  Option excludes(Option other);

  bool is_given() const;

 private:
  CLI::Option* option_;
};

/// A command, or the program itself: options write into the values that they name, which must outlive the parsing.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  Command add_command(const char* name, const char* help);
  void require_command();

  Option add_option(const char* name, std::string& value, const char* help);
  Option add_option(const char* name, std::vector<std::string>& values, const char* help);
  Option add_option(const char* name, int& value, const char* help);
  Option add_option(const char* name, lowrank::Index& value, const char* help);
  Option add_option(const char* name, std::vector<lowrank::Index>& values, const char* help);
  Option add_option(const char* name, std::uint64_t& value, const char* help);
  Option add_option(const char* name, float& value, const char* help);
  Option add_option(const char* name, double& value, const char* help);
  Option add_flag(const char* name, bool& value, const char* help);

  /// One of a few words, each of which stands for a value of an enumeration.
  template <class Enum>
  Option add_choice(const char* name, Enum& value, const std::vector<std::pair<std::string, Enum>>& words, const char* help) {
    std::vector<std::pair<std::string, int>> numbers;
    for (const auto& [word, meaning] : words) numbers.emplace_back(word, static_cast<int>(meaning));
    return add_choice(name, numbers, help, [&value](int chosen) { value = static_cast<Enum>(chosen); });
  }

  /// Whether the option of that name was given.
  bool is_given(const std::string& name) const;

  /// What the command does once its options are read. `run` throws what it does not know how to do.
  void when_called(std::function<void()> run);

 private:
  Option add_choice(const char* name, const std::vector<std::pair<std::string, int>>& words, const char* help,
                    const std::function<void(int)>& choose);

  CLI::App* app_;
};

/// Ends a command that lacks an option, as the parser would.
[[noreturn]] void fail_required(const char* options);

/// The program: parses its arguments and runs the command that they name.
class Program {
 public:
  Program(const char* description, const char* name, const std::string& version);

  Command command() { return Command(app_.get()); }

  /// Exit status: 0 done, 2 wrong use. Throws what the command throws.
  int run(int argc, char** argv);

 private:
  std::shared_ptr<CLI::App> app_;
};

}  // namespace cli
