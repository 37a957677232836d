#include "sample/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>

namespace qb {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

uint64_t mix(uint64_t z) {  // splitmix64 (Steele, Lea & Flood 2014)
    z += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

constexpr size_t kFew = 64;       // candidates that are sorted
constexpr int kBinBits = 11;      // of a histogram's bins
constexpr size_t kHeads = 128;    // stretches whose likeliest tokens are looked at first for top_p
constexpr size_t kSample = 2048;  // logits that stand for a row, and rows that are worth it
constexpr size_t kLong = 4 * kSample;

// Descending; ties go to the lower id.
constexpr auto likelier = [](const auto& a, const auto& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
};

// Ascends as the logit falls; the same for 0 and -0.
uint32_t rank(float logit) {
    const uint32_t bits = std::bit_cast<uint32_t>(logit + 0.0f);
    return bits ^ (bits >> 31 ? 0 : 0x7fffffff);
}

// The next larger number: x > f is x >= above(f).
float above(float f) { return std::nextafter(f, kInfinity); }

// Finite, and still finite times log2 e: 0 * inf would be a NaN where temperatures are next to nothing.
float inverse(float temperature) { return std::min(1.0f / temperature, 1e38f); }

// The least logit that min_p keeps, rounded up: x >= least is x >= the exact one. Probabilities that double cannot tell
// apart are equal, as in the specification.
float floor_of(float largest, const Draw& draw) {
    if (!(draw.min_p > 0)) return -kInfinity;
    const double depth = std::log(static_cast<double>(draw.min_p)) - 0x1p-53;
    const double least = largest + draw.temperature * depth;
    const float rounded = static_cast<float>(least);
    return rounded < least ? above(rounded) : rounded;
}

}  // namespace

double uniform(uint64_t seed, int64_t position) {
    return static_cast<double>(mix(mix(seed) ^ static_cast<uint64_t>(position)) >> 11) * 0x1p-53;
}

float Sampler::scan(const float* logits, size_t n, float inverse_temperature, bool edited) {
    maxima_.resize((n + kStretch - 1) / kStretch);
    sums_.resize(maxima_.size());
    const bool all = inverse_temperature != 0;
    const float largest = kernels_.maxima(logits, n, maxima_.data(), inverse_temperature, all ? sums_.data() : nullptr);
    if (std::isnan(largest))
        throw std::domain_error(edited ? "a processor made a logit nan: nothing can be drawn from such a row"
                                       : "the logits hold a NaN; the model or its file is damaged");
    if (largest == -kInfinity)
        throw std::domain_error(edited ? "the processors leave no token: every logit is -inf; allow at least one"
                                       : "no token can be drawn: every logit is -inf");
    if (all) {
        values_.resize(maxima_.size());
        kernels_.exponentials(maxima_.data(), maxima_.size(), largest, inverse_temperature, values_.data());
        for (size_t i = 0; i < maxima_.size(); i++) sums_[i] *= values_[i];
        total_ = sum();
        cut_ = {};
    }
    return largest;
}

// The likeliest token, the lowest id of several.
int32_t Sampler::first(const Row& row) const {
    const auto stretch = std::find(maxima_.begin(), maxima_.end(), row.largest) - maxima_.begin();
    return static_cast<int32_t>(std::find(row.x + stretch * kStretch, row.x + row.n, row.largest) - row.x);
}

// The nth largest maximum of a stretch: at least so many logits reach it. -inf if there are not so many stretches.
float Sampler::nth_maximum(size_t nth) {
    if (nth > maxima_.size()) return -kInfinity;
    values_.assign(maxima_.begin(), maxima_.end());
    std::nth_element(values_.begin(), values_.begin() + (nth - 1), values_.end(), std::greater<>());
    return values_[nth - 1];
}

float Sampler::weight(const Row& row, float logit) const {
    float weight;
    kernels_.exponentials(&logit, 1, row.largest, row.inverse_temperature, &weight);
    return weight;
}

double Sampler::sum() const {
    double sum = 0;
    for (float s : sums_) sum += s;
    return sum;
}

// candidates_ = the tokens with least <= logit <= most; their weights, or 1.
void Sampler::collect(const Row& row, float least, float most, bool weighed) {
    ids_.resize(row.n + kLanes);
    const size_t count = kernels_.between(row.x, row.n, maxima_.data(), least, most, ids_.data());
    values_.resize(count);
    for (size_t i = 0; i < count; i++) values_[i] = row.x[ids_[i]];
    if (weighed)
        kernels_.exponentials(values_.data(), count, row.largest, row.inverse_temperature, values_.data());
    else
        std::fill(values_.begin(), values_.end(), 1.0f);
    candidates_.resize(count);
    for (size_t i = 0; i < count; i++) candidates_[i] = {row.x[ids_[i]], values_[i], ids_[i]};
}

// Sets the cut that keeps the fewest of candidates_, likeliest first, whose weights reach the target; false if all
// together do not. They hold all tokens of the same logit, or none.
// No sort: a histogram over their ranks tells in which bin the target is reached, and only that is looked at again.
bool Sampler::settle(double target, Cut& cut) {
    const std::vector<Candidate>* from = &candidates_;
    double reached = 0;
    while (from->size() > kFew) {
        float largest = -kInfinity, smallest = kInfinity;
        for (const Candidate& c : *from) {
            largest = std::max(largest, c.logit);
            smallest = std::min(smallest, c.logit);
        }
        const uint32_t lowest = rank(largest), highest = rank(smallest);
        if (lowest == highest) break;  // equal all, and in the order of their ids
        const int shift = std::max(0, static_cast<int>(std::bit_width(highest - lowest)) - kBinBits);
        bins_.assign(size_t{1} << kBinBits, 0.0);
        for (const Candidate& c : *from) bins_[(rank(c.logit) - lowest) >> shift] += c.weight;
        uint32_t bin = 0;
        while (bin < (highest - lowest) >> shift && reached + bins_[bin] < target) reached += bins_[bin++];
        const auto elsewhere = [&](const Candidate& c) { return (rank(c.logit) - lowest) >> shift != bin; };
        if (from == &candidates_) {
            rest_.clear();
            std::remove_copy_if(candidates_.begin(), candidates_.end(), std::back_inserter(rest_), elsewhere);
            from = &rest_;
        } else {
            std::erase_if(rest_, elsewhere);
        }
    }
    if (from == &candidates_) rest_ = candidates_;
    if (rest_.size() <= kFew) std::sort(rest_.begin(), rest_.end(), likelier);
    for (size_t i = 0; i < rest_.size(); i++) {
        const bool tied = i + 1 < rest_.size() && rest_[i + 1].logit == rest_[i].logit;
        cut = {.least = rest_[i].logit, .last = tied ? rest_[i].id : Cut{}.last};
        reached += rest_[i].weight;
        if (reached >= target) return true;
    }
    return false;
}

// The cut that keeps the first k.
Sampler::Cut Sampler::likeliest(const Row& row, size_t k) {
    Cut cut;
    collect(row, nth_maximum(k), kInfinity, false);
    settle(static_cast<double>(k), cut);
    return cut;
}

// Sets cut_, and the sums of what it keeps.
void Sampler::keep(const Row& row, const Cut& cut) {
    cut_ = cut;
    kernels_.weights(row.x, row.n, maxima_.data(), row.largest, row.inverse_temperature, cut.least, sums_.data());
    if (static_cast<size_t>(cut.last) + 1 < row.n) {  // from there on, ties are out
        const size_t stretch = (static_cast<size_t>(cut.last) + 1) / kStretch, begin = stretch * kStretch;
        kernels_.weights(row.x + begin, row.n - begin, maxima_.data() + stretch, row.largest, row.inverse_temperature,
                         above(cut.least), sums_.data() + stretch);
        const float tie = weight(row, cut.least);
        for (size_t id = begin; id <= static_cast<size_t>(cut.last); id++)
            if (row.x[id] == cut.least) sums_[stretch] += tie;
    }
    total_ = sum();
}

// Keeps the fewest tokens, likeliest first, whose weights reach the target. few: of not many that are kept already.
void Sampler::nucleus(const Row& row, bool few, double target) {
    const float least = few || row.n < kLong ? cut_.least : nth_maximum(std::min(kHeads, maxima_.size() / 2));
    Cut cut;
    collect(row, least, kInfinity, true);
    if (!settle(target, cut) && least > cut_.least) cut = reach(row, target);
    keep(row, cut);
}

// That cut for flat rows, in which the target is reached far down; all are kept so far.
//
// A sample says near which logit: its weights below that logit, scaled, are those that the row is to lose. Then one
// pass sums what lies above an interval around it, and only what lies inside is looked at closely. The interval is
// three deviations of the sample's sum to each side; where that was not enough, the whole of one side takes its place.
Sampler::Cut Sampler::reach(const Row& row, double target) {
    candidates_.clear();
    values_.resize(kSample);
    for (size_t i = 0; i < kSample; i++) values_[i] = row.x[i * row.n / kSample];
    for (size_t i = 0; i < kSample; i++) candidates_.push_back({values_[i], 0.0f, static_cast<int32_t>(i)});
    kernels_.exponentials(values_.data(), kSample, row.largest, row.inverse_temperature, values_.data());
    double all = 0;
    for (size_t i = 0; i < kSample; i++) all += candidates_[i].weight = values_[i];
    const double lost = std::min((total_ - target) * kSample / static_cast<double>(row.n), all);
    Cut middle, upper, lower;
    settle(all - lost, middle);
    const double each = weight(row, middle.least), margin = 3 * std::sqrt(each * lost) + each;
    settle(all - lost - margin, upper);
    if (lost > margin) settle(all - lost + margin, lower);
    float high = upper.least, low = lower.least;

    kernels_.weights(row.x, row.n, maxima_.data(), row.largest, row.inverse_temperature, above(high), sums_.data());
    double reached = sum();
    if (reached >= target) {
        low = above(high);
        high = kInfinity;
        reached = 0;
    }
    Cut cut;
    collect(row, low, high, true);
    if (settle(target - reached, cut)) return cut;
    collect(row, -kInfinity, high, true);
    settle(target - reached, cut);
    return cut;
}

// The first kept token in ascending id whose cumulative weight exceeds the target, which is below total_.
int32_t Sampler::pick(const Row& row, double target) {
    double reached = 0;
    size_t stretch = 0;
    while (stretch + 1 < sums_.size() && reached + sums_[stretch] <= target) reached += sums_[stretch++];
    const size_t begin = stretch * kStretch, count = std::min<size_t>(kStretch, row.n - begin);
    values_.resize(kStretch);
    kernels_.exponentials(row.x + begin, count, row.largest, row.inverse_temperature, values_.data());
    int32_t token = first(row);
    for (size_t i = 0; i < count; i++) {
        const auto id = static_cast<int32_t>(begin + i);
        if (!cut_.keeps(row.x[id], id) || values_[i] == 0) continue;
        token = id;  // the last of the stretch, if rounding leaves none
        reached += values_[i];
        if (reached > target) break;
    }
    return token;
}

int32_t Sampler::choose(const float* logits, size_t n, const Draw& draw, bool edited) {
    const bool limited = draw.top_k > 0 && static_cast<size_t>(draw.top_k) < n;
    const bool all = !limited && (draw.top_p < 1 || !(draw.min_p > 0));  // all are weighed, whatever is kept then
    const float scale = draw.temperature > 0 ? inverse(draw.temperature) : 0.0f;
    const Row row{logits, n, scan(logits, n, all ? scale : 0.0f, edited), scale};
    if (draw.temperature == 0 || row.largest == kInfinity) return first(row);
    const Cut floor{.least = floor_of(row.largest, draw)};
    if (!all) {
        Cut cut;
        if (limited) cut = likeliest(row, static_cast<size_t>(draw.top_k));
        keep(row, !(draw.top_p < 1) && floor.tighter(cut) ? floor : cut);
    }
    if (draw.top_p < 1) nucleus(row, limited, static_cast<double>(draw.top_p) * total_);
    if (floor.tighter(cut_)) keep(row, floor);
    return pick(row, uniform(draw.seed, draw.position) * total_);
}

float Sampler::logprob(const float* logits, size_t n, int32_t token) {
    const float largest = scan(logits, n, 1.0f);
    if (largest == kInfinity) {  // those of +inf share everything
        const auto sharers = std::count(logits, logits + n, largest);
        return logits[token] == largest ? -std::log(static_cast<float>(sharers)) : -largest;
    }
    return static_cast<float>(static_cast<double>(logits[token]) - largest - std::log(total_));
}

Drawn Sampler::redraw(const float* processed, const float* logits, size_t n, const Draw& draw) {
    const int32_t token = choose(processed, n, draw);
    return {token, draw.logprob ? logprob(logits, n, token) : std::numeric_limits<float>::quiet_NaN()};
}

Drawn Sampler::draw_edited(float* logits, size_t n, std::span<const Edit> edits, const Draw& draw) {
    int32_t token;
    {
        const Edited edited(kernels_, logits, n, edits, memory_);
        token = choose(edited.data(), n, draw, true);
    }
    return {token, draw.logprob ? logprob(logits, n, token) : std::numeric_limits<float>::quiet_NaN()};
}

}  // namespace qb
