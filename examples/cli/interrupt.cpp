#include <cli/interrupt.hpp>

#include <csignal>
#include <cstdio>

#if defined(_WIN32)
#include <io.h>
#else
#include <unistd.h>
#endif

namespace cli {

namespace {
volatile std::sig_atomic_t interrupted = 0;

extern "C" void note_interrupt(int) {
  interrupted = 1;
#if defined(_WIN32)
  std::signal(SIGINT, note_interrupt);
#endif
}
}  // namespace

Interrupt::Interrupt() {
  interrupted = 0;
#if defined(_WIN32)
  std::signal(SIGINT, note_interrupt);
#else
  struct sigaction action = {};
  action.sa_handler = note_interrupt;  // without SA_RESTART: a read that waits ends
  sigaction(SIGINT, &action, nullptr);
#endif
}

Interrupt::~Interrupt() { std::signal(SIGINT, SIG_DFL); }

bool Interrupt::is_asked_for() const { return interrupted != 0; }

void Interrupt::forget() { interrupted = 0; }

std::optional<std::string> read_line() {
  std::string line;
  for (int c; (c = std::fgetc(stdin)) != EOF;) {
    if (c == '\n') {
      if (line.ends_with('\r')) line.pop_back();
      return line;
    }
    line += static_cast<char>(c);
  }
  if (line.empty() || interrupted) return std::nullopt;
  return line;
}

bool is_terminal() {
#if defined(_WIN32)
  return _isatty(0) != 0;
#else
  return isatty(0) != 0;
#endif
}

}  // namespace cli
