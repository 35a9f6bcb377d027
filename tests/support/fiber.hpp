#pragma once

/// Threads that take turns: what the model of a GPU's block (support/simt.hpp) runs its threads on.

#include <csetjmp>
#include <cstddef>
#include <memory>

#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt_test {

/// A stack of its own and the way to switch to it: entered once by a context, from then on by setjmp and longjmp, which cost no system
/// call.
class Fiber {
 public:
  explicit Fiber(void (*entry)()) : stack_(new std::byte[stack_bytes]) {
    ::getcontext(&context_);
    context_.uc_stack.ss_sp = stack_.get();
    context_.uc_stack.ss_size = stack_bytes;
    context_.uc_link = nullptr;
    ::makecontext(&context_, entry, 0);
  }

  [[gnu::noinline]] void enter(std::jmp_buf& from) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, stack_.get(), stack_bytes);
#endif
    jump(from);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }
  [[gnu::noinline]] void leave(std::jmp_buf& to) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, caller_stack_, caller_bytes_);
#endif
    if (_setjmp(at_) == 0) _longjmp(to, 1);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, &caller_stack_, &caller_bytes_);
#endif
  }
  void entered() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &caller_stack_, &caller_bytes_);
#endif
  }

 private:
  [[gnu::noinline]] void jump(std::jmp_buf& from) {
    if (_setjmp(from) != 0) return;
    if (started_) _longjmp(at_, 1);
    started_ = true;
    ::setcontext(&context_);
  }

  static constexpr std::size_t stack_bytes = std::size_t{1} << 18;
  std::unique_ptr<std::byte[]> stack_;
  ucontext_t context_;
  std::jmp_buf at_;
  bool started_ = false;
#if defined(__SANITIZE_ADDRESS__)
  const void* caller_stack_ = nullptr;
  std::size_t caller_bytes_ = 0;
#endif
};

}  // namespace simt_test
