// Encoded rows: the same bytes from every instruction set, and values as near as the format can be.
#include <algorithm>
#include <cmath>

#include "check.h"
#include "core/quantize.h"
#include "core/weights.h"

using namespace qb;

namespace {

// Ordinary groups, and what may go wrong: constant, zero, one outlier, tiny, huge, of one sign, of a narrow range.
std::vector<float> values(size_t rows, size_t inputs) {
    std::mt19937 random(17);
    std::normal_distribution<float> normal;
    std::vector<float> x(rows * inputs);
    for (size_t group = 0; group < x.size() / 32; group++) {
        float* at = &x[group * 32];
        for (int i = 0; i < 32; i++) at[i] = normal(random);
        switch (group % 9) {
            case 1: std::fill_n(at, 32, 0.1f); break;
            case 2: std::fill_n(at, 32, 0.0f); break;
            case 3: at[random() % 32] = 1000.0f; break;
            case 4: std::for_each(at, at + 32, [](float& v) { v *= 1e-39f; }); break;
            case 5: std::for_each(at, at + 32, [](float& v) { v = std::clamp(v * 30000, -65504.0f, 65504.0f); }); break;
            case 6: std::for_each(at, at + 32, [](float& v) { v = std::abs(v); }); break;
            case 7: std::for_each(at, at + 32, [](float& v) { v = 100 + v * 1e-5f; }); break;
            case 8: std::for_each(at, at + 32, [](float& v) { v = std::round(v * 2) / 2; }); break;
            default: break;
        }
    }
    return x;
}

}  // namespace

void test_quantize() {
    const size_t rows = 50, inputs = 192;
    const std::vector<float> x = values(rows, inputs);
    Pool one(1), three(3);
    for (int f = 0; f < kEncodable; f++) {
        const Format format = static_cast<Format>(f);
        const char* name = format_name(format);
        std::vector<uint8_t> want(rows * source_row_bytes(format, inputs)), got(want.size());
        quantize(format, x, inputs, one, *variants()[0], want);
        for (const Kernels* kernels : variants()) {
            quantize(format, x, inputs, three, *kernels, got);
            CHECK(got == want, "%s %s: other bytes than %s", kernels->name, name, variants()[0]->name);
        }
        Weights weights(Weights::packed_size(format, rows, inputs), one);
        const PackedWeight packed = weights.weight(weights.add(format, inputs, {{rows, want}}));
        std::vector<float> decoded(inputs);
        // half a step of the group's range or magnitude; floats half an ulp of 8 or 11 bits
        for (size_t r = 0; r < rows; r++) {
            decode_row(packed, r, decoded.data());
            const size_t block = format == Format::nf4 || format == Format::fp4 ? 64 : 32;
            for (size_t k = 0; k < inputs; k++) {
                const float* group = &x[r * inputs + k / block * block];
                float largest = 0;
                for (size_t i = 0; i < block; i++) largest = std::max(largest, std::abs(group[i]));
                const float value = x[r * inputs + k];
                const double gap = std::abs(static_cast<double>(decoded[k]) - value);
                double allowed = 0;
                switch (format) {
                    case Format::f32: break;
                    case Format::f16: allowed = std::abs(value) * 0x1p-11 + 0x1p-25; break;
                    case Format::bf16: allowed = std::abs(value) * 0x1p-8 + 1e-40; break;
                    case Format::q8_0: allowed = largest * (0.5 / 127 + 0x1p-10) + 0x1p-17; break;
                    case Format::q4_0: allowed = largest * (1.0 / 8 + 0x1p-10) + 0x1p-21; break;
                    case Format::q4_1: allowed = largest * (2.0 / 15) + 0x1p-20; break;
                    case Format::nf4: allowed = largest * 0.153; break;
                    case Format::fp4: allowed = largest * 0.168; break;
                    default: CHECK(false, "%s has no bound", name);
                }
                CHECK(gap <= allowed, "%s row %zu, %zu: %g became %g", name, r, k, static_cast<double>(value),
                      static_cast<double>(decoded[k]));
            }
        }
        const auto refused = [&](float bad) {
            std::vector<float> wrong = x;
            wrong[rows * inputs - 1] = bad;
            try {
                quantize(format, wrong, inputs, three, *variants()[0], got);
            } catch (const std::invalid_argument&) {
                return true;
            }
            return false;
        };
        CHECK(refused(NAN) && refused(INFINITY) && refused(-INFINITY), "%s: what is not finite is refused", name);
        CHECK(refused(65505.0f) == (format == Format::q4_1), "%s: what float16 cannot hold", name);
    }
}
