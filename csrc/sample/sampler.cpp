#include "sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace qb {

namespace {

uint64_t mix(uint64_t z) {  // splitmix64 (Steele, Lea & Flood 2014)
    z += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

constexpr size_t kStretch = 128;  // logits per block maximum

// Descending; ties go to the lower id.
constexpr auto likelier = [](const auto& a, const auto& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
};
constexpr auto by_id = [](const auto& a, const auto& b) { return a.id < b.id; };

// Finite, and still finite times log2 e: 0 * inf would be a NaN where temperatures are next to nothing.
float inverse(float temperature) { return std::min(1.0f / temperature, 1e38f); }

}  // namespace

double uniform(uint64_t seed, int64_t position) {
    return static_cast<double>(mix(mix(seed) ^ static_cast<uint64_t>(position)) >> 11) * 0x1p-53;
}

// kept_ = the k likeliest, in no order. The k-th largest block maximum is a lower bound of the k-th largest logit,
// so one pass collects a few more than k candidates and only those are looked at closely.
void Sampler::likeliest(const float* logits, size_t n, size_t k) {
    float threshold = -std::numeric_limits<float>::infinity();
    if (n / kStretch > k) {
        maxima_.clear();
        for (size_t i = 0; i < n; i += kStretch) maxima_.push_back(kernels_.max(logits + i, std::min(kStretch, n - i)));
        std::nth_element(maxima_.begin(), maxima_.begin() + (k - 1), maxima_.end(), std::greater<>());
        threshold = maxima_[k - 1];
    }
    ids_.resize(n);
    const size_t count = kernels_.at_least(logits, n, threshold, ids_.data());
    kept_.clear();
    for (size_t i = 0; i < count; i++) kept_.push_back({logits[ids_[i]], 0.0f, ids_[i]});
    if (count > k) {
        std::nth_element(kept_.begin(), kept_.begin() + (k - 1), kept_.end(), likelier);
        kept_.resize(k);
    }
}

// weight = exp((logit - largest) / temperature)
void Sampler::weigh(float largest, float temperature) {
    values_.resize(kept_.size());
    for (size_t i = 0; i < kept_.size(); i++) values_[i] = kept_[i].logit;
    kernels_.exponentials(values_.data(), values_.size(), largest, inverse(temperature), values_.data());
    for (size_t i = 0; i < kept_.size(); i++) kept_[i].weight = values_[i];
}

// kept_ = at least the tokens that reach top_p, with weights: those above a threshold, lowered until they suffice.
// Returns the weight of the whole row.
double Sampler::nucleus(const float* logits, size_t n, float largest, const Draw& draw) {
    values_.resize(n);
    kernels_.exponentials(logits, n, largest, inverse(draw.temperature), values_.data());
    double all = 0;
    for (size_t i = 0; i < n; i++) all += values_[i];
    ids_.resize(n);
    for (float depth = 4;; depth *= 2) {
        const float threshold = largest - depth * draw.temperature;
        const size_t count = kernels_.at_least(logits, n, threshold, ids_.data());
        double reached = 0;
        for (size_t i = 0; i < count; i++) reached += values_[ids_[i]];
        if (reached < draw.top_p * all && count < n && depth < 256) continue;
        kept_.clear();
        for (size_t i = 0; i < count; i++) kept_.push_back({logits[ids_[i]], values_[ids_[i]], ids_[i]});
        return all;
    }
}

// The first token in ascending id whose cumulative weight exceeds u * total.
int32_t Sampler::pick(double total, double u) const {
    double reached = 0;
    for (const Candidate& c : kept_) {
        reached += c.weight;
        if (reached > u * total) return c.id;
    }
    for (size_t i = kept_.size(); i-- > 0;)  // rounding left none
        if (kept_[i].weight > 0) return kept_[i].id;
    return kept_.back().id;
}

float Sampler::largest(const float* logits, size_t n) const {
    if (kernels_.any_nan(logits, n)) throw std::domain_error("the logits hold a NaN; the model or its file is damaged");
    const float top = kernels_.max(logits, n);
    if (top == -std::numeric_limits<float>::infinity())
        throw std::domain_error("no token can be drawn: every logit is -inf");
    return top;
}

int32_t Sampler::choose(const float* logits, size_t n, float largest, const Draw& draw) {
    if (draw.temperature == 0 || largest == std::numeric_limits<float>::infinity())
        return static_cast<int32_t>(kernels_.argmax(logits, n));
    const double u = uniform(draw.seed, draw.position);
    const bool limited = draw.top_k > 0 && static_cast<size_t>(draw.top_k) < n;
    double all;
    if (limited) {
        likeliest(logits, n, draw.top_k);
        std::sort(kept_.begin(), kept_.end(), by_id);
        weigh(largest, draw.temperature);
        all = 0;
        for (const Candidate& c : kept_) all += c.weight;
    } else if (draw.top_p < 1) {
        all = nucleus(logits, n, largest, draw);
    } else {
        // min_p alone needs no order: tokens this far below the top are dropped whatever they are
        const float threshold = draw.min_p > 0 ? largest + draw.temperature * (std::log(draw.min_p) - 0.01f)
                                               : -std::numeric_limits<float>::infinity();
        ids_.resize(n);
        const size_t count = kernels_.at_least(logits, n, threshold, ids_.data());
        kept_.clear();
        for (size_t i = 0; i < count; i++) kept_.push_back({logits[ids_[i]], 0.0f, ids_[i]});
        weigh(largest, draw.temperature);
        all = 0;
    }
    if (draw.top_p < 1) {
        std::sort(kept_.begin(), kept_.end(), likelier);
        double reached = 0;
        size_t count = 0;
        while (count < kept_.size() && (count == 0 || reached < draw.top_p * all)) reached += kept_[count++].weight;
        kept_.resize(count);
        std::sort(kept_.begin(), kept_.end(), by_id);
    }
    if (draw.min_p > 0) std::erase_if(kept_, [&](const Candidate& c) { return c.weight < draw.min_p; });
    double total = 0;
    for (const Candidate& c : kept_) total += c.weight;
    return pick(total, u);
}

float Sampler::logprob(const float* logits, size_t n, float largest, int32_t token) {
    if (largest == std::numeric_limits<float>::infinity()) {  // those of +inf share everything
        const auto sharers = std::count(logits, logits + n, largest);
        return logits[token] == largest ? -std::log(static_cast<float>(sharers)) : -largest;
    }
    values_.resize(n);
    kernels_.exponentials(logits, n, largest, 1.0f, values_.data());
    double all = 0;
    for (size_t i = 0; i < n; i++) all += values_[i];
    return static_cast<float>(static_cast<double>(logits[token]) - largest - std::log(all));
}

Drawn Sampler::redraw(const float* processed, const float* logits, size_t n, const Draw& draw) {
    const float top = largest(processed, n);
    const int32_t token = choose(processed, n, top, draw);
    if (!draw.logprob) return {token, std::numeric_limits<float>::quiet_NaN()};
    return {token, logprob(logits, n, processed == logits ? top : largest(logits, n), token)};
}

}  // namespace qb
