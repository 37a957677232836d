#include "core/weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>

namespace qb {

namespace {

constexpr size_t kAlign = 64;

// How many of `unit` n takes. None of these sums can overflow: sizes may be whatever a file says.
size_t whole(size_t n, size_t unit) { return n / unit + (n % unit != 0); }
size_t aligned(size_t bytes) { return product(whole(bytes, kAlign), kAlign); }

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
        case Format::q4_k: return {256, 144, 64 + 8 * 288};
        case Format::q6_k: return {256, 210, 32 + 8 * 416};
        case Format::q5_0: return {32, 22, 352};
        case Format::q5_1: return {32, 24, 384};
        case Format::q5_k: return {256, 176, 64 + 8 * 352};
        case Format::iq4_nl: return {32, 18, 288};
        case Format::mxfp4: return {32, 17, 272};
        case Format::u4z: return {32, 20, 320};
        case Format::u8z: return {32, 38, 608};
        case Format::e4m3: return {64, 68, 1088};
        case Format::s8_k: return {256, 276, 64 + 8 * 544};
        case Format::q2_k: return {256, 84, 64 + 8 * 192};
        case Format::q3_k: return {256, 110, 32 + 8 * 224};
        case Format::iq4_xs: return {256, 136, 32 + 8 * 272};
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

// Nibbles 0 to 3 of a word, one to a byte.
uint32_t spread(uint32_t w) {
    w = (w | w << 8) & 0x00ff00ff;
    return (w | w << 4) & 0x0f0f0f0f;
}

// 32 values of up to 8 bits each, four a word, in the order of k.
using Group = std::array<uint32_t, 8>;

// Their nibbles into row r of the four vectors of a group, their bits 4 and up into those behind: `upper` bits of each.
void pack_group(const Group& q, int upper, uint8_t* vectors, size_t r) {
    constexpr uint32_t low = 0x0f0f0f0f, byte = 0x01010101;
    for (size_t j = 0; j < 4; j++) put(vectors + j * 64 + r * 4, (q[2 * j] & low) | (q[2 * j + 1] & low) << 4);
    if (upper == 0) return;
    const size_t fields = 8 / upper;  // in a byte
    for (size_t v = 0; v < 8 / fields; v++) {
        uint32_t bits = 0;
        for (size_t f = 0; f < fields; f++) bits |= (q[v * fields + f] >> 4 & byte * ((1u << upper) - 1)) << f * upper;
        put(vectors + 256 + v * 64 + r * 4, bits);
    }
}

// 16 published bytes of nibbles (low: k 0..15, high: k 16..31) and the fifth bits, bit k for k.
Group five_bits(const uint8_t* nibbles, uint32_t fifth) {
    Group q;
    for (size_t u = 0; u < 8; u++) {
        const uint32_t bits = (fifth >> 4 * u & 15) * 0x00204081 & 0x01010101;  // 4 bits, one to a byte
        q[u] = (word(nibbles + u % 4 * 4) >> (u < 4 ? 0 : 4) & 0x0f0f0f0f) | bits << 4;
    }
    return q;
}

// Of q4_k and q5_k: the 6-bit scale and minimum of group s, from the 12 bytes that hold those of 8.
std::pair<uint8_t, uint8_t> scale_and_min(const uint8_t* p, size_t s) {
    if (s < 4) return {p[s] & 63, p[s + 4] & 63};
    return {(p[s + 4] & 15) | p[s - 4] >> 6 << 4, p[s + 4] >> 4 | p[s] >> 6 << 4};
}

void pack_q4_k(const uint8_t* source, bool fifth, uint8_t* panel, size_t r) {
    const uint8_t *fifths = source + 16, *nibbles = source + (fifth ? 48 : 16);
    std::memcpy(panel + r * 2, source, 2);
    panel[32 + r * 2] = source[2], panel[33 + r * 2] = source[3] ^ 0x80;  // -dmin
    for (size_t s = 0; s < 8; s++) {
        uint8_t* group = panel + 64 + s * (fifth ? 352 : 288);
        std::tie(group[r], group[16 + r]) = scale_and_min(source + 4, s);
        Group q;
        for (size_t u = 0; u < 8; u++) {
            q[u] = word(nibbles + s / 2 * 32 + u * 4) >> s % 2 * 4 & 0x0f0f0f0f;
            if (fifth) q[u] |= (word(fifths + u * 4) >> s & 0x01010101) << 4;
        }
        pack_group(q, fifth, group + 32, r);
    }
}

void pack_q6_k(const uint8_t* source, uint8_t* panel, size_t r) {
    const uint8_t *upper = source + 128, *scales = source + 192;
    std::memcpy(panel + r * 2, source + 208, 2);
    for (size_t s = 0; s < 8; s++) {
        uint8_t* group = panel + 32 + s * 416;
        group[r] = scales[2 * s], group[16 + r] = scales[2 * s + 1];
        const size_t half = s / 4, field = s % 4;  // of 128 values, and of the four groups in it
        Group q;
        for (size_t u = 0; u < 8; u++)
            q[u] = (word(source + half * 64 + field % 2 * 32 + u * 4) >> field / 2 * 4 & 0x0f0f0f0f) |
                   (word(upper + half * 32 + u * 4) >> field * 2 & 0x03030303) << 4;
        pack_group(q, 2, group + 32, r);
    }
}

// Of q2_k and q3_k: group s of numbers of two bits, into row r of its two vectors.
void pack_two_bits(const uint8_t* source, size_t s, uint8_t* vectors, size_t r) {
    for (size_t half = 0; half < 2; half++) {
        uint32_t bits = 0;
        for (size_t f = 0; f < 4; f++)
            bits |= (word(source + s / 4 * 32 + half * 16 + f * 4) >> s % 4 * 2 & 0x03030303) << f * 2;
        put(vectors + half * 64 + r * 4, bits);
    }
}

void pack_q2_k(const uint8_t* source, uint8_t* panel, size_t r) {
    std::memcpy(panel + r * 2, source + 80, 2);
    panel[32 + r * 2] = source[82], panel[33 + r * 2] = source[83] ^ 0x80;  // -dmin
    for (size_t s = 0; s < 8; s++) {
        uint8_t* group = panel + 64 + s * 192;
        for (size_t half = 0; half < 2; half++)
            group[half * 16 + r] = source[2 * s + half] & 15, group[32 + half * 16 + r] = source[2 * s + half] >> 4;
        pack_two_bits(source + 16, s, group + 64, r);
    }
}

void pack_q3_k(const uint8_t* source, uint8_t* panel, size_t r) {
    const uint8_t* scales = source + 96;  // of 6 bits: four in the first 8 bytes, two in the last 4
    std::memcpy(panel + r * 2, source + 108, 2);
    for (size_t s = 0; s < 8; s++) {
        uint8_t* group = panel + 32 + s * 224;
        for (size_t half = 0; half < 2; half++) {
            const size_t i = 2 * s + half;
            const int scale = (scales[i % 8] >> i / 8 * 4 & 15) | (scales[8 + i % 4] >> i / 4 * 2 & 3) << 4;
            group[half * 16 + r] = static_cast<uint8_t>(scale - 32);
        }
        pack_two_bits(source + 32, s, group + 32, r);
        uint32_t thirds = 0;
        for (size_t u = 0; u < 8; u++) thirds |= (word(source + u * 4) >> s & 0x01010101) << u;
        put(group + 160 + r * 4, thirds);
    }
}

void pack_iq4_xs(const uint8_t* source, uint8_t* panel, size_t r) {
    std::memcpy(panel + r * 2, source, 2);
    for (size_t s = 0; s < 8; s++) {
        uint8_t* group = panel + 32 + s * 272;
        const int upper = source[2 + s / 4] >> s % 4 * 2 & 3, lower = source[4 + s / 2] >> s % 2 * 4 & 15;
        group[r] = static_cast<uint8_t>((lower | upper << 4) - 32);
        pack_nibbles(source + 8 + s * 16, group + 16, r);
    }
}

void pack_s8_k(const uint8_t* source, uint8_t* panel, size_t r) {
    std::memcpy(panel + r * 4, source, 4);
    for (size_t s = 0; s < 8; s++) {
        uint8_t* group = panel + 64 + s * 544;
        group[r] = source[4 + 2 * s], group[16 + r] = source[5 + 2 * s];
        for (size_t j = 0; j < 8; j++)
            put(group + 32 + j * 64 + r * 4, word(source + 20 + s * 32 + j * 4) ^ 0x80808080);
    }
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
        case Format::iq4_nl:
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
        case Format::q4_k:
        case Format::q5_k:
            for (size_t b = 0; b < blocks; b++)
                pack_q4_k(source + b * l.block_bytes, format == Format::q5_k, panel + b * l.group_bytes, r);
            return;
        case Format::q6_k:
            for (size_t b = 0; b < blocks; b++) pack_q6_k(source + b * l.block_bytes, panel + b * l.group_bytes, r);
            return;
        case Format::q2_k:
            for (size_t b = 0; b < blocks; b++) pack_q2_k(source + b * l.block_bytes, panel + b * l.group_bytes, r);
            return;
        case Format::q3_k:
            for (size_t b = 0; b < blocks; b++) pack_q3_k(source + b * l.block_bytes, panel + b * l.group_bytes, r);
            return;
        case Format::iq4_xs:
            for (size_t b = 0; b < blocks; b++) pack_iq4_xs(source + b * l.block_bytes, panel + b * l.group_bytes, r);
            return;
        case Format::s8_k:
            for (size_t b = 0; b < blocks; b++) pack_s8_k(source + b * l.block_bytes, panel + b * l.group_bytes, r);
            return;
        case Format::q5_0:
            for (size_t g = 0; g < blocks; g++, source += l.block_bytes, panel += l.group_bytes) {
                std::memcpy(panel + r * 2, source, 2);
                pack_group(five_bits(source + 6, word(source + 2)), 1, panel + 32, r);
            }
            return;
        case Format::q5_1:
            for (size_t g = 0; g < blocks; g++, source += l.block_bytes, panel += l.group_bytes) {
                std::memcpy(panel + r * 2, source, 2);
                std::memcpy(panel + 32 + r * 2, source + 2, 2);
                pack_group(five_bits(source + 8, word(source + 4)), 1, panel + 64, r);
            }
            return;
        case Format::mxfp4:
            for (size_t g = 0; g < blocks; g++, source += l.block_bytes, panel += l.group_bytes) {
                panel[r] = source[0];
                pack_nibbles(source + 1, panel + 16, r);
            }
            return;
        case Format::u4z:
            for (size_t g = 0; g < blocks; g++, source += l.block_bytes, panel += l.group_bytes) {
                std::memcpy(panel + r * 2, source, 2);
                std::memcpy(panel + 32 + r * 2, source + 2, 2);
                for (size_t j = 0; j < 4; j++) {  // published in the order of k
                    const uint32_t w = word(source + 4 + j * 4);
                    put(panel + 64 + j * 64 + r * 4, spread(w & 0xffff) | spread(w >> 16) << 4);
                }
            }
            return;
        case Format::u8z:
            for (size_t g = 0; g < blocks; g++, source += l.block_bytes, panel += l.group_bytes) {
                std::memcpy(panel + r * 4, source, 4);
                std::memcpy(panel + 64 + r * 2, source + 4, 2);
                for (size_t j = 0; j < 8; j++) put(panel + 96 + j * 64 + r * 4, word(source + 6 + j * 4));
            }
            return;
        case Format::e4m3:
            for (size_t b = 0; b < blocks; b++, source += l.block_bytes, panel += l.group_bytes) {
                std::memcpy(panel + r * 4, source, 4);
                for (size_t k = 0; k < l.block; k++) panel[64 + k * 16 + r] = source[4 + k];
            }
            return;
    }
}

}  // namespace

Activation activation_of(Format format, bool wide) {
    switch (format) {
        case Format::f32:
        case Format::f16:
        case Format::nf4:
        case Format::fp4:
        case Format::e4m3: return Activation::f32;
        case Format::bf16: return Activation::bf16;
        default: return wide ? Activation::bf16_groups : Activation::int8;
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
    if (inputs == 0) return 0;
    source_row_bytes(format, inputs);  // refuses more inputs than there can be, and those that are not whole blocks
    const size_t padded = padded_inputs(activation_of(format, false), inputs);
    return product(padded / l.block, l.group_bytes);
}

size_t Weights::packed_size(Format format, size_t rows, size_t inputs) {
    return aligned(product(whole(rows, kLanes), panel_bytes(format, inputs)));
}

size_t Weights::vector_size(size_t length) { return aligned(product(product(whole(length, kLanes), kLanes), 4)); }

Weights::Weights(size_t capacity, Pool& pool) : arena_(capacity), room_(arena_.data(), capacity), pool_(pool) {}

Weights::Weights(std::span<const uint8_t> packed, Pool& pool) : room_(packed), pool_(pool) {
    if (reinterpret_cast<uintptr_t>(packed.data()) % kAlign)
        throw std::invalid_argument("packed weights must lie at a multiple of " + std::to_string(kAlign));
}

const uint8_t* Weights::take(size_t bytes) {
    if (bytes > room_.size() - used_) throw std::invalid_argument("the weights need more room than was set aside");
    const uint8_t* at = room_.data() + used_;
    used_ += bytes;
    return at;
}

uint8_t* Weights::own(const void* at) {
    if (!arena_.data()) throw std::invalid_argument("these weights stand on what others have packed");
    return arena_.data() + (static_cast<const uint8_t*>(at) - room_.data());
}

size_t Weights::reserve(Format format, size_t rows, size_t inputs, size_t parts) {
    if (rows == 0 || inputs == 0 || parts == 0) throw std::invalid_argument("nothing to pack");
    const size_t panels = whole(rows, kLanes), panel = panel_bytes(format, inputs);
    const uint8_t* base = take(aligned(product(product(panels, panel), parts)));
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
    const size_t panels = whole(rows, kLanes);
    uint8_t* data = own(w.data);
    pool_.run([&](int thread, int threads) {
        for (size_t p = panels * thread / threads; p < panels * (thread + 1) / threads; p++)
            for (size_t r = p * kLanes; r < std::min(rows, (p + 1) * kLanes); r++)
                pack_row(w.format, bytes.data() + r * row_bytes, w.inputs,
                         data + (first_row / kLanes + p) * w.panel_stride, r % kLanes);
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

size_t Weights::reserve_vector(size_t length) {
    if (length == 0) throw std::invalid_argument("an empty vector");
    vectors_.push_back({reinterpret_cast<const float*>(take(vector_size(length))), length});
    return vectors_.size() - 1;
}

void Weights::fill_vector(size_t index, std::span<const float> values) {
    const std::span<const float> place = vector(index);
    if (values.size() != place.size())
        throw std::invalid_argument("a vector of " + std::to_string(place.size()) + " values came with " +
                                    std::to_string(values.size()));
    std::copy(values.begin(), values.end(), reinterpret_cast<float*>(own(place.data())));
}

size_t Weights::add_vector(std::span<const float> values) {
    const size_t index = reserve_vector(values.size());
    fill_vector(index, values);
    return index;
}

const PackedWeight& Weights::weight(size_t index) const {
    if (index >= weights_.size()) throw std::out_of_range("no weight of that number");
    return weights_[index];
}

std::span<const float> Weights::vector(size_t index) const {
    if (index >= vectors_.size()) throw std::out_of_range("no vector of that number");
    return vectors_[index];
}

namespace {

// Value i of row r, of a group's vectors of nibbles and of `upper` bits each behind them.
int quant(const uint8_t* vectors, int upper, size_t i, size_t r) {
    const uint8_t both = vectors[i / 8 * 64 + r * 4 + i % 4];
    const int nibble = i % 8 < 4 ? both & 15 : both >> 4;
    if (upper == 0) return nibble;
    const size_t fields = 8 / upper, u = i / 4;
    const int bits = vectors[256 + u / fields * 64 + r * 4 + i % 4] >> u % fields * upper;
    return nibble | (bits & ((1 << upper) - 1)) << 4;
}

}  // namespace

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
            case Format::q4_k:
            case Format::q5_k: {
                const int upper = w.format == Format::q5_k;
                const uint8_t* part = group + 64 + i / 32 * (upper ? 352 : 288);
                const float scale = half_to_float(half(group + r * 2)) * part[r];
                const float min = half_to_float(half(group + 32 + r * 2)) * part[16 + r];
                out[k] = scale * static_cast<float>(quant(part + 32, upper, i % 32, r)) + min;
                break;
            }
            case Format::q6_k: {
                const uint8_t* part = group + 32 + i / 32 * 416;
                const float scale = half_to_float(half(group + r * 2)) * static_cast<int8_t>(part[i / 16 % 2 * 16 + r]);
                out[k] = scale * static_cast<float>(quant(part + 32, 2, i % 32, r) - 32);
                break;
            }
            case Format::q2_k: {
                const uint8_t* part = group + 64 + i / 32 * 192;
                const size_t second = i / 16 % 2 * 16;
                const float scale = half_to_float(half(group + r * 2)) * part[second + r];
                const float min = half_to_float(half(group + 32 + r * 2)) * part[32 + second + r];
                const int q = part[64 + second * 4 + r * 4 + i % 4] >> i % 16 / 4 * 2 & 3;
                out[k] = scale * static_cast<float>(q) + min;
                break;
            }
            case Format::q3_k: {
                const uint8_t* part = group + 32 + i / 32 * 224;
                const float scale = half_to_float(half(group + r * 2)) * static_cast<int8_t>(part[i / 16 % 2 * 16 + r]);
                const size_t byte = r * 4 + i % 4, half_of = i / 16 % 2 * 64;
                const int two = part[32 + half_of + byte] >> i % 16 / 4 * 2 & 3, third = part[160 + byte] >> i % 32 / 4;
                out[k] = scale * static_cast<float>((two | (third & 1) << 2) - 4);
                break;
            }
            case Format::iq4_xs: {
                const uint8_t* part = group + 32 + i / 32 * 272;
                const float scale = half_to_float(half(group + r * 2)) * static_cast<int8_t>(part[r]);
                out[k] = scale * static_cast<float>(kIq4Nl[quant(part + 16, 0, i % 32, r)] - 128);
                break;
            }
            case Format::s8_k: {
                const uint8_t* part = group + 64 + i / 32 * 544;
                float factor;
                std::memcpy(&factor, group + r * 4, 4);
                const int q = static_cast<int>(part[32 + i % 32 / 4 * 64 + r * 4 + i % 4]) - 128;
                out[k] = factor * static_cast<int8_t>(part[i / 16 % 2 * 16 + r]) * static_cast<float>(q);
                break;
            }
            case Format::q5_0:
                out[k] = half_to_float(half(group + r * 2)) * static_cast<float>(quant(group + 32, 1, i, r) - 16);
                break;
            case Format::q5_1:
                out[k] = half_to_float(half(group + r * 2)) * static_cast<float>(quant(group + 64, 1, i, r)) +
                         half_to_float(half(group + 32 + r * 2));
                break;
            case Format::iq4_nl:
                out[k] =
                    half_to_float(half(group + r * 2)) * static_cast<float>(kIq4Nl[quant(group + 32, 0, i, r)] - 128);
                break;
            case Format::u4z:
                out[k] = half_to_float(half(group + r * 2)) *
                         (static_cast<float>(quant(group + 64, 0, i, r)) - half_to_float(half(group + 32 + r * 2)));
                break;
            case Format::u8z: {
                float d;
                std::memcpy(&d, group + r * 4, 4);
                const uint8_t q = group[96 + i / 4 * 64 + r * 4 + i % 4];
                out[k] = d * (static_cast<float>(q) - half_to_float(half(group + 64 + r * 2)));
                break;
            }
            case Format::e4m3: {
                float scale;
                std::memcpy(&scale, group + r * 4, 4);
                const uint8_t bits = group[64 + i * 16 + r];
                const uint16_t as_half = static_cast<uint16_t>((bits & 0x80) << 8 | (bits & 0x7f) << 7);
                out[k] = scale * (half_to_float(as_half) * 256.0f);
                break;
            }
            case Format::mxfp4:
                out[k] = std::ldexp(1.0f, group[r] - 128) * static_cast<float>(kMxfp4[quant(group + 16, 0, i, r)] - 16);
                break;
        }
    }
}

}  // namespace qb
