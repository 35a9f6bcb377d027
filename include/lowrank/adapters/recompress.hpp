#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/adapters/spectrum.hpp>
#include <lowrank/ops/factors.hpp>
#include <lowrank/product/plan.hpp>

/// Updates at another rank: the best approximation of a sum of updates, of an adapter, or of the difference of two weights.

namespace lowrank::inline LOWRANK_ABI {

/// How many directions to keep: a rank, or as few as keep a share of the energy Σ sᵢ².
class RankChoice {
 public:
  static RankChoice rank(Index r);
  static RankChoice energy(double share);
  bool is_rank() const { return rank_ > 0; }
  Index rank() const { return rank_; }
  double energy() const { return energy_; }
  /// The rank for a matrix with these (leading) singular values and ‖M‖² = total; at least 1.
  Index of(const Eigen::VectorXd& s, double total) const;

 private:
  RankChoice(Index rank, double energy) : rank_(rank), energy_(energy) {}
  Index rank_;
  double energy_;
};

/// How well a layer's update was kept.
struct LayerFit {
  Index rank = 0;       ///< that it has now
  double norm = 0;      ///< ‖D‖ of the update D that was asked for
  double residual = 0;  ///< ‖kept - D‖ / ‖D‖; 0 where D is 0
};

/// A best approximation and how good it is.
struct FittedUpdate {
  Factors factors;
  LayerFit fit;
};

/// An adapter and the fit of each of its layers.
struct FittedAdapter {
  Adapter adapter;
  std::map<std::string, LayerFit> fits;
};

namespace detail {

/// M A of a plan [r', in]; A itself where there is no M.
Weight<float> through_middle(const Plan<float>& plan);

/// The element type of all of them where it is one that adapters are kept in, else float32.
DType common_dtype(std::span<const StoredTensor* const> tensors);

/// A matrix in that element type; of one column as a vector if asked.
StoredTensor to_tensor(std::string name, const Weight<float>& m, DType dtype, bool as_vector = false);

/// Factors as a module of that path.
ModuleTensors to_layer(const std::string& path, const Factors& factors, DType dtype, const ModuleTensors& like);

/// Rank and alpha that most layers have; what differs, saving writes as patterns. Fields of the file that the config came from are dropped:
/// the way in which the parts were initialized is no property of the result.
void set_config_ranks(Adapter& adapter);

}  // namespace detail

/// The best approximation of s B A at that rank, by thin QR of both factors and a small SVD: they may be those of many updates, by stack().
/// Cost: O((out + in) R²); the dense product is never made. Throws ShapeError, ValueError.
FittedUpdate recompress(const Factors& update, const RankChoice& choice);

/// The best approximation of a dense update D [out, in]: exact for small matrices, by sampling for large ones (leading_svd).
FittedUpdate approximate(const Weight<float>& d, const RankChoice& choice, std::uint64_t seed = 0);

/// The adapter at another rank, each layer the best approximation of its own update; element types are kept, every scale becomes 1.
///
/// Biases stay exact. What a method has beside A and B stays as it is (the residual is then that of s B A), as do saved modules. Throws
/// ValueError, also for other types than LORA: to_lora() of update/set.hpp converts those.
FittedAdapter resize(const Adapter& adapter, const RankChoice& choice);

/// The update that turns one weight [out, in] into another, at a rank or with a share of the energy. Throws ShapeError, ValueError.
FittedUpdate extract_update(const Weight<float>& base, const Weight<float>& tuned, const RankChoice& choice);

/// What an additive plan adds to a weight, s B M A + s Δ, at a rank or with a share of the energy: any method that is a sum becomes LoRA.
/// Its bias is no part of that. Cost: O((out + in) r²) for factors, that of approximate() for a dense Δ. Throws ValueError for a plan that
/// is no sum.
FittedUpdate extract_update(const Plan<float>& plan, const RankChoice& choice);

/// The same as a layer of an adapter, in float32 with scale 1.
ModuleTensors to_layer(const std::string& path, const FittedUpdate& update);

/// An adapter of such layers, its configuration naming each module by its path.
FittedAdapter to_adapter(const std::map<std::string, FittedUpdate>& updates);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/adapters/recompress.inl>
#endif
