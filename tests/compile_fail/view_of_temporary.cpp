// A view of numbers that end with the expression.
// expect: give the source a name first
// cases: 4
#include <lowrank/nn.hpp>
#include <lowrank/quant/nf4.hpp>

using namespace lowrank;

std::size_t use(const Weight<float>& w, const Buffer& bytes) {
  const DenseSource<float> dense(w.data(), w.rows(), w.cols());
  const auto q = quantize<Nf4<64>>(dense);
#if !defined(WRONG)
  const WeightView view = q, of_numbers = dense, of_source = q.source(), copy = WeightView(q);
#elif WRONG == 1
  const WeightView view = quantize<Nf4<64>>(dense);
#elif WRONG == 2
  const WeightView view = AnyMatrix(q);
#elif WRONG == 3
  const WeightView view = scaled(dense, 2);
#else
  const WeightView view = StoredMatrix<float>(8, 8, bytes);
#endif
  return static_cast<std::size_t>(view.rows()) + bytes.size();
}
