// The sampler's own rules; tests/native/test_sampler.py compares draws with the numpy specification.
#include <algorithm>
#include <cmath>
#include <stdexcept>

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
        for (size_t n : {1, 15, 127, 128, 129, 5000}) {  // kernels of rows against the plainest loops
            std::vector<float> x(n), maxima((n + kStretch - 1) / kStretch), sums(maxima.size()), masked(n);
            for (float& v : x) v = std::round(normal(random) * 8) / 4;
            if (n > 1) x[n / 2] = -INFINITY;
            std::vector<float> own(maxima.size());
            const float largest = kernels->maxima(x.data(), n, maxima.data(), 1.25f, own.data());
            CHECK(largest == *std::max_element(x.begin(), x.end()), "%s: largest of %zu", kernels->name, n);
            const float least = largest - 1.5f, most = largest - 0.25f;
            kernels->weights(x.data(), n, maxima.data(), largest, 1.25f, least, sums.data());
            std::vector<int32_t> found(n + kLanes), wanted, allowed((n + 31) / 32);
            for (size_t s = 0; s < maxima.size(); s++) {
                const auto begin = x.begin() + s * kStretch, end = x.begin() + std::min(n, (s + 1) * kStretch);
                CHECK(maxima[s] == *std::max_element(begin, end), "%s: stretch %zu of %zu", kernels->name, s, n);
                double sum = 0;
                for (auto v = begin; v != end; v++) sum += *v >= least ? std::exp((*v - largest) * 1.25) : 0;
                double all = 0;
                for (auto v = begin; v != end; v++) all += std::exp((*v - maxima[s]) * 1.25);
                CHECK(std::abs(own[s] - all) <= 2e-6 * all, "%s: own weights of %zu", kernels->name, n);
                CHECK(std::abs(sums[s] - sum) <= 2e-6 * sum, "%s: weights of %zu", kernels->name, n);
            }
            for (size_t i = 0; i < n; i++)
                if (x[i] >= least && x[i] <= most) wanted.push_back(static_cast<int32_t>(i));
            found.resize(kernels->between(x.data(), n, maxima.data(), least, most, found.data()));
            CHECK(found == wanted, "%s: between, of %zu", kernels->name, n);
            for (int32_t& word : allowed) word = static_cast<int32_t>(random());
            kernels->only(x.data(), n, allowed.data(), masked.data());
            for (size_t i = 0; i < n; i++) {
                const bool is = static_cast<uint32_t>(allowed[i / 32]) >> i % 32 & 1;
                CHECK(masked[i] == (is ? x[i] : -INFINITY), "%s: mask of %zu at %zu", kernels->name, n, i);
            }
            for (size_t at : {size_t{0}, n / 2, n - 1}) {
                const float before = x[at];
                x[at] = -NAN;
                CHECK(std::isnan(kernels->maxima(x.data(), n, maxima.data(), 0.0f, nullptr)), "%s: NaN at %zu",
                      kernels->name, at);
                x[at] = before;
            }
        }
        {  // an edited row is as it was, whatever comes of it
            std::vector<float> x(300, 1.0f), before = x;
            const std::vector<int32_t> ids{7, 7, 299};
            const std::vector<float> twice{2.0f}, nan{NAN};
            const std::vector<Edit> good{{EditKind::add, ids, twice}}, bad{good[0], {EditKind::put, ids, nan}};
            CHECK(sampler.draw_edited(x.data(), x.size(), good, {1, 1, 0.0f, 0, 1.0f, 0.0f, false}).token == 7,
                  "%s: what is added twice wins", kernels->name);
            bool thrown = false;
            try {
                sampler.draw_edited(x.data(), x.size(), bad, {1, 1, 0.0f, 0, 1.0f, 0.0f, false});
            } catch (const std::domain_error&) {
                thrown = true;
            }
            CHECK(thrown && x == before, "%s: a row is restored", kernels->name);
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
