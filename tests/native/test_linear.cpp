// Linear kernels: bytes equal for one token and many, values equal to the decoded weights within the sum's rounding.
#include <algorithm>
#include <cmath>

#include "check.h"
#include "core/weights.h"

using namespace qb;

namespace {

// Values a block.
size_t block_of(Format format) {
    switch (format) {
        case Format::f32:
        case Format::f16:
        case Format::bf16: return 1;
        case Format::nf4:
        case Format::fp4:
        case Format::e4m3: return 64;
        case Format::q4_k:
        case Format::q5_k:
        case Format::s8_k:
        case Format::q2_k:
        case Format::q3_k:
        case Format::iq4_xs:
        case Format::q6_k: return 256;
        default: return 32;
    }
}

// Encoded rows whose every byte pattern is legal; scales are ordinary fp16 numbers.
std::vector<uint8_t> encoded(Format format, size_t rows, size_t inputs, std::mt19937& random) {
    const size_t bytes = source_row_bytes(format, inputs);
    std::vector<uint8_t> data(rows * bytes);
    for (uint8_t& b : data) b = static_cast<uint8_t>(random());
    std::normal_distribution<float> normal;
    const auto half = [&](uint8_t* p) {  // 2^-5 .. 2^-2, either sign
        const uint16_t h = static_cast<uint16_t>((random() & 0x8000) | ((10 + random() % 4) << 10) | (random() & 1023));
        std::memcpy(p, &h, 2);
    };
    const auto has_min = [&] {
        for (Format f : {Format::q4_1, Format::q5_1, Format::q4_k, Format::q5_k, Format::u4z})
            if (f == format) return true;
        return false;
    };
    const size_t block = source_row_bytes(format, block_of(format));
    for (size_t i = 0; i < data.size();) {
        switch (format) {
            case Format::f32: {
                const float x = normal(random);
                std::memcpy(&data[i], &x, 4);
                i += 4;
                break;
            }
            case Format::f16: half(&data[i]), i += 2; break;
            case Format::bf16: {
                const float x = normal(random);
                std::memcpy(&data[i], reinterpret_cast<const uint8_t*>(&x) + 2, 2);
                i += 2;
                break;
            }
            case Format::q2_k: half(&data[i + 80]), half(&data[i + 82]), i += 84; break;
            case Format::q3_k: half(&data[i + 108]), i += 110; break;
            case Format::s8_k: {  // scales of up to 31: its dots are exact as far as 2^24
                const float d = normal(random);
                std::memcpy(&data[i], &d, 4);
                for (size_t s = 4; s < 20; s++) data[i + s] = static_cast<uint8_t>(random() % 63 - 31);
                i += 276;
                break;
            }
            case Format::q6_k: half(&data[i + 208]), i += 210; break;
            case Format::mxfp4: data[i] = static_cast<uint8_t>(120 + random() % 4), i += 17; break;
            case Format::nf4:
            case Format::fp4: {
                const float largest = std::abs(normal(random));
                std::memcpy(&data[i], &largest, 4);
                i += 36;
                break;
            }
            case Format::u8z: {
                const float scale = normal(random);
                std::memcpy(&data[i], &scale, 4);
                half(&data[i + 4]);
                i += 38;
                break;
            }
            case Format::e4m3: {
                const float scale = normal(random);
                std::memcpy(&data[i], &scale, 4);
                for (size_t k = 4; k < 68; k++)
                    if ((data[i + k] & 127) == 127) data[i + k] ^= 1;  // not a number
                i += 68;
                break;
            }
            default:
                half(&data[i]);
                if (has_min()) half(&data[i + 2]);
                i += block;
        }
    }
    return data;
}

// What the packed activations of one token stand for, as doubles.
std::vector<double> unpacked(Activation type, const uint8_t* tile, size_t inputs, size_t pair_bytes) {
    std::vector<double> x(inputs);
    const size_t padded = padded_inputs(type, inputs);
    for (size_t k = 0; k < inputs; k++) {
        if (type == Activation::int8) {
            float scale;
            std::memcpy(&scale, tile + padded + k / kGroup * 16, 4);
            x[k] = static_cast<double>(static_cast<int8_t>(tile[k])) * scale;
        } else if (type == Activation::bf16 || type == Activation::bf16_groups) {
            constexpr size_t order[] = {0, 2, 1, 3};  // of 4 values in their two units
            const size_t at = type == Activation::bf16 ? k : k / 4 * 4 + order[k % 4];
            const size_t bytes = pair_bytes / 2;  // of a float, of which a bf16 is the upper half
            uint32_t bits = 0;
            std::memcpy(reinterpret_cast<uint8_t*>(&bits) + 4 - bytes, tile + at * bytes, bytes);
            float value;
            std::memcpy(&value, &bits, 4);
            x[k] = value;
        } else {
            float value;
            std::memcpy(&value, tile + k * 4, 4);
            x[k] = value;
        }
    }
    return x;
}

struct Case {
    const Kernels& kernels;
    const PackedWeight& weight;
    const std::vector<float>& x;
    size_t stride;
    const Norm* norm;
    bool wide;
};

// What happens to a product before it is stored.
struct Ending {
    bool bias = false, residual = false, gated = false;
    Nonlinearity nonlinearity = Nonlinearity::silu;
};

// Tokens first .. first + count as one call.
std::vector<float> run(const Case& c, size_t first, size_t count, const Ending& ending) {
    const Activation type = activation_of(c.weight.format, c.wide);
    const size_t bytes = packed_bytes(type, c.weight.inputs, c.kernels.pair_bytes);
    std::vector<uint8_t> packed(bytes * count + 64);
    std::vector<float> scratch(kTile * c.stride);
    for (size_t t = 0; t < count; t += kTile)
        c.kernels.prepare(type, &c.x[(first + t) * c.stride], c.stride, c.weight.inputs,
                          static_cast<int>(std::min<size_t>(kTile, count - t)), c.norm, scratch.data(),
                          &packed[t * bytes]);
    const size_t width = c.weight.panels * kLanes;
    std::vector<float> out(count * width, 0.25f), bias(width, 1.5f), up_bias(width, -2.0f);
    Pages room(c.kernels.linear_scratch_bytes());
    const auto& linear = type == Activation::bf16_groups ? c.kernels.linear_bf16 : c.kernels.linear;
    linear[static_cast<int>(c.weight.format)](
        {.weights = c.weight.data,
         .panel_stride = ending.gated ? c.weight.panel_stride / 2 : c.weight.panel_stride,
         .inputs = padded_inputs(type, c.weight.inputs),
         .activations = packed.data(),
         .token_bytes = bytes,
         .tokens = count,
         .out = out.data(),
         .out_stride = width,
         .bias = ending.bias ? bias.data() : nullptr,
         .up_bias = ending.bias && ending.gated ? up_bias.data() : nullptr,
         .residual = ending.residual ? out.data() : nullptr,
         .gated = ending.gated,
         .nonlinearity = ending.nonlinearity,
         .limit = 7.0f,
         .read_end = c.weight.data + c.weight.panels * c.weight.panel_stride,
         .read_next = c.weight.data,
         .read_ahead = 4096,
         .scratch = room.data()},
        0, c.weight.panels);
    return out;
}

// Of the group that value k is in.
double largest(const std::vector<float>& weights, size_t k) {
    double found = 0;
    for (size_t i = k / kGroup * kGroup; i < std::min((k / kGroup + 1) * kGroup, weights.size()); i++)
        found = std::max(found, std::abs(static_cast<double>(weights[i])));
    return found;
}

void same_for_any_company(const Kernels& kernels, Format format, size_t rows, size_t inputs, bool wide = false) {
    std::mt19937 random(static_cast<unsigned>(rows * 31 + inputs));
    Pool pool(1);
    Weights weights(3 * Weights::packed_size(format, rows, inputs), pool);
    const std::vector<uint8_t> a = encoded(format, rows, inputs, random), b = encoded(format, rows, inputs, random);
    const PackedWeight plain = weights.weight(weights.add(format, inputs, {{rows, a}}));
    const PackedWeight gate = weights.weight(weights.add(format, inputs, {{rows, a}, {rows, b}}));

    const size_t tokens = 33, stride = (inputs + 15) / 16 * 16;
    std::vector<float> x(tokens * stride), norm(stride);
    std::normal_distribution<float> normal;
    for (size_t t = 0; t < tokens; t++)
        for (size_t k = 0; k < inputs; k++)
            x[t * stride + k] = normal(random) * (t % 7 == 3 ? 1e-30f : t % 5 == 2 ? 50.f : 1.f);
    for (size_t k = 0; k < inputs; k++) norm[k] = normal(random);

    const char* name = format_name(format);
    const Norm rms = {norm.data(), nullptr, 1e-5f, false}, layer = {norm.data(), norm.data(), 1e-5f, true};
    const std::pair<const Norm*, Ending> cases[] = {
        {nullptr, {}},
        {&rms, {}},
        {nullptr, {.residual = true}},
        {&layer, {.bias = true}},
        {nullptr, {.bias = true, .residual = true}},
        {&rms, {.gated = true}},
        {nullptr, {.bias = true, .gated = true, .nonlinearity = Nonlinearity::clamped}},
        {&layer, {.gated = true, .nonlinearity = Nonlinearity::gelu}},
    };
    for (const auto& [with, ending] : cases) {
        const Case c = {kernels, ending.gated ? gate : plain, x, stride, with, wide};
        const size_t width = c.weight.panels * kLanes;
        std::vector<float> alone;
        for (size_t t = 0; t < tokens; t++) {
            const std::vector<float> row = run(c, t, 1, ending);
            alone.insert(alone.end(), row.begin(), row.end());
        }
        for (size_t count : {2, 3, 4, 5, 6, 7, 8, 9, 33})
            for (size_t first = 0; first + count <= tokens; first += kEmulated ? tokens : 9) {
                const std::vector<float> together = run(c, first, count, ending);
                CHECK(!std::memcmp(together.data(), &alone[first * width], together.size() * 4),
                      "%s %s %zux%zu: %zu tokens from %zu differ from one at a time", kernels.name, name, rows, inputs,
                      count, first);
            }
    }

    // Against the decoded weights: one chain of K/32 (or K) roundings of at most half an ulp of the sum of magnitudes.
    std::vector<float> decoded(inputs), scratch(stride + 16);
    const Activation type = activation_of(format, wide);
    std::vector<uint8_t> packed(packed_bytes(type, inputs, kernels.pair_bytes) + 64);
    for (size_t t : {0, 2, 3}) {
        kernels.prepare(type, &x[t * stride], stride, inputs, 1, nullptr, scratch.data(), packed.data());
        const std::vector<double> values = unpacked(type, packed.data(), inputs, kernels.pair_bytes);
        const std::vector<float> got = run({kernels, plain, x, stride, nullptr, wide}, t, 1, {});
        for (size_t r = 0; r < rows; r++) {
            decode_row(plain, r, decoded.data());
            double want = 0, magnitude = 0, exact = 0;
            for (size_t k = 0; k < inputs; k++) {
                want += decoded[k] * values[k];
                magnitude += std::abs((type == Activation::bf16_groups ? largest(decoded, k) : decoded[k]) * values[k]);
            }
            // 128 + u, or 17 * 128 and a byte, is at most 24 times as much as the largest of 32 random weights
            if (type == Activation::bf16_groups) magnitude *= 24;
            // d*q and m are added apart, each as large as the sum of its own magnitudes
            if (format == Format::q4_1 || format == Format::u4z || format == Format::u8z) magnitude *= 16;
            if (format == Format::q5_1 || format == Format::q4_k || format == Format::q5_k) magnitude *= 64;
            exact = std::abs(got[r] - want);
            const double chain = static_cast<double>(inputs) + 8;
            CHECK(exact <= magnitude * chain * 0x1p-24 + 1e-38 * chain,
                  "%s %s %zux%zu row %zu: %g for %g (magnitude %g)", kernels.name, name, rows, inputs, r, got[r], want,
                  magnitude);
        }
    }
}

}  // namespace

void test_linear() {
    for (const Kernels* kernels : variants())
        for (int format = 0; format < kFormats; format++)
            for (auto [rows, inputs] :
                 {std::pair<size_t, size_t>{16, 32}, {40, 96}, {64, 576}, {3, 64}, {40, 128}, {40, 512}})
                if (inputs % block_of(static_cast<Format>(format)) == 0 && !(kEmulated && rows == 64)) {
                    same_for_any_company(*kernels, static_cast<Format>(format), rows, inputs);
                    if (kernels->linear_bf16[format])
                        same_for_any_company(*kernels, static_cast<Format>(format), rows, inputs, true);
                }
    // float formats take any K
    for (const Kernels* kernels : variants())
        for (Format format : {Format::f32, Format::f16, Format::bf16})
            for (size_t inputs : {1, 5, 30, 77}) same_for_any_company(*kernels, format, 24, inputs);
}
