// The kernels that must use tensor cores, for a look at what the compiler makes of them: the products, and attention.
#include <lowrank/cuda.hpp>

using namespace lowrank::cuda;

void launch_products(Launcher& launch, const Product& product, const Scratch& scratch) {
  multiply<false>(launch, product, scratch);
  multiply<true>(launch, product, scratch);
}

void launch_outer(Launcher& launch, const OuterProduct& outer, const Scratch& scratch) { add_outer(launch, outer, scratch); }

void launch_attention(Launcher& launch, const AttentionArrays& arrays) {
  launch(AttentionForwardKernel<64>{arrays});
  launch(AttentionBackwardKeys<64>{arrays});
  launch(AttentionBackwardQueries<64>{arrays});
}
