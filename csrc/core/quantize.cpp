#include "core/quantize.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "core/weights.h"

namespace qb {

void quantize(Format format, std::span<const float> values, size_t inputs, Pool& pool, const Kernels& kernels,
              std::span<uint8_t> out) {
    if (static_cast<int>(format) >= kEncodable) throw std::invalid_argument("numbers cannot be encoded in this format");
    const size_t row_bytes = source_row_bytes(format, inputs), rows = values.size() / inputs;
    if (out.size() != rows * row_bytes) throw std::invalid_argument("quantize: the result does not fit its rows");
    pool.run([&](int thread, int threads) {
        for (size_t r = rows * thread / threads; r < rows * (thread + 1) / threads; r++) {
            const float* row = values.data() + r * inputs;
            float largest = 0;
            bool finite = true;
            for (size_t k = 0; k < inputs; k++) {
                finite &= std::isfinite(row[k]);
                largest = std::max(largest, std::abs(row[k]));
            }
            if (!finite) throw std::invalid_argument("only finite values can be quantized");
            if (format == Format::q4_1 && largest > 65504.0f)
                throw std::invalid_argument("q4_1 holds values up to 65504 only");
            kernels.encode[static_cast<int>(format)](row, inputs, out.data() + r * row_bytes);
        }
    });
}

}  // namespace qb
