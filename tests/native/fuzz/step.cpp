// Any lists as a step of a plan that has every kind of instruction: refused, or computed.
#include <array>
#include <stdexcept>

#include "bytes.h"
#include "plan/plan.h"

using namespace qb;

namespace {

constexpr size_t kVocabulary = 40, kHidden = 32, kInner = 48, kHeads = 4, kKvHeads = 2, kHeadDim = 8, kExperts = 3;
constexpr size_t kPositions = 200;  // that the table knows

class Model {
public:
    Model() : weights_(size_t{1} << 20, pool_), kv_(KvType::bf16, 5, {{kKvHeads, kHeadDim, kHeadDim}}) {
        const size_t embedding = add(kVocabulary, kHidden), table = add(kPositions, kHidden),
                     q = add(kHeads * kHeadDim, kHidden), k = add(kKvHeads * kHeadDim, kHidden),
                     v = add(kKvHeads * kHeadDim, kHidden), o = add(kHidden, kHeads * kHeadDim),
                     router = add(kExperts, kHidden);
        std::vector<Plan::Expert> experts;
        for (size_t e = 0; e < kExperts; e++) {
            const size_t gate = add(kInner, kHidden, 2);
            experts.push_back({gate, gate + 1, add(kHidden, kInner)});
        }
        const int norm = static_cast<int>(weights_.add_vector(std::vector<float>(kHidden, 1.0f)));
        for (Plan& plan : plans_) {
            const auto tokens = [&](size_t width) { return plan.buffer(width, Length::tokens); };
            const auto rows = [&](size_t width) { return plan.buffer(width, Length::rows); };
            const int x = tokens(kHidden), at = tokens(kHidden), asked = tokens(kHeads * kHeadDim),
                      keys = tokens(kKvHeads * kHeadDim), values = tokens(kKvHeads * kHeadDim),
                      seen = tokens(kHeads * kHeadDim), scores = tokens(kExperts), chosen = tokens(2 * 2),
                      mixed = tokens(kHidden), last = rows(kHidden), logits = rows(kVocabulary);
            const bool windowed = &plan != &plans_[0];
            const std::vector<double> frequencies(2 * kHeadDim / 2, 0.5), factors(2, 1.0);  // two variants
            plan.embed(embedding, x);
            if (windowed) plan.positions(table, 2, at), plan.add(x, at, x);
            plan.linear(x, {{q, asked}, {k, keys}, {v, values}}, plan.norm(norm, -1, 1e-5f, false));
            plan.attention({.layer = 0,
                            .q = asked,
                            .k = keys,
                            .v = values,
                            .out = seen,
                            .heads = kHeads,
                            .scale = 0.3f,
                            .rotation = plan.rotation(frequencies, factors),
                            .window = windowed ? 70 : 0});
            plan.linear(seen, {{o, x}}, -1, x);
            plan.linear(x, {{router, scores}});
            plan.route(scores,
                       {.top_k = 2,
                        .sigmoid = false,
                        .renormalise = true,
                        .scale = 1,
                        .least = 0,
                        .groups = 1,
                        .top_groups = 1,
                        .group_best = 1},
                       -1, -1, chosen);
            plan.experts(x, chosen, experts, Nonlinearity::silu, 0, mixed);
            plan.rows(mixed, last);
            plan.linear(last, {{embedding, logits}});
            plan.result(logits);
        }
    }

    Plan& plan(size_t index) { return plans_[index]; }

private:
    size_t add(size_t rows, size_t inputs, size_t parts = 1) {
        std::vector<uint8_t> data(rows * inputs * 2);
        for (size_t i = 1; i < data.size(); i += 2) data[i] = static_cast<uint8_t>(0x3c | i * 37 % 128 / 64 << 7);
        return weights_.add(Format::bf16, inputs, std::vector<Weights::Source>(parts, {rows, data}));
    }

    Pool pool_{1};
    Weights weights_;
    KvMemory kv_;
    std::array<Plan, 2> plans_{Plan(pool_, weights_, kv_, kernels()), Plan(pool_, weights_, kv_, kernels())};
};

// Numbers that ascend from 0 by what the bytes say.
std::vector<int32_t> ascending(Bytes& bytes, size_t count) {
    std::vector<int32_t> list{0};
    while (list.size() <= count) list.push_back(static_cast<int32_t>(int64_t{list.back()} + bytes.number()));
    return list;
}

std::vector<int32_t> numbers(Bytes& bytes, size_t count) {
    std::vector<int32_t> list;
    list.reserve(count);
    while (list.size() < count) list.push_back(bytes.number());
    return list;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static Model model;
    Bytes bytes(data, size);
    const uint8_t wrong = bytes.take<uint8_t>();  // which of the lists need not fit the others
    const auto length = [&](int bit, size_t fits) { return wrong >> bit & 1 ? bytes.below(12) : fits; };
    Plan& plan = model.plan(bytes.below(2));
    const size_t sequences = bytes.below(5);
    const std::vector<int32_t> starts = ascending(bytes, sequences);
    const std::vector<int32_t> block_starts = ascending(bytes, length(1, sequences));
    const auto count = [](int32_t n) { return static_cast<size_t>(std::clamp(n, 0, 300)); };
    std::vector<int32_t> tokens(length(2, count(starts.back()))), positions(length(3, count(starts.back())));
    for (int32_t& token : tokens) token = bytes.number();
    for (size_t i = 0; i < positions.size(); i++) {
        const bool begins = std::find(starts.begin(), starts.end(), static_cast<int32_t>(i)) != starts.end();
        positions[i] = begins || wrong >> 4 & 1 ? bytes.number() : static_cast<int32_t>(int64_t{positions[i - 1]} + 1);
    }
    const std::vector<int32_t> blocks = numbers(bytes, length(5, count(block_starts.back())));
    const std::vector<int32_t> fresh = numbers(bytes, bytes.below(4)), rows = numbers(bytes, bytes.below(6));
    const std::vector<int32_t> turns = numbers(bytes, bytes.below(2) ? length(6, sequences) : 0);
    try {
        plan.run({tokens, positions, starts, blocks, block_starts, rows, fresh, turns});
    } catch (const std::invalid_argument&) {
    }
    return 0;
}
