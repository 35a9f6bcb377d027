#include <cmath>
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

/// nan and inf are numbers to the parser of options, and nan passes the checks of ranges. A transformation comes before those.
void refuse_not_finite(CLI::App& app) {
  const auto check = [](std::string& text) {
    return std::isfinite(std::strtod(text.c_str(), nullptr)) ? std::string() : text + " is not a finite number";
  };
  for (CLI::Option* option : app.get_options())
    if (option->get_type_name().starts_with("FLOAT")) option->transform(CLI::Validator(check, ""));
  for (CLI::App* command : app.get_subcommands({})) refuse_not_finite(*command);
}
}  // namespace

/// Exit status: 0 done, 1 failed, 2 wrong use. Results go to stdout, everything else to stderr.
int main(int argc, char** argv) {
  cli::now();
  keep_memory();
  CLI::App app("lowrank: fine-tune the model file that you serve", "lowrank");
  app.set_version_flag("--version",
                       lowrank::concat("lowrank ", LOWRANK_VERSION_MAJOR, '.', LOWRANK_VERSION_MINOR, '.', LOWRANK_VERSION_PATCH));
  app.require_subcommand(1);
  app.failure_message([](const CLI::App*, const CLI::Error& error) {
    return lowrank::concat("lowrank: ", lowrank::printable(error.what()), "; see lowrank --help\n");
  });
  cli::add_demo(app);
  cli::add_finetune(app);
  cli::add_generate(app);
  cli::add_evaluate(app);
  cli::add_adapter(app);
  cli::add_bench(app);
  cli::add_pretrain(app);
  cli::add_quantize(app);
  refuse_not_finite(app);
  try {
    app.parse(argc, argv);
    return std::fflush(stdout) == 0 ? 0 : 1;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "lowrank: out of memory; use a smaller --batch or --sequence, or a smaller model\n");
  } catch (const std::length_error&) {
    std::fprintf(stderr, "lowrank: a size is beyond what memory can hold; use a smaller --batch or --sequence, or a smaller model\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lowrank: %s\n", lowrank::printable(error.what()).c_str());
  }
  return 1;
}
