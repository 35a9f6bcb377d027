#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/io/gguf.hpp>

namespace transformer {

/// Mixtures of llama.cpp: most matrices in one type, and those that lose most by it in wider ones.
struct Mixture {
  std::string_view name;  ///< in lower case, such as q4_k_m
  lowrank::GgmlType type;
  std::uint32_t file_type;  ///< llama.cpp's number, for general.file_type
};

/// q2_k_m (which llama.cpp calls Q2_K), q2_k_s, q3_k_s to q3_k_l, q4_k_s, q4_k_m, q5_k_s and q5_k_m.
std::span<const Mixture> mixtures();

/// The mixture of that name, or null.
const Mixture* find_mixture(std::string_view name);

/// Which type a mixture has for each matrix of a file, by llama.cpp's rules for models without experts.
///
/// | mixture | values (attn_v, attn_qkv) of layer i of n | ffn_down | attn_output |
/// |---|---|---|---|
/// | q2_k_m | Q4_K with 4 or more queries a key, else Q3_K | Q3_K | Q3_K |
/// | q2_k_s | Q4_K with 4 or more queries a key | Q4_K for i < n/8 | |
/// | q3_k_m | Q5_K for i < 2, else Q4_K | Q5_K for i < n/16, else Q4_K | Q4_K |
/// | q3_k_l | Q5_K | Q5_K | Q5_K |
/// | q4_k_s | Q5_K for i < 4 | Q5_K for i < n/8 | |
/// | q4_k_m, q5_k_m | Q6_K for more | Q6_K for more | |
///
/// "For more" is the first and the last eighth of the layers and each third one between. In a Llama of 70B, values in Q3_K or Q4_K become
/// Q5_K. Everything else has the mixture's type. The head is none of its concern.
class MixtureRule {
 public:
  MixtureRule(const lowrank::gguf::File& file, const Mixture& mixture);
  lowrank::GgmlType operator()(const std::string& tensor) const;

 private:
  lowrank::GgmlType of_values(int i) const;
  lowrank::GgmlType of_down(int i) const;

  Mixture mixture_;
  std::vector<int> values_, down_;  // layers that have such a matrix, ascending
  int layers_ = 0;
  bool shares_keys_ = false, is_70b_ = false;
};

}  // namespace transformer
