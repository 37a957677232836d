// Numbers to encoded rows, as they are published and as Weights::fill takes them.
#pragma once

#include <span>

#include "core/pool.h"
#include "table.h"

namespace qb {

// (rows, inputs) float32 to (rows, source_row_bytes) bytes in `out`, on all threads. Throws std::invalid_argument, with
// a sentence, for values that are not finite or that q4_1 cannot hold, and inputs that are not whole blocks.
void quantize(Format, std::span<const float> values, size_t inputs, Pool&, const Kernels&, std::span<uint8_t> out);

}  // namespace qb
