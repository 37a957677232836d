// The one GEMM core. Each output element is one chain of operations, ascending k, the same for every number of tokens:
//   quantized: per group of 32 an exact integer dot, then f = fma(dot, w_scale * x_scale, f) and for formats with a
//              minimum f = fma(min, x_scale * x_sum, f); for q6_k, s8_k, q2_k and q3_k the dot is that of two halves,
//              times their scales, and the minimum likewise
//   on bf16:   per group two chains over units 0 and 1 mod 2, joined, less what every w + offset has too much, then
//              f = fma(dot, w_scale, f) and f = fma(min, x_sum, f); for q6_k, s8_k, q2_k and q3_k per half of a group
//   float:     four chains over units 0,1,2,3 mod 4, joined as (0 + 1) + (2 + 3)
//   scaled:    per block of 64 four such chains over its floats, then f = fma(scale, joined, f)
// This file has the tiles of up to kTile tokens, which decode weights on their way; expanded.inl those for more.

// The weights that a thread reads once, from memory: up to `end`, and on from there + `jump`, which may be the next
// instruction's. They are fetched into the second-level cache `ahead` bytes before they are wanted (docs/journal.md,
// 2026-11-23 and 2026-11-27: up to twice the speed of the hardware's own prefetching on one machine).
struct Reading {
    const uint8_t* end;
    ptrdiff_t jump;
    size_t ahead;
    __attribute__((always_inline)) void fetch_behind(const uint8_t* at, int bytes) const {
        at += ahead;
        if (at >= end) at += jump;
        for (int line = 0; line < bytes; line += 64) fetch(at + line);
    }
};

// The integer dots of one group: of 32 k of M tokens with 16 rows.
template <class Format, int M> QB_INLINE void group_dots(const uint8_t* group, const uint8_t* values, I (&dots)[M]) {
    for (int m = 0; m < M; m++) dots[m] = zero_i();
    if constexpr (M == 1 && kDotsUpper && requires { Format::nibbles(group, 0); }) {
        // High nibbles stay where they are, at 16 times their value; with one token, that many shifts count.
        I upper = zero_i();
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const Bytes both = Format::nibbles(group, j);
            dots[0] = dot4(dots[0], low_nibbles(both), broadcast4(values + 8 * j));
            upper = dot4(upper, upper_nibbles(both), broadcast4(values + 8 * j + 4));
        }
        dots[0] = add_i(dots[0], shift_right<4>(upper));
    } else {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            Bytes w, w_next;
            Format::vectors(group, j, w, w_next);
            for (int m = 0; m < M; m++) dots[m] = Format::dot(dots[m], w, broadcast4(values + (2 * j * M + m) * 4));
            for (int m = 0; m < M; m++)
                dots[m] = Format::dot(dots[m], w_next, broadcast4(values + ((2 * j + 1) * M + m) * 4));
        }
    }
}

template <class Format, int M>
QB_INLINE void integer_tile(const uint8_t* panel, const uint8_t* x, size_t inputs, const Reading& reading, F (&f)[M]) {
    const uint8_t* scales = x + inputs * M;  // per group [M] scale, [M] scale * sum, [M] bias, [M] of the first half
    for (int m = 0; m < M; m++) f[m] = set(0.0f);
    typename Format::Head head;
    for (size_t g = 0; g < inputs / kGroup; g++) {
        const uint8_t* group = Format::group(panel, g, Format::kGroupBytes);
        if (g % Format::kGroupsAHead == 0) head = Format::head(group);
        reading.fetch_behind(group, Format::kGroupBytes);
        I dots[M];
        group_dots<Format, M>(group, x + g * kGroup * M, dots);
        const float* scale = reinterpret_cast<const float*>(scales + g * M * 16);
        const F w_scale = Format::scale(group, head);
        for (int m = 0; m < M; m++) {
            I dot = dots[m];
            if constexpr (Format::kZeroShift >= 0)
                dot = add_i(dot, shift_right<7 - Format::kZeroShift>(broadcast4(scale + 2 * M + m)));
            f[m] = fma(to_float(dot), mul(w_scale, set(scale[m])), f[m]);
            if constexpr (Format::kHasMin) f[m] = fma(Format::min(group, head), set(scale[M + m]), f[m]);
        }
    }
}

// Groups of 32 whose halves have a scale each: the scaled dot stays below 2^24, which float32 holds exactly.
template <class Format, int M>
QB_INLINE void halves_tile(const uint8_t* panel, const uint8_t* x, size_t inputs, const Reading& reading, F (&f)[M]) {
    const uint8_t* scales = x + inputs * M;  // as in integer_tile
    for (int m = 0; m < M; m++) f[m] = set(0.0f);
    typename Format::Head head;
    for (size_t g = 0; g < inputs / kGroup; g++) {
        const uint8_t* group = Format::group(panel, g, Format::kGroupBytes);
        const uint8_t* values = x + g * kGroup * M;
        const float* scale = reinterpret_cast<const float*>(scales + g * M * 16);
        if (g % Format::kGroupsAHead == 0) head = Format::head(group);
        reading.fetch_behind(group, Format::kGroupBytes);
        I whole[M], least[M];
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            I dots[M];
            for (int m = 0; m < M; m++) dots[m] = zero_i();
#pragma GCC unroll 2
            for (int j = 2 * half; j < 2 * half + 2; j++) {
                Bytes w, w_next;
                Format::vectors(group, j, w, w_next);
                for (int m = 0; m < M; m++) dots[m] = Format::dot(dots[m], w, broadcast4(values + (2 * j * M + m) * 4));
                for (int m = 0; m < M; m++)
                    dots[m] = Format::dot(dots[m], w_next, broadcast4(values + ((2 * j + 1) * M + m) * 4));
            }
            const I by = load_s8(group + half * 16);
            for (int m = 0; m < M; m++) {
                const I first = broadcast4(scale + 3 * M + m);
                const I bias = half ? sub_i(broadcast4(scale + 2 * M + m), first) : first;
                I dot = dots[m];
                if constexpr (Format::kHalfZeroShift >= 0)
                    dot = add_i(dot, shift_right<7 - Format::kHalfZeroShift>(bias));
                dot = mul_i(dot, by);
                whole[m] = half ? add_i(whole[m], dot) : dot;
                if constexpr (requires { Format::kHalfMin; }) {
                    const I low = mul_i(load_s8(group + 32 + half * 16), shift_right<7>(bias));
                    least[m] = half ? sub_i(least[m], low) : sub_i(zero_i(), low);
                }
            }
        }
        for (int m = 0; m < M; m++) {
            f[m] = fma(to_float(whole[m]), mul(head.factor, set(scale[m])), f[m]);
            if constexpr (requires { Format::kHalfMin; })
                f[m] = fma(to_float(least[m]), mul(head.least, set(scale[m])), f[m]);
        }
    }
}

// A quantized format whose input is not rounded to int8. A weight of 7 bits is bf16 once it stands in the mantissa of
// 128: no conversion, and what is too much of it is 128 times the sum of x. Weights of 8 bits come as two nibbles.
template <class Quantized> struct Wide {
    static constexpr bool kHalves = in_halves<Quantized>;
    static constexpr int kZero = zero_point<Quantized>();
    static constexpr bool kBytes = kZero == 128;
    static constexpr float kOffset = 128.0f * (kBytes ? 17 : 1) + kZero;
    using Weights = Quantized;
};

// acc += the weights of one vector (k of 4 each) times their two units of x.
template <int M> QB_INLINE void multiply_wide(F (&acc)[2][M], Bytes w, const uint8_t* units) {
    const Pairs even = pairs_of(even_bytes(w)), odd = pairs_of(odd_bytes(w));
    for (int m = 0; m < M; m++) {
        acc[0][m] = dot2(acc[0][m], even, broadcast_pair(units + m * kPairBytes));
        acc[1][m] = dot2(acc[1][m], odd, broadcast_pair(units + (M + m) * kPairBytes));
    }
}

template <class Format, int M>
QB_INLINE void wide_tile(const uint8_t* panel, const uint8_t* x, size_t inputs, const Reading& reading, F (&f)[M]) {
    using Weights = typename Format::Weights;
    constexpr int kParts = Format::kHalves ? 2 : 1, kPieces = Format::kBytes ? 2 : 1;
    const float* sums = reinterpret_cast<const float*>(x + inputs / 2 * kPairBytes * M);  // per group [2 halves][M]
    for (int m = 0; m < M; m++) f[m] = set(0.0f);
    typename Weights::Head head;
    for (size_t g = 0; g < inputs / kGroup; g++, sums += 2 * M) {
        const uint8_t* group = Weights::group(panel, g, Weights::kGroupBytes);
        const uint8_t* values = x + g * kGroup / 2 * kPairBytes * M;
        if (g % Weights::kGroupsAHead == 0) head = Weights::head(group);
        reading.fetch_behind(group, Weights::kGroupBytes);
        for (int part = 0; part < kParts; part++) {
            F acc[kPieces][2][M];
            for (int piece = 0; piece < kPieces; piece++)
                for (int odd = 0; odd < 2; odd++)
                    for (int m = 0; m < M; m++) acc[piece][odd][m] = set(0.0f);
#pragma GCC unroll 4
            for (int j = part * 2; j < (kParts == 1 ? 4 : part * 2 + 2); j++) {
                Bytes w[2];
                Weights::vectors(group, j, w[0], w[1]);
                for (int v = 0; v < 2; v++) {
                    const uint8_t* units = values + (4 * j + 2 * v) * M * kPairBytes;
                    if constexpr (Format::kBytes) {
                        multiply_wide<M>(acc[0], low_nibbles(w[v]), units);
                        multiply_wide<M>(acc[1], high_nibbles(w[v]), units);
                    } else {
                        multiply_wide<M>(acc[0], w[v], units);
                    }
                }
            }
            const F scale = [&] {
                if constexpr (Format::kHalves)
                    return mul(head.factor, to_float(load_s8(group + part * 16)));
                else
                    return Weights::scale(group, head);
            }();
            for (int m = 0; m < M; m++) {
                const F sum = set(Format::kHalves ? sums[part * M + m] : sums[m] + sums[M + m]);
                F dot = add(acc[0][0][m], acc[0][1][m]);
                if constexpr (Format::kBytes) dot = fma(add(acc[1][0][m], acc[1][1][m]), set(16.0f), dot);
                dot = fma(set(-Format::kOffset), sum, dot);
                f[m] = fma(dot, scale, f[m]);
                if constexpr (requires { Weights::kHalfMin; }) {
                    const F least = mul(head.least, to_float(load_s8(group + 32 + part * 16)));
                    f[m] = fma(least, sum, f[m]);
                } else if constexpr (!Format::kHalves) {
                    if constexpr (Weights::kHasMin) f[m] = fma(Weights::min(group, head), sum, f[m]);
                }
            }
        }
    }
}

template <class Format, int M>
QB_INLINE void float_tile(const uint8_t* panel, const uint8_t* x, size_t inputs, const Reading& reading, F (&f)[M]) {
    F chains[4][M];
    for (int c = 0; c < 4; c++)
        for (int m = 0; m < M; m++) chains[c][m] = set(0.0f);
    const size_t units = inputs / Format::kUnit;  // a multiple of 4
    for (size_t u = 0; u < units; u += 4) {
        reading.fetch_behind(panel + u * Format::kUnitBytes, 4 * Format::kUnitBytes);
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) {
            const auto w = Format::weights(panel + (u + c) * Format::kUnitBytes);
            for (int m = 0; m < M; m++)
                chains[c][m] = Format::multiply(chains[c][m], w, x + ((u + c) * M + m) * Format::kOperandBytes);
        }
    }
    for (int m = 0; m < M; m++) f[m] = add(add(chains[0][m], chains[1][m]), add(chains[2][m], chains[3][m]));
}

template <class Format, int M>
QB_INLINE void scaled_tile(const uint8_t* panel, const uint8_t* x, size_t inputs, const Reading& reading, F (&f)[M]) {
    Format weights;
    for (int m = 0; m < M; m++) f[m] = set(0.0f);
    for (size_t b = 0; b < inputs / Format::kValues; b++) {
        const uint8_t* block = panel + b * Format::kBlockBytes;
        const uint8_t* values = x + b * Format::kValues * M * 4;
        reading.fetch_behind(block, Format::kBlockBytes);
        F chains[4][M];
        for (int c = 0; c < 4; c++)
            for (int m = 0; m < M; m++) chains[c][m] = set(0.0f);
        for (int j = 0; j < Format::kValues / 8; j++) {
            weights.begin(block, j);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                const F w = weights.next();
                for (int m = 0; m < M; m++) {
                    const F v = set(*reinterpret_cast<const float*>(values + ((j * 8 + i) * M + m) * 4));
                    chains[i & 3][m] = fma(w, v, chains[i & 3][m]);
                }
            }
        }
        F scale = load(reinterpret_cast<const float*>(block));
        if constexpr (Format::kFactor != 1) scale = mul(scale, set(Format::kFactor));
        for (int m = 0; m < M; m++) {
            const F sum = add(add(chains[0][m], chains[1][m]), add(chains[2][m], chains[3][m]));
            f[m] = fma(scale, sum, f[m]);
        }
    }
}

QB_INLINE Reading reading(const LinearArgs& a) { return {a.read_end, a.read_next - a.read_end, a.read_ahead}; }

// The dots of M tokens with one panel. Not part of its caller: two loops in one function get too few registers.
template <class Format, int M>
__attribute__((noinline)) void panel_tile(const LinearArgs& a, const uint8_t* panel, const uint8_t* x, F (&f)[M]) {
    if constexpr (requires { typename Format::Weights; })
        wide_tile<Format, M>(panel, x, a.inputs, reading(a), f);
    else if constexpr (requires { Format::kHalfZeroShift; })
        halves_tile<Format, M>(panel, x, a.inputs, reading(a), f);
    else if constexpr (requires { Format::kGroupBytes; })
        integer_tile<Format, M>(panel, x, a.inputs, reading(a), f);
    else if constexpr (requires { Format::kValues; })
        scaled_tile<Format, M>(panel, x, a.inputs, reading(a), f);
    else
        float_tile<Format, M>(panel, x, a.inputs, reading(a), f);
}

// What becomes of one token's dots with 16 rows, or with a gate's and those of its partner.
static void finish_panel(const LinearArgs& a, size_t token, size_t panel, F dots) {
    const size_t column = panel * kLanes, at = token * a.out_stride + column;
    if (a.bias) dots = add(load(a.bias + column), dots);
    if (a.residual) dots = add(load(a.residual + at), dots);
    store(a.out + at, dots);
}

static void finish_gated(const LinearArgs& a, size_t token, size_t panel, F gate, F up) {
    if (a.bias) gate = add(load(a.bias + panel * kLanes), gate);
    if (a.up_bias) up = add(load(a.up_bias + panel * kLanes), up);
    store(a.out + token * a.out_stride + panel * kLanes, gated(a.nonlinearity, a.limit, gate, up));
}

// M tokens from `token` on times the panels of one column of outputs.
template <class Format, int M> void few_tokens(const LinearArgs& a, size_t token, size_t panel) {
    const uint8_t* x = a.activations + token * a.token_bytes;
    F f[M], up[M];
    if (!a.gated) {
        panel_tile<Format, M>(a, a.weights + panel * a.panel_stride, x, f);
        for (int m = 0; m < M; m++) finish_panel(a, token + m, panel, f[m]);
        return;
    }
    const uint8_t* gate = a.weights + 2 * panel * a.panel_stride;
    panel_tile<Format, M>(a, gate, x, f);
    panel_tile<Format, M>(a, gate + a.panel_stride, x, up);
    for (int m = 0; m < M; m++) finish_gated(a, token + m, panel, f[m], up[m]);
}

// Activations are walked in stretches of tokens that stay in the second-level cache while panels stream past: alike,
// and whole tiles of 8. They take half of it, which is 2 MB in the processors that avx512 was measured on, and 1 MB in
// those of AMD, which take avx512_bf16.
constexpr size_t kStretchTokens = 512, kStretchBytes = (kExpands && kPairBytes == 8 ? 1024 : 512) * 1024;
QB_INLINE size_t stretch_tokens(const LinearArgs& a) {
    constexpr size_t kWhole = 2 * kTile;
    size_t most = kStretchBytes / a.token_bytes / kWhole * kWhole;
    most = most < kWhole ? kWhole : most < kStretchTokens ? most : kStretchTokens;
    const size_t stretches = (a.tokens + most - 1) / most;
    return (a.tokens + stretches * kWhole - 1) / (stretches * kWhole) * kWhole;
}
