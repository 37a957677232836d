// Drawing tokens from rows of logits. backends/sampling.py is the specification, in numpy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "sample/edits.h"
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

// Reads a row once for the maxima of its stretches, and from then on only stretches that hold something that is kept.
// All sums have a fixed order: of a stretch in float32, by the kernel `weights`, of anything longer in double.
class Sampler {
public:
    explicit Sampler(const Kernels& kernels) : kernels_(kernels) {}

    // n >= 1 logits. Throws std::domain_error, with a sentence, for NaN or when nothing can be drawn.
    Drawn draw(const float* logits, size_t n, const Draw& draw) { return redraw(logits, logits, n, draw); }
    // The token from `processed`, its log-probability from `logits`.
    Drawn redraw(const float* processed, const float* logits, size_t n, const Draw&);
    // The token from the row as edits make it, its log-probability from the row as it is, and will be again.
    Drawn draw_edited(float* logits, size_t n, std::span<const Edit> edits, const Draw&);

private:
    struct Row {
        const float* x;
        size_t n;
        float largest, inverse_temperature;
    };
    struct Candidate {
        float logit, weight;
        int32_t id;
    };
    // Keeps logits above `least`, and those that equal it up to id `last`: the first so many in the order of falling
    // logits, of equal ones the lower ids first.
    struct Cut {
        float least = -std::numeric_limits<float>::infinity();
        int32_t last = std::numeric_limits<int32_t>::max();

        // Without a branch: in a row's order, what is kept cannot be foreseen.
        bool keeps(float logit, int32_t id) const { return (logit > least) | ((logit == least) & (id <= last)); }
        bool tighter(const Cut& other) const { return least != other.least ? least > other.least : last < other.last; }
    };

    // Fills maxima_; and with everything cut_, sums_ and total_, unless the inverse temperature is 0. Returns the
    // largest logit; throws as above, in words for rows that are `edited` or not.
    float scan(const float* logits, size_t n, float inverse_temperature, bool edited = false);
    int32_t choose(const float* logits, size_t n, const Draw&, bool edited = false);
    float logprob(const float* logits, size_t n, int32_t token);
    int32_t first(const Row&) const;
    float nth_maximum(size_t nth);
    void collect(const Row&, float least, float most, bool weighed);
    bool settle(double target, Cut& cut);
    Cut likeliest(const Row&, size_t k);
    void keep(const Row&, const Cut&);
    void nucleus(const Row&, bool few, double target);
    Cut reach(const Row&, double target);
    int32_t pick(const Row&, double target);
    float weight(const Row&, float logit) const;
    double sum() const;

    const Kernels& kernels_;
    std::vector<float> maxima_;          // of each stretch
    Cut cut_;                            // what is kept,
    std::vector<float> sums_;            // the weights of that in each stretch,
    double total_ = 0;                   // and in all
    std::vector<Candidate> candidates_;  // by ascending id
    std::vector<Candidate> rest_;
    std::vector<double> bins_;
    std::vector<int32_t> ids_;
    std::vector<float> values_;
    Edited::Memory memory_;
};

}  // namespace qb
