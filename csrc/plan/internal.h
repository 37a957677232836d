// What plan.cpp and attention.cpp share.
#pragma once

#include <algorithm>

#include "plan/plan.h"

namespace qb {

enum class Verb : uint8_t { embed, linear, gated, rms_norm, rope, attention, add, swiglu, columns, rows };

struct Plan::Buffer {
    size_t width, stride;
    Length length;
    Scratch memory;
    float* data = nullptr;

    float* row(size_t i) const { return data + i * stride; }
};

struct Plan::Instruction {
    Verb verb;
    int x = -1, y = -1, z = -1, out = -1;
    std::vector<Output> outputs = {};  // linear, gated
    const float* norm = nullptr;
    float eps = 0;
    int residual = -1;
    int rope = -1, attend = -1;
    size_t layer = 0;
    int heads = 0;
    const float *q_norm = nullptr, *k_norm = nullptr;  // attention
    std::vector<uint32_t> order = {};                  // columns
};

// Angles of this step's tokens: cos then sin, head_dim / 2 floats each.
struct Plan::Rope {
    std::vector<double> frequencies, factors;  // (variants, head_dim / 2), (variants,)
    Scratch memory;
    float* data = nullptr;

    size_t half() const { return frequencies.size() / factors.size(); }
    float* cos(size_t token) const { return data + token * 2 * half(); }
    float* sin(size_t token) const { return cos(token) + half(); }
};

// How a step's attention is cut into items; the same for every layer of the same shape.
struct Plan::Attend {
    int heads;
    float scale;
    int32_t window;  // 0: none

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
    std::unique_ptr<std::atomic<uint32_t>[]> remaining;  // chunks of a group not yet done
    size_t remaining_made = 0;
    Scratch partials;  // per partial: kAttendRows max, kAttendRows sum, kAttendRows x head_dim
    size_t partial_floats = 0;
    bool store_first = false;  // some sequence has several new tokens: keys are stored before anybody reads
};

struct Plan::Thread {
    Scratch activations, row, attend, queries, results;
    std::unique_ptr<std::atomic<uint32_t>[]> claims;  // per instruction: how much of the thread's range is taken
};

// Thread t of n takes [t * items / n, (t + 1) * items / n).
inline std::pair<size_t, size_t> share(size_t items, int thread, int threads) {
    return {items * thread / threads, items * (thread + 1) / threads};
}

// The same, of pairs: kernels work on two panels at a time.
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
