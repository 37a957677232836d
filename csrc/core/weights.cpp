#include "core/weights.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace qb {

namespace {

constexpr size_t kAlign = 64;

size_t aligned(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

float half_to_float(uint16_t h) {
    uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023, bits;
    if (exponent == 0) {
        float x = static_cast<float>(fraction) * 0x1p-24f;
        return sign ? -x : x;
    }
    bits = exponent == 31 ? sign | 0x7f800000 | fraction << 13 : sign | (exponent + 112) << 23 | fraction << 13;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

struct Layout {
    size_t block, block_bytes;  // as published
    size_t group_bytes;         // of a panel: 16 rows of so many k
};

Layout layout(Format format) {
    switch (format) {
        case Format::f32: return {1, 4, 64};
        case Format::f16: return {1, 2, 32};
        case Format::bf16: return {1, 2, 32};
        case Format::q8_0: return {32, 34, 544};
        case Format::q4_0: return {32, 18, 288};
        case Format::q4_1: return {32, 20, 320};
        case Format::nf4:
        case Format::fp4: return {64, 36, 576};
    }
    throw std::invalid_argument("unknown weight format");
}

uint32_t word(const uint8_t* p) {
    uint32_t w;
    std::memcpy(&w, p, 4);
    return w;
}
void put(uint8_t* p, uint32_t w) { std::memcpy(p, &w, 4); }

// 16 bytes of published nibbles (low: k 0..15, high: k 16..31) into row r of the four vectors of a group.
void pack_nibbles(const uint8_t* source, uint8_t* vectors, size_t r) {
    constexpr uint32_t low = 0x0f0f0f0f, high = 0xf0f0f0f0;
    const uint32_t q0 = word(source), q1 = word(source + 4), q2 = word(source + 8), q3 = word(source + 12);
    put(vectors + r * 4, (q0 & low) | (q1 & low) << 4);
    put(vectors + 64 + r * 4, (q2 & low) | (q3 & low) << 4);
    put(vectors + 128 + r * 4, (q0 >> 4 & low) | (q1 & high));
    put(vectors + 192 + r * 4, (q2 >> 4 & low) | (q3 & high));
}

// One row of a source into row r of its panel. The panel was zero.
void pack_row(Format format, const uint8_t* source, size_t inputs, uint8_t* panel, size_t r) {
    const Layout l = layout(format);
    const size_t blocks = inputs / l.block;
    switch (format) {
        case Format::f32:
            for (size_t k = 0; k < inputs; k++) std::memcpy(panel + k * 64 + r * 4, source + k * 4, 4);
            return;
        case Format::f16:
            for (size_t k = 0; k < inputs; k++) std::memcpy(panel + k * 32 + r * 2, source + k * 2, 2);
            return;
        case Format::bf16:
            for (size_t k = 0; k < inputs; k++) std::memcpy(panel + k / 2 * 64 + r * 4 + k % 2 * 2, source + k * 2, 2);
            return;
        case Format::q8_0:
            for (size_t g = 0; g < blocks; g++, source += l.block_bytes, panel += l.group_bytes) {
                std::memcpy(panel + r * 2, source, 2);
                for (size_t j = 0; j < 8; j++) put(panel + 32 + j * 64 + r * 4, word(source + 2 + j * 4) ^ 0x80808080);
            }
            return;
        case Format::q4_0:
            for (size_t g = 0; g < blocks; g++, source += l.block_bytes, panel += l.group_bytes) {
                std::memcpy(panel + r * 2, source, 2);
                pack_nibbles(source + 2, panel + 32, r);
            }
            return;
        case Format::q4_1:
            for (size_t g = 0; g < blocks; g++, source += l.block_bytes, panel += l.group_bytes) {
                std::memcpy(panel + r * 2, source, 2);
                std::memcpy(panel + 32 + r * 2, source + 2, 2);
                pack_nibbles(source + 4, panel + 64, r);
            }
            return;
        case Format::nf4:
        case Format::fp4:
            for (size_t b = 0; b < blocks; b++, source += l.block_bytes, panel += l.group_bytes) {
                std::memcpy(panel + r * 4, source, 4);
                for (size_t j = 0; j < 8; j++) {  // published: the first of two values in the high half of a byte
                    const uint32_t w = word(source + 4 + j * 4);
                    put(panel + 64 + j * 64 + r * 4, (w >> 4 & 0x0f0f0f0f) | (w << 4 & 0xf0f0f0f0));
                }
            }
            return;
    }
}

}  // namespace

Activation activation_of(Format format) {
    switch (format) {
        case Format::f32:
        case Format::f16:
        case Format::nf4:
        case Format::fp4: return Activation::f32;
        case Format::bf16: return Activation::bf16;
        default: return Activation::int8;
    }
}

size_t source_row_bytes(Format format, size_t inputs) {
    const Layout l = layout(format);
    if (inputs == 0 || inputs % l.block)
        throw std::invalid_argument("a row of " + std::to_string(inputs) +
                                    " values is not a whole number of blocks of " + std::to_string(l.block));
    return product(inputs / l.block, l.block_bytes);
}

size_t panel_bytes(Format format, size_t inputs) {
    const Layout l = layout(format);
    const size_t padded = padded_inputs(activation_of(format), inputs);
    return product(padded / l.block, l.group_bytes);
}

size_t Weights::packed_size(Format format, size_t rows, size_t inputs) {
    return aligned(product((rows + kLanes - 1) / kLanes, panel_bytes(format, inputs)));
}

size_t Weights::vector_size(size_t length) { return aligned(product((length + kLanes - 1) / kLanes * kLanes, 4)); }

Weights::Weights(size_t capacity, Pool& pool) : arena_(capacity), pool_(pool) {
    if (capacity) madvise(arena_.data(), arena_.bytes(), MADV_HUGEPAGE);
}

uint8_t* Weights::take(size_t bytes) {
    if (bytes > arena_.bytes() - used_) throw std::invalid_argument("the weights need more room than was set aside");
    uint8_t* at = arena_.data() + used_;
    used_ += bytes;
    return at;
}

size_t Weights::reserve(Format format, size_t rows, size_t inputs, size_t parts) {
    if (rows == 0 || parts == 0) throw std::invalid_argument("nothing to pack");
    source_row_bytes(format, inputs);  // refuses inputs that are not whole blocks
    const size_t panels = (rows + kLanes - 1) / kLanes, panel = panel_bytes(format, inputs);
    uint8_t* base = take(aligned(product(product(panels, panel), parts)));
    for (size_t i = 0; i < parts; i++)
        weights_.push_back({format, rows, inputs, panels, panel * parts, base + i * panel});
    return weights_.size() - parts;
}

void Weights::fill(size_t index, size_t first_row, std::span<const uint8_t> bytes) {
    const PackedWeight& w = weight(index);
    const size_t row_bytes = source_row_bytes(w.format, w.inputs), rows = bytes.size() / row_bytes;
    if (rows * row_bytes != bytes.size())
        throw std::invalid_argument("rows of " + std::to_string(row_bytes) + " bytes came with " +
                                    std::to_string(bytes.size()) + " bytes");
    const bool whole_panels = first_row % kLanes == 0 && (rows % kLanes == 0 || first_row + rows == w.rows);
    if (first_row > w.rows || rows > w.rows - first_row || !whole_panels)
        throw std::invalid_argument(std::to_string(rows) + " rows from " + std::to_string(first_row) +
                                    " on are not whole panels of a weight of " + std::to_string(w.rows) + " rows");
    const size_t panels = (rows + kLanes - 1) / kLanes, threads = static_cast<size_t>(pool_.threads());
    pool_.run([&](int thread) {
        for (size_t p = panels * thread / threads; p < panels * (thread + 1) / threads; p++)
            for (size_t r = p * kLanes; r < std::min(rows, (p + 1) * kLanes); r++)
                pack_row(w.format, bytes.data() + r * row_bytes, w.inputs,
                         w.data + (first_row / kLanes + p) * w.panel_stride, r % kLanes);
    });
}

size_t Weights::add(Format format, size_t inputs, const std::vector<Source>& sources) {
    if (sources.empty()) throw std::invalid_argument("nothing to pack");
    const size_t row_bytes = source_row_bytes(format, inputs);
    for (const Source& s : sources) {
        if (s.rows == 0 || s.rows != sources[0].rows)
            throw std::invalid_argument("weights whose panels alternate must have the same number of rows");
        if (s.bytes.size() != product(s.rows, row_bytes))
            throw std::invalid_argument("a weight of " + std::to_string(s.rows) + " rows of " +
                                        std::to_string(row_bytes) + " bytes came with " +
                                        std::to_string(s.bytes.size()) + " bytes");
    }
    const size_t first = reserve(format, sources[0].rows, inputs, sources.size());
    for (size_t i = 0; i < sources.size(); i++) fill(first + i, 0, sources[i].bytes);
    return first;
}

size_t Weights::add_vector(std::span<const float> values) {
    if (values.empty()) throw std::invalid_argument("an empty vector");
    float* at = reinterpret_cast<float*>(take(vector_size(values.size())));
    std::copy(values.begin(), values.end(), at);
    vectors_.push_back({at, values.size()});
    return vectors_.size() - 1;
}

const PackedWeight& Weights::weight(size_t index) const {
    if (index >= weights_.size()) throw std::out_of_range("no weight of that number");
    return weights_[index];
}

std::span<const float> Weights::vector(size_t index) const {
    if (index >= vectors_.size()) throw std::out_of_range("no vector of that number");
    return vectors_[index];
}

void decode_row(const PackedWeight& w, size_t row, float* out) {
    const uint8_t* panel = w.data + row / kLanes * w.panel_stride;
    const size_t r = row % kLanes;
    const auto half = [](const uint8_t* p) {
        uint16_t h;
        std::memcpy(&h, p, 2);
        return h;
    };
    const Layout l = layout(w.format);
    for (size_t k = 0; k < w.inputs; k++) {
        const uint8_t* group = panel + k / l.block * l.group_bytes;
        const size_t i = k % l.block;
        switch (w.format) {
            case Format::f32: std::memcpy(out + k, group + r * 4, 4); break;
            case Format::f16: out[k] = half_to_float(half(group + r * 2)); break;
            case Format::bf16: {
                const uint32_t bits = static_cast<uint32_t>(half(panel + k / 2 * 64 + r * 4 + k % 2 * 2)) << 16;
                std::memcpy(out + k, &bits, 4);
                break;
            }
            case Format::q8_0:
                out[k] = half_to_float(half(group + r * 2)) *
                         static_cast<float>(static_cast<int>(group[32 + i / 4 * 64 + r * 4 + i % 4]) - 128);
                break;
            case Format::q4_0:
            case Format::q4_1: {
                const bool min = w.format == Format::q4_1;
                const uint8_t both = group[(min ? 64 : 32) + i / 8 * 64 + r * 4 + i % 4];
                const int q = i % 8 < 4 ? both & 15 : both >> 4;
                const float d = half_to_float(half(group + r * 2));
                out[k] = min ? d * static_cast<float>(q) + half_to_float(half(group + 32 + r * 2))
                             : d * static_cast<float>(q - 8);
                break;
            }
            case Format::nf4:
            case Format::fp4: {
                const uint32_t nibble = word(group + 64 + i / 8 * 64 + r * 4) >> i % 8 * 4 & 15;
                float largest;
                std::memcpy(&largest, group + r * 4, 4);
                out[k] = largest * (w.format == Format::nf4 ? kNf4 : kFp4)[nibble];
                break;
            }
        }
    }
}

}  // namespace qb
