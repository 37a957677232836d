// Drawing tokens from rows of logits. backends/sampling.py is the specification, in numpy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/pool.h"
#include "table.h"

namespace qb {

struct Draw {
    uint64_t seed;
    int64_t position;   // with the seed it keys the noise
    float temperature;  // 0: the likeliest
    int32_t top_k;      // 0: off
    float top_p;        // 1: off
    float min_p;        // 0: off
    bool logprob;
};

struct Drawn {
    int32_t token;
    float logprob;  // NaN unless asked for
};

// In [0, 1), 53 bits: the same for a seed and a position everywhere.
double uniform(uint64_t seed, int64_t position);

class Sampler {
public:
    explicit Sampler(const Kernels& kernels) : kernels_(kernels) {}

    // n >= 1 logits. Throws std::domain_error, with a sentence, for NaN or when nothing can be drawn.
    Drawn draw(const float* logits, size_t n, const Draw& draw) { return redraw(logits, logits, n, draw); }
    // The token from `processed`, its log-probability from `logits`.
    Drawn redraw(const float* processed, const float* logits, size_t n, const Draw&);

private:
    struct Candidate {
        float logit, weight;
        int32_t id;
    };
    float largest(const float* logits, size_t n) const;  // throws as above
    int32_t choose(const float* logits, size_t n, float largest, const Draw&);
    float logprob(const float* logits, size_t n, float largest, int32_t token);
    void likeliest(const float* logits, size_t n, size_t k);
    double nucleus(const float* logits, size_t n, float largest, const Draw&);
    void weigh(float largest, float temperature);
    int32_t pick(double total, double u) const;

    const Kernels& kernels_;
    std::vector<Candidate> kept_;
    std::vector<float> values_, maxima_;
    std::vector<int32_t> ids_;
};

}  // namespace qb
