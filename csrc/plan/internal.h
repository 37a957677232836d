// What the files of this folder share.
#pragma once

#include <algorithm>

#include "plan/plan.h"

namespace qb {

enum class Verb : uint8_t {
    embed,
    positions,
    linear,
    gated_linear,
    normalise,
    rope,
    attention,
    add,
    multiply,
    scale,
    softcap,
    activate,
    gated,
    part,
    join,
    columns,
    route,
    experts,
    gate_rows,
    rows,
    short_conv,
    recurrence,
    decay,
    softplus
};

// Whether it reads weights on all threads, panel by panel.
inline bool is_linear(Verb verb) { return verb == Verb::linear || verb == Verb::gated_linear; }

struct Plan::Buffer {
    size_t width, stride;
    Length length;
    Scratch memory;
    float* data = nullptr;

    float* row(size_t i) const { return data + i * stride; }
};

// A norm as one instruction uses it: of whole rows, or of each head, by a weight that all share or by their own.
struct Plan::Applied {
    Norm norm = {};
    size_t own = 0;  // floats from one head's weight and bias to the next one's

    explicit operator bool() const { return norm.weight; }
    const Norm* whole() const { return norm.weight ? &norm : nullptr; }
    Norm of_head(size_t head) const {
        return {norm.weight + head * own, norm.bias ? norm.bias + head * own : nullptr, norm.eps, norm.centred};
    }
};

struct Plan::Instruction {
    Verb verb;
    int x = -1, y = -1, z = -1, out = -1;
    std::vector<Output> outputs = {};  // linear, gated_linear: of that gate, then up
    Applied norm = {};
    int residual = -1;
    int rope = -1, attend = -1;
    size_t use = 0;  // of the attend, the how manieth
    int router = -1, mixture = -1;
    // route: what is added to scores and what weights are multiplied by, (experts), or none. Else bias alone: of a
    // short_conv; the skip of a recurrence; the rates of a decay.
    const float *bias = nullptr, *scales = nullptr;
    size_t layer = 0;
    int heads = 0;
    Applied q_norm = {}, k_norm = {};  // attention
    const float* sinks = nullptr;      // attention: (heads)
    std::vector<float> slopes = {};    // attention: (heads), or none
    float factor = 0;                  // scale; the cap of softcap and attention; the limit of a gate
    Nonlinearity nonlinearity = Nonlinearity::silu;
    size_t begin = 0, end = 0;                 // part: of each head; positions: from where on
    std::vector<uint32_t> order = {};          // columns
    size_t state = 0;                          // where in a place
    std::vector<float> taps = {};              // short_conv: (length, stride)
    int key_heads = 0, beta = -1, decay = -1;  // recurrence
    bool delta = false;
};

// Angles of this step's tokens: cos then sin, half as many floats each as values of a head turn.
struct Plan::Rope {
    std::vector<double> frequencies, factors;  // (variants, half), (variants,)
    size_t start;                              // of those values in a head
    bool interleaved;                          // pairs are adjacent, not in two halves
    Scratch memory;
    float* data = nullptr;

    size_t half() const { return frequencies.size() / factors.size(); }
    size_t end() const { return start + 2 * half(); }
    float* cos(size_t token) const { return data + token * 2 * half(); }
    float* sin(size_t token) const { return cos(token) + half(); }
};

// How a step's attention is cut into items; the same for every attention of the same shape.
struct Plan::Attend {
    int heads;
    size_t kv_heads, value_width;
    float scale;
    int32_t window;   // 0: none
    size_t uses = 0;  // instructions

    // The first position that a token at `position` sees.
    size_t first_seen(int32_t position) const { return window && position >= window ? position - window + 1 : 0; }

    struct Item {
        uint32_t sequence, first, count;  // query tokens first .. first + count of the step
        uint32_t kv_head;
        int32_t chunk;  // one chunk of a group whose partial results are merged last; -1: all chunks
        uint32_t group;
    };
    struct Group {
        uint32_t first, chunks;  // chunks first .. first + chunks, as many partial results from `partial` on
        uint32_t partial;
    };
    std::vector<Item> items;
    std::vector<Group> groups;
    std::unique_ptr<std::atomic<uint32_t>[]> remaining;  // chunks of a group not yet done, of each use
    size_t remaining_made = 0;
    Scratch partials;  // per partial: kAttendRows max, kAttendRows sum, kAttendRows x value_width
    size_t partial_floats = 0;
    bool store_first = false;  // some sequence has several new tokens: keys are stored before anybody reads
};

struct Plan::Mixture {
    std::vector<Expert> experts;
    size_t top_k;
    Activation input_type, hidden_type;
    size_t inputs, hidden, outputs;
    Nonlinearity nonlinearity;
    float limit;
};

// One weight and the tokens that it is for.
struct Plan::Piece {
    const PackedWeight* weight;
    const uint8_t* activations;
    size_t tokens;
    float* out;
    const float *bias, *up_bias;
    size_t expert;
};

// What the pieces of one run share.
struct Plan::Pieces {
    Activation type;
    size_t out_stride;
    bool gated;  // the weights are gates, whose panels alternate with those of up
    Nonlinearity nonlinearity;
    float limit;
};

// A step's pairs of a token and an expert, sorted by expert and then by token.
struct Plan::Pairs {
    std::vector<uint32_t> first;  // pairs first[e] .. first[e + 1] are those of expert e
    std::vector<uint32_t> token;  // of each pair
    std::vector<uint32_t> place;  // (tokens, top_k): where the pair is
    struct Tile {
        uint32_t first, count;
    };
    std::vector<Tile> tiles;  // at most kTile pairs of one expert each
    std::vector<Piece> pieces;
};

struct Plan::Thread {
    Scratch activations, row, linear, attend, queries, results;
    Scratch gathered, pair_inputs;
    Pairs pairs;
    std::vector<double> scores;  // of a token's experts
    std::vector<float> keys;     // and what they, then their groups, are chosen by
    std::vector<uint8_t> taken;
    std::unique_ptr<std::atomic<uint32_t>[]> claims;  // per instruction, twice: how much of the thread's range is taken
};

// How far ahead a thread fetches what it reads, in bytes. In long reads less is faster: what was fetched and not used
// yet is in the way. Short ones are over soon, and then it is the beginning of the next that is fetched
// (docs/journal.md, 2026-11-27).
inline size_t read_ahead(size_t bytes) { return bytes < (2 << 20) ? 12288 : 4096; }

// Thread t of n takes [t * items / n, (t + 1) * items / n).
inline std::pair<size_t, size_t> share(size_t items, int thread, int threads) {
    return {items * thread / threads, items * (thread + 1) / threads};
}

// The same, by twos: kernels work on two panels at a time.
inline std::pair<size_t, size_t> range(size_t items, int thread, int threads) {
    const auto [begin, end] = share((items + 1) / 2, thread, threads);
    return {begin * 2, std::min(items, end * 2)};
}

// A thread takes `at_a_time` items of its own range after the other, so that it reads on where it was, and then those
// that slower cores have left of theirs. body(begin, end, last): items begin .. end of the range that ends at `last`.
template <class Body> void Plan::claim(size_t index, int thread, size_t items, size_t at_a_time, const Body& body) {
    const int threads = pool_.active();
    for (int i = 0; i < threads; i++) {
        const int owner = (thread + i) % threads;
        const auto [first, last] = range(items, owner, threads);
        std::atomic<uint32_t>& taken = threads_[owner].claims[index];
        for (;;) {
            const size_t begin = first + taken.fetch_add(static_cast<uint32_t>(at_a_time), std::memory_order_relaxed);
            if (begin >= last) break;
            body(begin, std::min(last, begin + at_a_time), last);
        }
    }
}

}  // namespace qb
