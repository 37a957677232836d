// native_tests [NAME...]: the tests of those names, or all.
#include <algorithm>
#include <chrono>
#include <iterator>
#include <span>
#include <string_view>

#include "check.h"

int failures = 0;

namespace {

struct Test {
    std::string_view name;
    void (*run)();
};
constexpr Test kTests[] = {{"pool", test_pool},           {"linear", test_linear}, {"quantize", test_quantize},
                           {"attention", test_attention}, {"states", test_states}, {"peaks", test_peaks},
                           {"sampler", test_sampler},     {"load", test_load},     {"lists", test_lists}};

void run(const Test& test) {
    const auto start = std::chrono::steady_clock::now();
    test.run();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("%s: %.1f s\n", test.name.data(), seconds.count());
    std::fflush(stdout);
}

}  // namespace

int main(int count, char** words) {
    std::printf("variants here: %s\n", qb::available_variants());
    for (const Test& test : kTests)
        if (count < 2) run(test);
    for (std::string_view name : std::span(words + 1, words + count)) {
        const auto* test = std::ranges::find(kTests, name, &Test::name);
        if (test == std::end(kTests)) return std::printf("no test is called %s\n", name.data()), 2;
        run(*test);
    }
    std::printf(failures ? "%d checks failed\n" : "all checks passed\n", failures);
    return failures ? 1 : 0;
}
