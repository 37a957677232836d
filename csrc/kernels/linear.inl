// The one GEMM core. Each output element is one chain of operations, ascending k, the same for every number of tokens:
//   quantized: per group of 32 an exact integer dot, then f = fma(dot, w_scale * x_scale, f) and for formats with a
//              minimum f = fma(min, x_scale * x_sum, f); for q6_k, s8_k, q2_k and q3_k the dot is that of two halves,
//              times their scales, and the minimum likewise
//   on bf16:   per group two chains over units 0 and 1 mod 2, joined, less what every w + offset has too much, then
//              f = fma(dot, w_scale, f) and f = fma(min, x_sum, f); for q6_k, s8_k, q2_k and q3_k per half of a group
//   float:     four chains over units 0,1,2,3 mod 4, joined as (0 + 1) + (2 + 3)
//   scaled:    per block of 64 four such chains over its floats, then f = fma(scale, joined, f)

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

// The integer dots of one group: of 32 k of M tokens with 16 rows of each of N panels.
template <class Format, int M, int N>
QB_INLINE void group_dots(const uint8_t* group, size_t stride, const uint8_t* values, I (&dots)[M][N]) {
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) dots[m][n] = zero_i();
    if constexpr (M == 1 && kDotsUpper && requires { Format::nibbles(group, 0); }) {
        // High nibbles stay where they are, at 16 times their value; with one token, that many shifts count.
        I upper[N];
        for (int n = 0; n < N; n++) upper[n] = zero_i();
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            for (int n = 0; n < N; n++) {
                const Bytes both = Format::nibbles(group + n * stride, j);
                dots[0][n] = dot4(dots[0][n], low_nibbles(both), broadcast4(values + 8 * j));
                upper[n] = dot4(upper[n], upper_nibbles(both), broadcast4(values + 8 * j + 4));
            }
        for (int n = 0; n < N; n++) dots[0][n] = add_i(dots[0][n], shift_right<4>(upper[n]));
    } else {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            Bytes w[N], w_next[N];
            for (int n = 0; n < N; n++) Format::vectors(group + n * stride, j, w[n], w_next[n]);
            for (int m = 0; m < M; m++) {
                I x4 = broadcast4(values + (2 * j * M + m) * 4);
                for (int n = 0; n < N; n++) dots[m][n] = Format::dot(dots[m][n], w[n], x4);
            }
            for (int m = 0; m < M; m++) {
                I x4 = broadcast4(values + ((2 * j + 1) * M + m) * 4);
                for (int n = 0; n < N; n++) dots[m][n] = Format::dot(dots[m][n], w_next[n], x4);
            }
        }
    }
}

template <class Format, int M, int N>
QB_INLINE void integer_tile(const uint8_t* panels, size_t stride, const uint8_t* x, size_t inputs,
                            const Reading& reading, F (&f)[M][N]) {
    const size_t groups = inputs / kGroup;
    const uint8_t* scales = x + inputs * M;  // per group [M] scale, [M] scale * sum, [M] sum, [M] sum of the first half
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) f[m][n] = set(0.0f);
    typename Format::Head heads[N];
    for (size_t g = 0; g < groups; g++) {
        const uint8_t* group = Format::group(panels, g, Format::kGroupBytes);
        const uint8_t* values = x + g * kGroup * M;
        if (g % Format::kGroupsAHead == 0)
            for (int n = 0; n < N; n++) heads[n] = Format::head(group + n * stride);
        if constexpr (N == 1) reading.fetch_behind(group, Format::kGroupBytes);
        I dots[M][N];
        group_dots<Format, M, N>(group, stride, values, dots);
        const float* scale = reinterpret_cast<const float*>(scales + g * M * 16);
        for (int n = 0; n < N; n++) {
            const F w_scale = Format::scale(group + n * stride, heads[n]);
            for (int m = 0; m < M; m++) {
                I dot = dots[m][n];
                if constexpr (Format::kZeroShift >= 0)
                    dot = sub_i(dot, shift_left<Format::kZeroShift>(broadcast4(scale + 2 * M + m)));
                f[m][n] = fma(to_float(dot), mul(w_scale, set(scale[m])), f[m][n]);
                if constexpr (Format::kHasMin)
                    f[m][n] = fma(Format::min(group + n * stride, heads[n]), set(scale[M + m]), f[m][n]);
            }
        }
    }
}

// Groups of 32 whose halves have a scale each: the scaled dot stays below 2^24, which float32 holds exactly.
template <class Format, int M, int N>
QB_INLINE void halves_tile(const uint8_t* panels, size_t stride, const uint8_t* x, size_t inputs,
                           const Reading& reading, F (&f)[M][N]) {
    const uint8_t* scales = x + inputs * M;  // as in integer_tile
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) f[m][n] = set(0.0f);
    typename Format::Head heads[N];
    for (size_t g = 0; g < inputs / kGroup; g++) {
        const uint8_t* group = Format::group(panels, g, Format::kGroupBytes);
        const uint8_t* values = x + g * kGroup * M;
        const float* scale = reinterpret_cast<const float*>(scales + g * M * 16);
        if (g % Format::kGroupsAHead == 0)
            for (int n = 0; n < N; n++) heads[n] = Format::head(group + n * stride);
        if constexpr (N == 1) reading.fetch_behind(group, Format::kGroupBytes);
        I whole[M][N], least[M][N];
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            I dots[M][N];
            for (int m = 0; m < M; m++)
                for (int n = 0; n < N; n++) dots[m][n] = zero_i();
#pragma GCC unroll 2
            for (int j = 2 * half; j < 2 * half + 2; j++) {
                Bytes w[N], w_next[N];
                for (int n = 0; n < N; n++) Format::vectors(group + n * stride, j, w[n], w_next[n]);
                for (int m = 0; m < M; m++) {
                    I x4 = broadcast4(values + (2 * j * M + m) * 4);
                    for (int n = 0; n < N; n++) dots[m][n] = Format::dot(dots[m][n], w[n], x4);
                    x4 = broadcast4(values + ((2 * j + 1) * M + m) * 4);
                    for (int n = 0; n < N; n++) dots[m][n] = Format::dot(dots[m][n], w_next[n], x4);
                }
            }
            for (int m = 0; m < M; m++) {
                const I first = broadcast4(scale + 3 * M + m);
                const I sum = half ? sub_i(broadcast4(scale + 2 * M + m), first) : first;
                for (int n = 0; n < N; n++) {
                    const I by = load_s8(group + n * stride + half * 16);
                    I dot = dots[m][n];
                    if constexpr (Format::kHalfZeroShift >= 0)
                        dot = sub_i(dot, shift_left<Format::kHalfZeroShift>(sum));
                    dot = mul_i(dot, by);
                    whole[m][n] = half ? add_i(whole[m][n], dot) : dot;
                    if constexpr (requires { Format::kHalfMin; }) {
                        const I low = mul_i(load_s8(group + n * stride + 32 + half * 16), sum);
                        least[m][n] = half ? add_i(least[m][n], low) : low;
                    }
                }
            }
        }
        for (int n = 0; n < N; n++) {
            const F factor = heads[n].factor;
            for (int m = 0; m < M; m++) f[m][n] = fma(to_float(whole[m][n]), mul(factor, set(scale[m])), f[m][n]);
            if constexpr (requires { Format::kHalfMin; }) {
                for (int m = 0; m < M; m++)
                    f[m][n] = fma(to_float(least[m][n]), mul(heads[n].least, set(scale[m])), f[m][n]);
            }
        }
    }
}

// A quantized format whose input is not rounded to int8. A weight of 7 bits is bf16 once it stands in the mantissa of
// 128: no conversion, and what is too much of it is 128 times the sum of x. Weights of 8 bits come as two nibbles.
template <class Quantized> struct Wide {
    static constexpr bool kHalves = requires { Quantized::kHalfZeroShift; };  // a scale for each 16 of a group
    static constexpr int kZero = [] {
        const auto zero = [](int shift) { return shift < 0 ? 0 : 1 << shift; };
        if constexpr (kHalves)
            return zero(Quantized::kHalfZeroShift);
        else
            return zero(Quantized::kZeroShift);
    }();
    static constexpr bool kBytes = kZero == 128;
    static constexpr float kOffset = 128.0f * (kBytes ? 17 : 1) + kZero;
    using Weights = Quantized;
};

// acc += the weights of one vector (k of 4 each) times their two units of x.
template <int M, int N> QB_INLINE void multiply_wide(F (&acc)[2][M][N], const Bytes (&w)[N], const uint8_t* units) {
    for (int n = 0; n < N; n++) {
        const Pairs even = even_pairs(w[n]), odd = odd_pairs(w[n]);
        for (int m = 0; m < M; m++) {
            acc[0][m][n] = dot2(acc[0][m][n], even, broadcast_pair(units + m * 4));
            acc[1][m][n] = dot2(acc[1][m][n], odd, broadcast_pair(units + (M + m) * 4));
        }
    }
}

template <class Format, int M, int N>
QB_INLINE void wide_tile(const uint8_t* panels, size_t stride, const uint8_t* x, size_t inputs, const Reading& reading,
                         F (&f)[M][N]) {
    using Weights = typename Format::Weights;
    constexpr int kParts = Format::kHalves ? 2 : 1, kPieces = Format::kBytes ? 2 : 1;
    const float* sums = reinterpret_cast<const float*>(x + inputs * 2 * M);  // per group [2 halves][M]
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) f[m][n] = set(0.0f);
    typename Weights::Head heads[N];
    for (size_t g = 0; g < inputs / kGroup; g++, sums += 2 * M) {
        const uint8_t* group = Weights::group(panels, g, Weights::kGroupBytes);
        const uint8_t* values = x + g * kGroup * 2 * M;
        if (g % Weights::kGroupsAHead == 0)
            for (int n = 0; n < N; n++) heads[n] = Weights::head(group + n * stride);
        if constexpr (N == 1) reading.fetch_behind(group, Weights::kGroupBytes);
        for (int part = 0; part < kParts; part++) {
            F acc[kPieces][2][M][N];
            for (int piece = 0; piece < kPieces; piece++)
                for (int odd = 0; odd < 2; odd++)
                    for (int m = 0; m < M; m++)
                        for (int n = 0; n < N; n++) acc[piece][odd][m][n] = set(0.0f);
#pragma GCC unroll 4
            for (int j = part * 2; j < (kParts == 1 ? 4 : part * 2 + 2); j++) {
                Bytes w[2][N];
                for (int n = 0; n < N; n++) Weights::vectors(group + n * stride, j, w[0][n], w[1][n]);
                for (int v = 0; v < 2; v++) {
                    const uint8_t* units = values + (4 * j + 2 * v) * M * 4;
                    if constexpr (Format::kBytes) {
                        Bytes low[N], high[N];
                        for (int n = 0; n < N; n++) low[n] = low_nibbles(w[v][n]), high[n] = high_nibbles(w[v][n]);
                        multiply_wide<M, N>(acc[0], low, units);
                        multiply_wide<M, N>(acc[1], high, units);
                    } else {
                        multiply_wide<M, N>(acc[0], w[v], units);
                    }
                }
            }
            for (int n = 0; n < N; n++) {
                const uint8_t* own = group + n * stride;
                const F scale = [&] {
                    if constexpr (Format::kHalves)
                        return mul(heads[n].factor, to_float(load_s8(own + part * 16)));
                    else
                        return Weights::scale(own, heads[n]);
                }();
                for (int m = 0; m < M; m++) {
                    const F sum = set(Format::kHalves ? sums[part * M + m] : sums[m] + sums[M + m]);
                    F dot = add(acc[0][0][m][n], acc[0][1][m][n]);
                    if constexpr (Format::kBytes) dot = fma(add(acc[1][0][m][n], acc[1][1][m][n]), set(16.0f), dot);
                    dot = fma(set(-Format::kOffset), sum, dot);
                    f[m][n] = fma(dot, scale, f[m][n]);
                    if constexpr (requires { Weights::kHalfMin; }) {
                        const F least = mul(heads[n].least, to_float(load_s8(own + 32 + part * 16)));
                        f[m][n] = fma(least, sum, f[m][n]);
                    } else if constexpr (!Format::kHalves) {
                        if constexpr (Weights::kHasMin) f[m][n] = fma(Weights::min(own, heads[n]), sum, f[m][n]);
                    }
                }
            }
        }
    }
}

template <class Format, int M, int N>
QB_INLINE void float_tile(const uint8_t* panels, size_t stride, const uint8_t* x, size_t inputs, const Reading& reading,
                          F (&f)[M][N]) {
    F chains[4][M][N];
    for (int c = 0; c < 4; c++)
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) chains[c][m][n] = set(0.0f);
    const size_t units = inputs / Format::kUnit;  // a multiple of 4
    for (size_t u = 0; u < units; u += 4) {
        if constexpr (N == 1) reading.fetch_behind(panels + u * Format::kUnitBytes, 4 * Format::kUnitBytes);
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++)
            for (int m = 0; m < M; m++)
                for (int n = 0; n < N; n++)
                    chains[c][m][n] = Format::multiply(
                        chains[c][m][n], panels + n * stride + (u + c) * Format::kUnitBytes, x + ((u + c) * M + m) * 4);
    }
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++)
            f[m][n] = add(add(chains[0][m][n], chains[1][m][n]), add(chains[2][m][n], chains[3][m][n]));
}

template <class Format, int M, int N>
QB_INLINE void scaled_tile(const uint8_t* panels, size_t stride, const uint8_t* x, size_t inputs,
                           const Reading& reading, F (&f)[M][N]) {
    Format weights;
    for (int n = 0; n < N; n++) {
        for (int m = 0; m < M; m++) f[m][n] = set(0.0f);
        for (size_t b = 0; b < inputs / Format::kValues; b++) {
            const uint8_t* block = panels + n * stride + b * Format::kBlockBytes;
            const uint8_t* values = x + b * Format::kValues * M * 4;
            if constexpr (N == 1) reading.fetch_behind(block, Format::kBlockBytes);
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
                f[m][n] = fma(scale, sum, f[m][n]);
            }
        }
    }
}

template <class Format, int M, int N>
QB_INLINE void tile(const uint8_t* panels, size_t stride, const uint8_t* x, size_t inputs, const Reading& reading,
                    F (&f)[M][N]) {
    if constexpr (requires { typename Format::Weights; })
        wide_tile<Format, M, N>(panels, stride, x, inputs, reading, f);
    else if constexpr (requires { Format::kHalfZeroShift; })
        halves_tile<Format, M, N>(panels, stride, x, inputs, reading, f);
    else if constexpr (requires { Format::kGroupBytes; })
        integer_tile<Format, M, N>(panels, stride, x, inputs, reading, f);
    else if constexpr (requires { Format::kValues; })
        scaled_tile<Format, M, N>(panels, stride, x, inputs, reading, f);
    else
        float_tile<Format, M, N>(panels, stride, x, inputs, reading, f);
}

QB_INLINE Reading reading(const LinearArgs& a) { return {a.read_end, a.read_next - a.read_end, a.read_ahead}; }

// M tokens from `token` on times N adjacent panels from `panel` on.
template <class Format, int M, int N>
__attribute__((noinline)) void linear_tile(const LinearArgs& a, size_t token, size_t panel) {
    F f[M][N];
    const uint8_t* x = a.activations + token * a.token_bytes;
    tile<Format, M, N>(a.weights + panel * a.panel_stride, a.panel_stride, x, a.inputs, reading(a), f);
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            const size_t column = (panel + n) * kLanes, at = (token + m) * a.out_stride + column;
            if (a.bias) f[m][n] = add(load(a.bias + column), f[m][n]);
            if (a.residual) f[m][n] = add(load(a.residual + at), f[m][n]);
            store(a.out + at, f[m][n]);
        }
}

// The dots of M tokens with one panel. Not part of its caller: two loops in one function get too few registers.
template <class Format, int M>
__attribute__((noinline)) void panel_tile(const LinearArgs& a, const uint8_t* panel, const uint8_t* x, F (&f)[M][1]) {
    tile<Format, M, 1>(panel, a.panel_stride, x, a.inputs, reading(a), f);
}

// M tokens times the gate and up panels of one output panel.
template <class Format, int M>
__attribute__((noinline)) void gated_tile(const LinearArgs& a, size_t token, size_t panel) {
    F gate[M][1], up[M][1];
    const uint8_t* x = a.activations + token * a.token_bytes;
    const uint8_t* w = a.weights + 2 * panel * a.panel_stride;
    if (kLinearPanels == 2 && a.tokens > kTile) {
        F both[M][2];
        tile<Format, M, 2>(w, a.panel_stride, x, a.inputs, reading(a), both);
        for (int m = 0; m < M; m++) gate[m][0] = both[m][0], up[m][0] = both[m][1];
    } else {
        panel_tile<Format, M>(a, w, x, gate);
        panel_tile<Format, M>(a, w + a.panel_stride, x, up);
    }
    for (int m = 0; m < M; m++) {
        F g = gate[m][0], u = up[m][0];
        if (a.bias) g = add(load(a.bias + panel * kLanes), g);
        if (a.up_bias) u = add(load(a.up_bias + panel * kLanes), u);
        store(a.out + (token + m) * a.out_stride + panel * kLanes, gated(a.nonlinearity, a.limit, g, u));
    }
}

template <class Format, int M> void linear_panels(const LinearArgs& a, size_t token, size_t panel, size_t count) {
    if (a.gated)
        for (size_t p = panel; p < panel + count; p++) gated_tile<Format, M>(a, token, p);
    else if (count == 2 && kLinearPanels == 2 && a.tokens > kTile)
        linear_tile<Format, M, kLinearPanels>(a, token, panel);
    else
        for (size_t p = panel; p < panel + count; p++) linear_tile<Format, M, 1>(a, token, p);
}

template <class Format> void linear(const LinearArgs& a, size_t begin, size_t end) {
    // Activations are walked in stretches that stay in the second-level cache while panels stream past.
    const size_t stretch = (512 * 1024 / a.token_bytes + kTile) / kTile * kTile;
    for (size_t first = 0; first < a.tokens; first += stretch) {
        const size_t last = first + stretch < a.tokens ? first + stretch : a.tokens;
        for (size_t panel = begin; panel < end; panel += 2) {
            const size_t count = end - panel < 2 ? 1 : 2;
            size_t token = first;
            for (; token + kTile <= last; token += kTile) linear_panels<Format, kTile>(a, token, panel, count);
            switch (last - token) {
                case 3: linear_panels<Format, 3>(a, token, panel, count); break;
                case 2: linear_panels<Format, 2>(a, token, panel, count); break;
                case 1: linear_panels<Format, 1>(a, token, panel, count); break;
                default: break;
            }
        }
    }
}
