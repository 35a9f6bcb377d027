#include <transformer/jinja/from_json.hpp>

#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/error.hpp>
#include <lowrank/io/json.hpp>

namespace transformer::jinja {

namespace {

/// Builds a value from the events of a parser; nlohmann's own object sorts its keys.
class ValueBuilder : public nlohmann::json::json_sax_t {
 public:
  explicit ValueBuilder(std::string_view name) : name_(name) {}

  Value take() { return std::move(result_); }

  bool null() override { return add(Value()); }
  bool boolean(bool value) override { return add(Value::boolean(value)); }
  bool number_integer(number_integer_t value) override { return add(Value::integer(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    lowrank::check<lowrank::FormatError>(value <= INT64_MAX, "jinja", name_, ": ", value, " is beyond 64 bits, which is not supported");
    return add(Value::integer(static_cast<std::int64_t>(value)));
  }
  bool number_float(number_float_t value, const string_t& text) override {
    const bool whole = text.find_first_of(".eE") == string_t::npos;
    lowrank::check<lowrank::FormatError>(!whole, "jinja", name_, ": ", text, " is beyond 64 bits, which is not supported");
    return add(Value::real(value));
  }
  bool string(string_t& value) override { return add(Value::text(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(true); }
  bool key(string_t& name) override {
    levels_.back().key = name;
    return true;
  }
  bool end_object() override {
    Entries entries = std::move(levels_.back().entries);
    levels_.pop_back();
    return add(Value::dict(std::move(entries)));
  }
  bool start_array(std::size_t) override { return open(false); }
  bool end_array() override {
    Items items = std::move(levels_.back().items);
    levels_.pop_back();
    return add(Value::list(std::move(items)));
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    lowrank::fail<lowrank::FormatError>("jinja", name_, ": not valid JSON: ", error.what());
  }

 private:
  struct Level {
    bool is_object;
    std::string key;
    Items items;
    Entries entries;
  };

  bool open(bool is_object) {
    lowrank::check<lowrank::FormatError>(levels_.size() < static_cast<std::size_t>(lowrank::json::max_depth), "jinja", name_,
                                         ": more than ", lowrank::json::max_depth, " objects and arrays are in each other");
    levels_.push_back({is_object, {}, {}, {}});
    return true;
  }

  bool add(Value value) {
    if (levels_.empty())
      result_ = std::move(value);
    else if (levels_.back().is_object)
      levels_.back().entries.emplace_back(Value::text(levels_.back().key), std::move(value));
    else
      levels_.back().items.push_back(std::move(value));
    return true;
  }

  std::string_view name_;
  std::vector<Level> levels_;
  Value result_;
};

}  // namespace

Value from_json(std::string_view text, std::string_view name) {
  ValueBuilder builder(name);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

}  // namespace transformer::jinja
