#include <chrono>

#include "check.h"

int failures = 0;

static void run(const char* name, void (*test)()) {
    const auto start = std::chrono::steady_clock::now();
    test();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("%s: %.1f s\n", name, seconds.count());
    std::fflush(stdout);
}

int main() {
    std::printf("variants here: %s\n", qb::available_variants());
    run("pool", test_pool);
    run("linear", test_linear);
    run("quantize", test_quantize);
    run("attention", test_attention);
    run("states", test_states);
    run("peaks", test_peaks);
    run("sampler", test_sampler);
    run("load", test_load);
    run("lists", test_lists);
    std::printf(failures ? "%d checks failed\n" : "all checks passed\n", failures);
    return failures ? 1 : 0;
}
