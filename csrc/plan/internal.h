// What plan.cpp and attention.cpp share.
#pragma once

#include <algorithm>

#include "plan/plan.h"

namespace qb {

enum class Verb : uint8_t { embed, linear, gated, rms_norm, rope, attention, add, swiglu, rows };

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
};

// Threads take the next `at_a_time` items until none are left: a slower core takes fewer.
template <class Body> void Plan::claim(std::atomic<uint32_t>& next, size_t items, size_t at_a_time, const Body& body) {
    for (;;) {
        const size_t begin = next.fetch_add(static_cast<uint32_t>(at_a_time), std::memory_order_relaxed);
        if (begin >= items) return;
        body(begin, std::min(items, begin + at_a_time));
    }
}

}  // namespace qb
