#include <doctest/doctest.h>

#include <utility>
#include <vector>

#include <lowrank/core/handle.hpp>

using namespace lowrank;

namespace {

struct Thing : Handled {
  int number = 0;
  explicit Thing(int n = 0) : number(n) {}
};

}  // namespace

TEST_CASE("a handle follows its object when it moves and is null when it has ended") {
  Handle<Thing> handle;
  CHECK_FALSE(handle.is_set());
  CHECK(handle.get() == nullptr);
  {
    Thing first(1);
    handle = Handle(first);
    CHECK(handle.get() == &first);
    Thing second = std::move(first);
    CHECK(handle.get() == &second);
    CHECK(handle->number == 1);
    std::vector<Thing> things;
    things.push_back(std::move(second));
    things.resize(100);  // moves them again
    CHECK(handle.get() == &things[0]);
  }
  CHECK(handle.is_set());
  CHECK(handle.get() == nullptr);
  CHECK_THROWS_AS(handle->number = 2, Error);
}

TEST_CASE("a copy is another object; assignment keeps the object unless handles come along") {
  Thing a(1), b(2);
  Handle of_a(a), of_b(b);
  Thing copy = a;
  CHECK(of_a.get() == &a);
  a = b;  // new numbers
  CHECK(of_a.get() == &a);
  CHECK(of_b.get() == &b);
  CHECK(a.number == 2);
  a = Thing(3);  // nobody refers to what is moved in
  CHECK(of_a.get() == &a);
  a = std::move(b);  // what `b` was is `a` now, and what `a` was has ended
  CHECK(of_b.get() == &a);
  CHECK(of_a.get() == nullptr);
  b = Thing(4);
  const Handle again(b);
  CHECK(again.get() == &b);
}

TEST_CASE("objects that are swapped keep their handles") {
  Thing a(1), b(2);
  const Handle of_a(a), of_b(b);
  std::swap(a, b);
  CHECK(of_a->number == 1);
  CHECK(of_b->number == 2);
  CHECK(of_a.get() == &b);
  CHECK(of_b.get() == &a);
}
