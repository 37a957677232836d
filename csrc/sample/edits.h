// Edits of a row of logits before a token is drawn from it. backends/sampling.py is the specification, in numpy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "table.h"

namespace qb {

// As types.EditKind numbers them.
enum class EditKind : uint8_t {
    scale,  // logits of ids times a value where they are negative, else divided by it
    add,    // a value added to the logit of each id
    put,    // a value instead of it
    only,   // -inf instead of all but those of allowed ids
};
constexpr int kEditKinds = 4;

struct Edit {
    EditKind kind;
    std::span<const int32_t> ids;   // only: a bit for each id, the lowest first
    std::span<const float> values;  // one for all, or one for each of ids; only: none
};

// Throws std::invalid_argument, with a sentence, unless an edit makes sense on rows of n logits.
void check(const Edit& edit, size_t n);

// A row as edits make it, for as long as this lives; then the row is as it was. Not for edits that `check` refuses.
class Edited {
public:
    // What it needs of memory, kept from row to row.
    struct Memory {
        std::vector<float> row;
        std::vector<std::pair<int32_t, float>> before;  // logits that have been written over, in order
    };

    Edited(const Kernels& kernels, float* row, size_t n, std::span<const Edit> edits, Memory& memory);
    ~Edited();
    Edited(const Edited&) = delete;
    Edited& operator=(const Edited&) = delete;

    const float* data() const { return edited_; }

private:
    float* row_;
    float* edited_;  // row_, or a copy of it in memory_
    Memory& memory_;
};

}  // namespace qb
