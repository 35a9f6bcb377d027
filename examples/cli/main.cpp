#include <cstdio>
#include <exception>
#include <new>

#include <lowrank/config.hpp>

#include <cli/common.hpp>

/// Exit status: 0 done, 1 failed, 2 wrong use. Results go to stdout, everything else to stderr.
int main(int argc, char** argv) {
  cli::now();
  CLI::App app("lowrank: fine-tune the model file that you serve", "lowrank");
  app.set_version_flag("--version",
                       lowrank::concat("lowrank ", LOWRANK_VERSION_MAJOR, '.', LOWRANK_VERSION_MINOR, '.', LOWRANK_VERSION_PATCH));
  app.require_subcommand(1);
  app.failure_message(
      [](const CLI::App*, const CLI::Error& error) { return lowrank::concat("lowrank: ", error.what(), "; see lowrank --help\n"); });
  cli::add_demo(app);
  cli::add_finetune(app);
  cli::add_generate(app);
  cli::add_evaluate(app);
  cli::add_adapter(app);
  cli::add_bench(app);
  cli::add_pretrain(app);
  try {
    app.parse(argc, argv);
    return std::fflush(stdout) == 0 ? 0 : 1;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "lowrank: out of memory; use a smaller --batch or --sequence, or a smaller model\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lowrank: %s\n", error.what());
  }
  return 1;
}
