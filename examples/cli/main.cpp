#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <stdexcept>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <lowrank/config.hpp>
#include <lowrank/error.hpp>

#include <cli/common.hpp>

namespace {
/// What a step frees serves the next one: the C library must neither return it to the system nor map large arrays one by one.
void keep_memory() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}
}  // namespace

/// Exit status: 0 done, 1 failed, 2 wrong use. Results go to stdout, everything else to stderr.
int main(int argc, char** argv) {
  cli::now();
  keep_memory();
  cli::Program program("lowrank: fine-tune the model file that you serve", "lowrank",
                       lowrank::concat("lowrank ", LOWRANK_VERSION_MAJOR, '.', LOWRANK_VERSION_MINOR, '.', LOWRANK_VERSION_PATCH));
  const cli::Command app = program.command();
  cli::add_demo(app);
  cli::add_finetune(app);
  cli::add_generate(app);
  cli::add_chat(app);
  cli::add_evaluate(app);
  cli::add_adapter(app);
  cli::add_bench(app);
  cli::add_pretrain(app);
  cli::add_quantize(app);
  try {
    const int status = program.run(argc, argv);
    return std::fflush(stdout) == 0 ? status : 1;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "lowrank: out of memory; use a smaller --batch or --sequence, or a smaller model\n");
  } catch (const std::length_error&) {
    std::fprintf(stderr, "lowrank: a size is beyond what memory can hold; use a smaller --batch or --sequence, or a smaller model\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lowrank: %s\n", lowrank::printable(error.what()).c_str());
  }
  return 1;
}
