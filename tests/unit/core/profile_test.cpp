#include <doctest/doctest.h>

#include <chrono>
#include <numeric>
#include <thread>

#include <lowrank/core/parallel.hpp>
#include <lowrank/core/profile.hpp>

using namespace lowrank;

namespace {

/// Keeps a thread busy for at least so long.
void spend(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

double of(const PhaseSeconds& seconds, Phase phase) { return seconds[static_cast<std::size_t>(phase)]; }

}  // namespace

using namespace std::chrono_literals;

TEST_CASE("profile: time goes to the innermost phase, and all phases add up to the threads' time") {
  const auto begin = std::chrono::steady_clock::now();
  const Profile profile;
  {
    const PhaseScope outer(Phase::loss);
    spend(4ms);
    {
      const PhaseScope inner(Phase::product);
      spend(8ms);
    }
    spend(4ms);
  }
  spend(2ms);
  const PhaseSeconds seconds = profile.seconds(2);
  const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  CHECK(of(seconds, Phase::loss) >= 0.008);
  CHECK(of(seconds, Phase::product) >= 0.008);
  CHECK(of(seconds, Phase::other) >= 0.002);
  CHECK(of(seconds, Phase::optimizer) == 0);
  const double sum = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  CHECK(sum <= 2 * wall);
  CHECK(of(seconds, Phase::waiting) >= 0.018);  // the second thread had nothing to do
}

TEST_CASE("profile: what attention calls is attention") {
  const Profile profile;
  {
    const PhaseScope attention(Phase::attention);
    const PhaseScope product(Phase::product);
    spend(3ms);
  }
  const PhaseSeconds seconds = profile.seconds(1);
  CHECK(of(seconds, Phase::attention) >= 0.003);
  CHECK(of(seconds, Phase::product) == 0);
}

TEST_CASE("profile: the helpers of a loop count for the loop's phase") {
  const int before = thread_count();
  set_thread_count(2);
  const Profile profile;
  const PhaseScope scope(Phase::packing);
  parallel_for(8, [](Index) { spend(2ms); });
  CHECK(of(profile.seconds(2), Phase::packing) >= 0.016);
  set_thread_count(before);
}

TEST_CASE("profile: nothing is counted while none runs, and a new one begins at zero") {
  {
    const Profile profile;
    const PhaseScope scope(Phase::product);
    spend(2ms);
  }
  {
    const PhaseScope scope(Phase::product);
    spend(2ms);
  }
  const Profile profile;
  CHECK(of(profile.seconds(1), Phase::product) == 0);
}
