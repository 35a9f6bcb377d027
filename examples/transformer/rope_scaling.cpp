#include <transformer/rope_scaling.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <transformer/architecture.hpp>

namespace transformer {

namespace {

/// What a description says of one RoPE.
struct Scaling {
  const Fields& fields;  ///< the object that has the numbers
  const ModelConfig& config;
  Index original = 0;  ///< the context that the frequencies were trained for

  double positive(const std::string& key, std::optional<double> fallback = {}) const {
    const auto value = fields.number(key);
    if (!value && !fallback) fields.refuse(key, " is missing; this kind of RoPE scaling needs it");
    const double number = value.value_or(fallback.value_or(0));
    if (number <= 0) fields.refuse(key, " is ", number, "; it must be positive");
    return number;
  }
};

/// Wavelength in tokens of pair j.
double wave_of(const lowrank::RopeOptions& rope, Index j) {
  return 2 * std::numbers::pi * std::pow(rope.base, 2.0 * static_cast<double>(j) / static_cast<double>(rope.turned_size()));
}

template <class Factor>
void set_factors(lowrank::RopeOptions& rope, const Factor& factor) {
  rope.frequency_factors.clear();
  for (Index j = 0; j < rope.turned_size() / 2; ++j) rope.frequency_factors.push_back(factor(j));
}

/// Llama 3: 1 for short waves, `factor` for long ones, a blend of the frequencies between.
void read_llama3(const Scaling& scaling, lowrank::RopeOptions& rope) {
  const double factor = scaling.positive("factor", 8), low = scaling.positive("low_freq_factor", 1),
               high = scaling.positive("high_freq_factor", 4);
  if (high <= low) scaling.fields.refuse("high_freq_factor", " is ", high, "; it must be larger than low_freq_factor, ", low);
  set_factors(rope, [&](Index j) {
    const double blend = std::clamp((static_cast<double>(scaling.original) / wave_of(rope, j) - low) / (high - low), 0.0, 1.0);
    return 1 / ((1 - blend) / factor + blend);
  });
}

struct Yarn {
  double factor, fast = 32, slow = 1, magnitude = 1;
  bool truncate = true;
};

/// YaRN, Peng et al. 2023: pairs that turn often stay, slow ones are stretched, with a ramp over the pairs between.
void set_yarn(const Yarn& yarn, Index original, lowrank::RopeOptions& rope) {
  const auto pair_of = [&](double turns) {  // that turns so often in the original context
    return static_cast<double>(rope.turned_size()) * std::log(static_cast<double>(original) / (2 * std::numbers::pi * turns)) /
           (2 * std::log(rope.base));
  };
  double low = pair_of(yarn.fast), high = pair_of(yarn.slow);
  if (yarn.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, static_cast<double>(rope.turned_size() - 1));
  if (low == high) high += 0.001;
  set_factors(rope, [&](Index j) {
    const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    return 1 / (ramp / yarn.factor + 1 - ramp);
  });
  rope.magnitude = yarn.magnitude;
}

double yarn_magnitude(double factor, double scale) { return factor <= 1 ? 1 : 0.1 * scale * std::log(factor) + 1; }

void read_yarn(const Scaling& scaling, lowrank::RopeOptions& rope) {
  const Fields& fields = scaling.fields;
  Yarn yarn{scaling.positive("factor", static_cast<double>(scaling.config.context) / static_cast<double>(scaling.original))};
  const auto given = [&](const char* key, double fallback) { return fields.number(key).value_or(0) > 0 ? *fields.number(key) : fallback; };
  yarn.fast = given("beta_fast", 32), yarn.slow = given("beta_slow", 1), yarn.truncate = fields.flag("truncate").value_or(true);
  const double scale = given("mscale", 0), all = given("mscale_all_dim", 0);
  const bool both = scale > 0 && all > 0;
  yarn.magnitude = both ? yarn_magnitude(yarn.factor, scale) / yarn_magnitude(yarn.factor, all) : yarn_magnitude(yarn.factor, 1);
  yarn.magnitude = scaling.positive("attention_factor", yarn.magnitude);
  set_yarn(yarn, scaling.original, rope);
}

/// Factors for short and for long texts; beyond the original context the long ones.
void set_long(const std::vector<double>& short_factors, std::vector<double> long_factors, Index original, ModelConfig& config) {
  config.rope.frequency_factors = short_factors;
  config.growth = {RopeGrowth::Kind::long_factors, original, 1, std::move(long_factors)};
}

double long_magnitude(double factor, Index original) {
  return factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original)));
}

void read_long(const Scaling& scaling, ModelConfig& config) {
  const auto list = [&](const char* key) {
    auto factors = scaling.fields.numbers(key).value_or(std::vector<double>{});
    if (static_cast<Index>(factors.size()) != config.rope.turned_size() / 2)
      scaling.fields.refuse(key, " has ", factors.size(), " factors for ", config.rope.turned_size() / 2, " pairs; give one each");
    if (!std::all_of(factors.begin(), factors.end(), [](double x) { return x > 0; }))
      scaling.fields.refuse(key, " has a factor that is not positive");
    return factors;
  };
  const double factor = scaling.positive("factor", static_cast<double>(config.context) / static_cast<double>(scaling.original));
  set_long(list("short_factor"), list("long_factor"), scaling.original, config);
  config.rope.magnitude = scaling.positive("attention_factor", long_magnitude(factor, scaling.original));
}

/// One RoPE by its kind. Dynamic and longrope follow the text's length, which is the whole model's matter.
void read_kind(const Scaling& scaling, lowrank::RopeOptions& rope, ModelConfig* grown) {
  const std::string kind = scaling.fields.text("rope_type").value_or(scaling.fields.text("type").value_or("default"));
  if (kind == "default") return;
  if (kind == "linear") {
    const double factor = scaling.positive("factor", 1);
    set_factors(rope, [&](Index) { return factor; });
  } else if (kind == "llama3") {
    read_llama3(scaling, rope);
  } else if (grown && (kind == "longrope" || kind == "su" || (kind == "yarn" && scaling.config.fused))) {  // Phi-3's older names
    read_long(scaling, *grown);
  } else if (kind == "yarn") {
    read_yarn(scaling, rope);
  } else if (grown && kind == "dynamic") {
    const double factor = scaling.positive("factor", 1);
    grown->growth = {RopeGrowth::Kind::dynamic, grown->context, factor, {}};
    grown->context = static_cast<Index>(std::ceil(static_cast<double>(grown->context) * std::max(factor, 1.0)));
  } else {
    scaling.fields.refuse("rope_type", " is ", lowrank::name_text(kind),
                          "; default, linear, dynamic, llama3, yarn and longrope are supported");
  }
}

/// How many numbers of a head turn.
template <class Value>
void set_turned(const Fields& fields, const char* key, const Value& value, Index turned, ModelConfig& config) {
  if (turned < 2 || turned % 2 != 0 || turned > config.head_size)
    fields.refuse(key, " is ", value, ", so that ", turned, " of ", config.head_size, " numbers of a head turn; they turn in pairs");
  config.rope.turned = turned == config.head_size ? 0 : turned;
}

double base_of(const Fields& fields, const Fields& scaling, const char* key, double fallback) {
  const bool inside = scaling.number("rope_theta").has_value();
  const double base = scaling.number("rope_theta").value_or(fields.number(key).value_or(fallback));
  if (base <= 0) (inside ? scaling : fields).refuse(inside ? "rope_theta" : key, " is ", base, "; it must be positive");
  return base;
}

}  // namespace

void read_folder_rope(const Fields& fields, ModelConfig& config) {
  const Architecture& family = architecture_of(config);
  const Fields none(Fields::Json::object(), "load_folder", fields.file());
  auto scaling = fields.object("rope_scaling");
  const auto parameters = fields.object("rope_parameters");
  if (!scaling || scaling->is_empty()) scaling = parameters ? parameters : none;
  const bool by_kind = scaling->has("full_attention") || scaling->has("sliding_attention");  // gemma3: one for each kind of layers
  const Fields all = by_kind ? scaling->object("full_attention").value_or(none) : *scaling;
  const Fields local = by_kind ? scaling->object("sliding_attention").value_or(none) : none;
  config.rope = {config.head_size, base_of(fields, all, "rope_theta", family.rope_base), lowrank::RopePairs::halves};
  const double part = fields.number("partial_rotary_factor").value_or(all.number("partial_rotary_factor").value_or(1));
  if (part != 1 && !family.turns_parts)
    fields.refuse("partial_rotary_factor", " is ", part, "; models of the type ", family.name, " turn whole heads");
  if (part <= 0 || part > 1) fields.refuse("partial_rotary_factor", " is ", part, "; it must lie in (0, 1]");
  if (part != 1)
    set_turned(fields, "partial_rotary_factor", part, static_cast<Index>(static_cast<double>(config.head_size) * part), config);
  if (family.has_local_rope) {
    config.local_rope = {{config.head_size, base_of(fields, local, "rope_local_base_freq", 10000), lowrank::RopePairs::halves}};
    read_kind({local, config, config.context}, config.local_rope.front(), nullptr);
  }
  const auto trained = [&](Index fallback) {
    return fields.size("original_max_position_embeddings").value_or(all.size("original_max_position_embeddings").value_or(fallback));
  };
  const Index original = trained(family.original_context > 0 ? family.original_context : config.context);
  if (original <= 1) fields.refuse("original_max_position_embeddings", " is ", original, "; it must be larger than 1");
  read_kind({all, config, original}, config.rope, &config);
}

void read_gguf_rope(const Fields& fields, ModelConfig& config) {
  const Architecture& family = architecture_of(config);
  const auto base = [&](const char* key, double fallback) {
    const double value = fields.number(key).value_or(fallback);
    if (value <= 0) fields.refuse(key, " is ", value, "; it must be positive");
    return value;
  };
  config.rope = {config.head_size, base("rope.freq_base", 10000), family.gguf_pairs};
  const Index turned = fields.size("rope.dimension_count").value_or(config.head_size);
  if (turned != config.head_size && !family.turns_parts)
    fields.refuse("rope.dimension_count", " is ", turned, "; models of the architecture ", family.name, " turn all ", config.head_size,
                  " numbers of a head");
  set_turned(fields, "rope.dimension_count", turned, turned, config);
  const double local = family.has_local_rope ? base("rope.freq_base_swa", 10000) : config.rope.base;
  if (config.window > 0 && !family.stretches_windows) config.local_rope = {{config.head_size, local, family.gguf_pairs}};

  const std::string kind = fields.text("rope.scaling.type").value_or("linear");
  const double factor = base("rope.scaling.factor", base("rope.scale_linear", 1));
  config.growth.original_context = fields.size("rope.scaling.original_context_length").value_or(config.context);
  if (config.growth.original_context <= 1) fields.refuse("rope.scaling.original_context_length", " must be larger than 1");
  const double magnitude = base("rope.scaling.attn_factor", 1);
  config.rope.magnitude = magnitude;
  if (kind == "linear" && factor != 1) {
    set_factors(config.rope, [&](Index) { return factor; });
  } else if (kind == "yarn") {
    Yarn yarn{factor, base("rope.scaling.yarn_beta_fast", 32), base("rope.scaling.yarn_beta_slow", 1)};
    yarn.magnitude = magnitude * base("rope.scaling.yarn_attn_factor", yarn_magnitude(factor, 1));
    set_yarn(yarn, config.growth.original_context, config.rope);
  } else if (kind != "linear" && kind != "none" && kind != "longrope") {
    fields.refuse("rope.scaling.type", " is ", lowrank::name_text(kind), "; none, linear, yarn and longrope are supported");
  }
}

}  // namespace transformer
