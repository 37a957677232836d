// The sampler's own rules; tests/native/test_sampler.py compares draws with the numpy specification.
#include <algorithm>
#include <cmath>

#include "check.h"
#include "sample/sampler.h"

using namespace qb;

void test_sampler() {
    CHECK(uniform(1, 2) == uniform(1, 2), "the noise is a function of its key");
    CHECK(uniform(1, 2) != uniform(1, 3) && uniform(1, 2) != uniform(2, 2), "and of nothing else");
    for (const Kernels* kernels : variants()) {
        Sampler sampler(*kernels);
        std::mt19937 random(5);
        std::normal_distribution<float> normal;
        for (size_t n : {1, 7, 16, 33, 1000, 20000}) {
            std::vector<float> x(n);
            for (float& v : x) v = std::round(normal(random) * 8) / 4;  // many ties
            const size_t first = static_cast<size_t>(std::max_element(x.begin(), x.end()) - x.begin());
            CHECK(sampler.draw(x.data(), n, {0, 0, 0.0f, 0, 1.0f, 0.0f, false}).token == static_cast<int>(first),
                  "%s: the lowest of the likeliest of %zu", kernels->name, n);
            CHECK(sampler.draw(x.data(), n, {9, 1, 0.7f, 1, 1.0f, 0.0f, false}).token == static_cast<int>(first),
                  "top_k 1 of %zu", n);
            CHECK(sampler.draw(x.data(), n, {9, 1, 0.7f, 0, 1e-6f, 0.0f, false}).token == static_cast<int>(first),
                  "tiny top_p of %zu", n);
            const Drawn drawn = sampler.draw(x.data(), n, {3, 4, 1.3f, 40, 0.9f, 0.05f, true});
            double sum = 0;
            for (float v : x) sum += std::exp(static_cast<double>(v));
            CHECK(std::abs(drawn.logprob - (x[drawn.token] - std::log(sum))) < 1e-5, "%s: log-probability of %zu",
                  kernels->name, n);
        }
        std::vector<float> x(100, 1.0f);
        const auto refused = [&](float value) {
            for (float& v : x) v = value;
            try {
                sampler.draw(x.data(), x.size(), {1, 1, 1.0f, 0, 1.0f, 0.0f, false});
            } catch (const std::domain_error&) {
                return true;
            }
            return false;
        };
        CHECK(refused(NAN) && refused(-INFINITY), "%s: rows that nothing can be drawn from are refused", kernels->name);
    }
}
