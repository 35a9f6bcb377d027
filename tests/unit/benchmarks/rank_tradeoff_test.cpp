#include <doctest/doctest.h>

#include <rank_tradeoff/explain.hpp>
#include <rank_tradeoff/predict.hpp>
#include <rank_tradeoff/statistics.hpp>
#include <rank_tradeoff/text.hpp>

using namespace rank_tradeoff;

TEST_CASE("work of a layer is counted as its products say") {
  const Shape bare{.m = 3, .n = 5, .r = 0, .tokens = 7, .weight_bytes = 60},
      adapted{.m = 3, .n = 5, .r = 2, .tokens = 7, .weight_bytes = 60};
  CHECK(forward_work(bare).flops == 2 * 3 * 5 * 7);
  CHECK(forward_work(adapted).flops == 2 * 3 * 5 * 7 + 2 * 2 * (3 + 5) * 7);
  CHECK(forward_work(bare).bytes == 60 + 4 * 7 * (3 + 5));
  CHECK(forward_work(adapted).bytes == forward_work(bare).bytes + 4 * 2 * (3 + 5));
  CHECK(backward_work(adapted).flops == 2 * 3 * 5 * 7 + 4 * 2 * (3 + 5) * 7);
  CHECK(step_work(adapted).flops == 4 * 3 * 5 * 7 + 6 * 2 * (3 + 5) * 7 + 12 * 2 * (3 + 5));
  CHECK(step_work(bare).flops == 4 * 3 * 5 * 7);
  CHECK(merge_work(adapted).flops == 2 * 2 * 3 * 5);
  Shape dora = adapted;
  dora.dora = true;
  CHECK(step_work(dora).flops > step_work(adapted).flops);
  CHECK(dora_norm_work(dora).flops == 2 * 3 * 5 * 2 + 2 * 2 * 2 * (3 + 5));
}

TEST_CASE("the roofline is the larger of two times, and the loops") {
  const Peaks peaks{.fp32 = 100, .bf16 = 200, .bandwidth = 10, .region = 0.5};
  CHECK(roofline({1000, 10, 0}, 100, peaks) == doctest::Approx(10));
  CHECK(roofline({100, 50, 3}, 100, peaks) == doctest::Approx(6.5));
}

TEST_CASE("break-even and crossover ranks") {
  CHECK(break_even_tokens(4096, 4096) == 2048);
  CHECK(break_even_tokens(1536, 576) == doctest::Approx(1536.0 * 576 / 2112));
  CHECK(crossover_rank(4096, 4096, 0.05) == doctest::Approx(102.4));
  const std::vector<double> ranks{1, 2, 4, 8}, costs{1.0, 1.1, 1.3, 1.7};
  CHECK(crossing(ranks, costs, 1.2) == doctest::Approx(std::exp2(1.5)));
  CHECK(crossing(ranks, costs, 0.9) == 0);
  CHECK(std::isinf(crossing(ranks, costs, 2)));
  // One noisy point at the beginning does not make the level reached for good.
  CHECK(lasting_crossing(ranks, {1.4, 1.1, 1.1, 1.3}, 1.2) == doctest::Approx(std::exp2(2.5)));
  CHECK(lasting_crossing(ranks, {1.4, 1.3, 1.3, 1.3}, 1.2) == 0);
}

TEST_CASE("Mann and Whitney's test against known values") {
  // Of the C(6, 3) = 20 orders one has U = 0: two-sided 0.1. scipy.stats.mannwhitneyu(…, method="exact") gives the same.
  CHECK(mann_whitney_p({1, 2, 3}, {4, 5, 6}) == doctest::Approx(0.1));
  CHECK(mann_whitney_p({4, 5, 6}, {1, 2, 3}) == doctest::Approx(0.1));
  CHECK(mann_whitney_p({1, 3, 5}, {2, 4, 6}) == doctest::Approx(0.7));
  CHECK(mann_whitney_p({1, 2, 3, 4, 5}, {6, 7, 8, 9, 10}) == doctest::Approx(2.0 / 252));
  CHECK(mann_whitney_p({1, 1, 1}, {1, 1, 1}) == 1);
  CHECK(mann_whitney_p({}, {1}) == 1);
  const auto shares = u_distribution(2, 2);  // 1 1 2 1 1 of 6
  CHECK(shares[0] == doctest::Approx(1.0 / 6));
  CHECK(shares[2] == doctest::Approx(2.0 / 6));
  // Ties take the normal distribution: U = 1, variance 9/12 (7 - 24/30), z = (4.5 - 1 - 0.5) / √4.65.
  CHECK(mann_whitney_p({1, 2, 3}, {3, 3, 4}) == doctest::Approx(std::erfc(3 / std::sqrt(4.65) / std::sqrt(2.0))));
}

TEST_CASE("Holm's correction") {
  const auto adjusted = holm({0.01, 0.04, 0.03, 0.005});
  CHECK(adjusted[3] == doctest::Approx(0.02));
  CHECK(adjusted[0] == doctest::Approx(0.03));
  CHECK(adjusted[2] == doctest::Approx(0.06));
  CHECK(adjusted[1] == doctest::Approx(0.06));  // never below one before it
  CHECK(holm({0.9, 0.8})[0] == 1);
}

TEST_CASE("intervals") {
  const Interval student = student_interval({1, 2, 3});
  CHECK(student.center == doctest::Approx(2));
  CHECK(student.high == doctest::Approx(2 + 4.303 / std::sqrt(3.0)));
  CHECK(std::isinf(student_interval({1}).high));
  const Interval ratio = ratio_interval({1, 1.01, 0.99, 1.02, 0.98}, {2, 2.02, 1.98, 2.04, 1.96});
  CHECK(ratio.center == doctest::Approx(2).epsilon(0.001));
  CHECK(ratio.low < 2);
  CHECK(ratio.high > 2);
  CHECK(ratio.high < 2.1);
}

TEST_CASE("a reason follows the experiments") {
  const Peaks peaks{.fp32 = 1e11, .bf16 = 2e11, .bandwidth = 1e10, .region = 1e-6};
  Row row{"layer", "forward", "nf4", "lora", 576, 1, 4};
  row.times = {1e-4};
  row.work = {1e6, 2e5, 3};
  CHECK(reason(row, {.tiny = 8e-5, .hot = 1e-4, .one_thread = 2e-4}, 1e-4, 0, 2e11, peaks).find("fixed cost") != std::string::npos);
  CHECK(reason(row, {.tiny = 1e-6, .hot = 4e-5, .one_thread = 2e-4}, 1e-4, 0, 2e11, peaks).find("memory:") != std::string::npos);
  CHECK(reason(row, {.tiny = 1e-6, .hot = 1e-4, .one_thread = 1.1e-4}, 1e-4, 0, 2e11, peaks).find("serial") != std::string::npos);
  CHECK(reason(row, {.tiny = 1e-6, .hot = 4e-5, .one_thread = 5e-5}, 1e-4, 0, 2e11, peaks).find("busy") != std::string::npos);
  CHECK(reason(row, {.tiny = 1e-6, .hot = 1e-4, .one_thread = 2e-4}, 1e-4, 1.05e-4, 2e11, peaks).find("small rank") != std::string::npos);
  CHECK(reason(row, {.tiny = 1e-6, .hot = 1e-4, .one_thread = 2e-4}, 1e-4, 2e-4, 2e11, peaks).find("small rank") == std::string::npos);
}

TEST_CASE("what is written can be read") {
  CHECK(csv_field("plain") == "plain");
  CHECK(csv_field("a, \"b\"") == "\"a, \"\"b\"\"\"");
  CHECK(csv_field("two\nlines") == "\"two\nlines\"");
  CHECK(html_text("<r & \"s\">") == "&lt;r &amp; &quot;s&quot;&gt;");
  const Row row{"layer", "forward", "nf4", "lora", 576, 8, 16};
  CHECK(row.name() == "layer/forward/nf4/lora/d:576/tokens:8/rank:16");
}
