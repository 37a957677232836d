// Weights packed into panels of 16 rows (csrc/kernels/formats.inl has the bytes), in one arena in the order added.
#pragma once

#include <span>
#include <vector>

#include "core/memory.h"
#include "core/pool.h"
#include "table.h"

namespace qb {

struct PackedWeight {
    Format format;
    size_t rows, inputs;  // N, K as published
    size_t panels;        // N / 16, rounded up; missing rows are zeros
    size_t panel_stride;  // bytes from one panel of this weight to the next
    uint8_t* data;        // first panel
};

// wide: what would take int8 takes bf16.
Activation activation_of(Format, bool wide);
size_t source_row_bytes(Format,
                        size_t inputs);  // as published; throws when inputs is no multiple of the format's block
size_t panel_bytes(Format, size_t inputs);

class Weights {
public:
    // `capacity` is the sum of packed_size() and vector_size() of what will be added.
    Weights(size_t capacity, Pool& pool);

    struct Source {
        size_t rows;
        std::span<const uint8_t> bytes;  // rows x source_row_bytes
    };

    static size_t packed_size(Format, size_t rows, size_t inputs);
    static size_t vector_size(size_t length);

    // Room for `parts` weights of one shape whose panels alternate: 0's first, 1's first, 0's second, ...
    // Returns the index of the first; the others follow. All values are zero until filled.
    size_t reserve(Format, size_t rows, size_t inputs, size_t parts);
    // Packs encoded rows, whole panels of them, from `first_row` on. Throws std::invalid_argument for sizes that do not
    // agree. In slices, the source's bytes need not be in memory all at once.
    void fill(size_t index, size_t first_row, std::span<const uint8_t> bytes);
    // Both at once.
    size_t add(Format, size_t inputs, const std::vector<Source>&);
    // A float32 vector, padded with zeros to a multiple of 16.
    size_t add_vector(std::span<const float>);

    const PackedWeight& weight(size_t index) const;
    std::span<const float> vector(size_t index) const;
    size_t bytes() const { return used_; }

private:
    uint8_t* take(size_t bytes);

    Pages arena_;
    size_t used_ = 0;
    Pool& pool_;
    std::vector<PackedWeight> weights_;
    std::vector<std::span<const float>> vectors_;
};

// Row `row` as float32: exactly the values that the format means. `out` has room for inputs.
void decode_row(const PackedWeight&, size_t row, float* out);

}  // namespace qb
