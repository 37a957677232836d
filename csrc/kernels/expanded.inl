// The GEMM core for more tokens than a tile has: panels are decoded into memory once, by twos and a stretch of their
// inputs at a time, small enough for the first-level cache, and tiles of 8 tokens x 2 panels run over what that gives.
// Every chain of operations is that of linear.inl, over all stretches; between them it stands in memory.

constexpr size_t kExpandedGroups = 32;  // of a stretch of inputs; whole super-blocks
constexpr int kPanels = 2;

// What quantized groups become: [kVectors][16 floats], then [8 x 64 B] as q8_0 has them, u8 = w + 128.
//   floats: scale, or factor and the scales of both halves; then the minimum, or factor and minima of both halves
template <bool Halves, bool Min> struct Expanded {
    static constexpr bool kHalves = Halves, kMin = Min;
    static constexpr int kVectors = (Halves ? 3 : 1) * (Min ? 2 : 1);
    static constexpr size_t kGroupBytes = kVectors * 64 + 512;
};
constexpr size_t kMostGroupBytes = Expanded<true, true>::kGroupBytes;

// What one thread works in.
struct alignas(64) LinearScratch {
    uint8_t panels[kPanels][kExpandedGroups * kMostGroupBytes];
    float chains[kStretchTokens][kPanels][kLanes];
};

static size_t linear_scratch_bytes() { return sizeof(LinearScratch); }

template <class Format> using ExpandedOf = Expanded<in_halves<Format>, has_minimum<Format>()>;

// Decodes groups first .. first + count of a panel.
template <class Format>
__attribute__((noinline)) void expand(const uint8_t* panel, size_t first, size_t count, uint8_t* out) {
    using To = ExpandedOf<Format>;
    typename Format::Head head;
    for (size_t g = first; g < first + count; g++, out += To::kGroupBytes) {
        const uint8_t* group = Format::group(panel, g, Format::kGroupBytes);
        if (g % Format::kGroupsAHead == 0) head = Format::head(group);
        float* floats = reinterpret_cast<float*>(out);
        if constexpr (To::kHalves) {
            store(floats, head.factor);
            store(floats + 16, to_float(load_s8(group)));
            store(floats + 32, to_float(load_s8(group + 16)));
            if constexpr (To::kMin) {
                store(floats + 48, head.least);
                store(floats + 64, to_float(load_s8(group + 32)));
                store(floats + 80, to_float(load_s8(group + 48)));
            }
        } else {
            store(floats, Format::scale(group, head));
            if constexpr (To::kMin) store(floats + 16, Format::min(group, head));
        }
        uint8_t* values = out + To::kVectors * 64;
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            Bytes w, w_next;
            Format::vectors(group, j, w, w_next);
            store_bytes(values + j * 128, add_bytes(w, 128 - zero_point<Format>()));
            store_bytes(values + j * 128 + 64, add_bytes(w_next, 128 - zero_point<Format>()));
        }
    }
}

// What is read from memory next, while the first tile of tokens runs over what has been read: `bytes` of each panel for
// each of its steps. All its time is there for that, and the next tiles need nothing.
struct Ahead {
    const uint8_t* panels[kPanels];  // nullptr: nothing
    size_t bytes;
    __attribute__((always_inline)) void fetch_step(size_t step) const {
        if (!panels[0]) return;
        for (int n = 0; n < kPanels; n++)
            for (size_t line = 0; line < bytes; line += 64) fetch(panels[n] + step * bytes + line);
    }
};

// A tile of tokens as the kernels see it: T packed tiles of W tokens each.
template <int T, int W> struct TokenTile {
    static constexpr int kCount = T * W, kWide = W;
    const uint8_t* first;
    size_t apart;  // bytes from one packed tile to the next
    const uint8_t* at(int m, size_t offset, int item) const {
        return first + (m / W) * apart + offset + (item * W + m % W) * 4;
    }
};

// Dots of vectors `from` to `to` of a group: 4 k each.
template <class X, int from, int to>
QB_INLINE void expanded_dots(const X& x, size_t values, const uint8_t* const (&w)[kPanels],
                             I (&dots)[X::kCount][kPanels]) {
#pragma GCC unroll 8
    for (int j = from; j < to; j++) {
        const Bytes w0 = load_bytes(w[0] + j * 64), w1 = load_bytes(w[1] + j * 64);
#pragma GCC unroll 8
        for (int m = 0; m < X::kCount; m++) {
            const I x4 = broadcast4(x.at(m, values, j));
            dots[m][0] = dot4(dots[m][0], w0, x4);
            dots[m][1] = dot4(dots[m][1], w1, x4);
        }
    }
}

// Adds a stretch of inputs to the chains of some tokens and two panels. There are too few registers for chains and
// dots: the chains stay in the first-level cache, where a step of theirs costs a load and a store.
template <class To, class X>
__attribute__((noinline)) void expanded_tile(const LinearScratch& s, X x, size_t inputs, size_t first, size_t count,
                                             Ahead ahead, float (*chains)[kPanels][kLanes]) {
    constexpr int M = X::kCount;
    constexpr int W = X::kWide;
    for (size_t g = 0; g < count; g++) {
        ahead.fetch_step(g);
        const uint8_t* w[kPanels];
        const float* floats[kPanels];
        for (int n = 0; n < kPanels; n++) {
            floats[n] = reinterpret_cast<const float*>(s.panels[n] + g * To::kGroupBytes);
            w[n] = s.panels[n] + g * To::kGroupBytes + To::kVectors * 64;
        }
        const size_t values = (first + g) * kGroup * W, scales = inputs * W + (first + g) * 16 * W;
        const auto scale = [&](int m) { return set(*reinterpret_cast<const float*>(x.at(m, scales, 0))); };
        I dots[M][kPanels];
        if constexpr (!To::kHalves) {
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) dots[m][0] = dots[m][1] = broadcast4(x.at(m, scales, 2));
            expanded_dots<X, 0, 8>(x, values, w, dots);
#pragma GCC unroll 8
            for (int m = 0; m < M; m++)
                for (int n = 0; n < kPanels; n++) {
                    F f = load(chains[m][n]);
                    f = fma(to_float(dots[m][n]), mul(load(floats[n]), scale(m)), f);
                    if constexpr (To::kMin)
                        f = fma(load(floats[n] + 16), set(*reinterpret_cast<const float*>(x.at(m, scales, 1))), f);
                    store(chains[m][n], f);
                }
        } else {  // whole numbers below 2^24, exact in float32 as in linear.inl's integers
            alignas(64) float whole[M][kPanels][kLanes];
            const auto first_bias = [&](int m) { return broadcast4(x.at(m, scales, 3)); };
            const auto second_bias = [&](int m) { return sub_i(broadcast4(x.at(m, scales, 2)), first_bias(m)); };
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) dots[m][0] = dots[m][1] = first_bias(m);
            expanded_dots<X, 0, 4>(x, values, w, dots);
#pragma GCC unroll 8
            for (int m = 0; m < M; m++)
                for (int n = 0; n < kPanels; n++) store(whole[m][n], mul(to_float(dots[m][n]), load(floats[n] + 16)));
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) dots[m][0] = dots[m][1] = second_bias(m);
            expanded_dots<X, 4, 8>(x, values, w, dots);
#pragma GCC unroll 8
            for (int m = 0; m < M; m++)
                for (int n = 0; n < kPanels; n++) {
                    const F dot = fma(to_float(dots[m][n]), load(floats[n] + 32), load(whole[m][n]));
                    F f = fma(dot, mul(load(floats[n]), scale(m)), load(chains[m][n]));
                    if constexpr (To::kMin) {
                        const F sums[2] = {mul(to_float(first_bias(m)), set(-1.0f / 128)),
                                           mul(to_float(second_bias(m)), set(-1.0f / 128))};
                        const F least = fma(load(floats[n] + 80), sums[1], mul(load(floats[n] + 64), sums[0]));
                        f = fma(least, mul(load(floats[n] + 48), scale(m)), f);
                    }
                    store(chains[m][n], f);
                }
        }
    }
}

// Weights that are floats: one of a panel's four chains after the other, so that a tile has registers for 8 tokens.
template <class Format, class X>
__attribute__((noinline)) void float_rows(const uint8_t* const (&panels)[kPanels], X x, size_t inputs, Ahead ahead,
                                          float (*chains)[kPanels][kLanes]) {
    constexpr int M = X::kCount;
    constexpr int W = X::kWide;
    alignas(64) float other[M][kPanels][kLanes];
    size_t step = 0;
    for (int chain = 0; chain < 4; chain++) {
        F acc[M][kPanels];
        for (int m = 0; m < M; m++) acc[m][0] = acc[m][1] = set(0.0f);
        for (size_t u = chain; u < inputs / Format::kUnit; u += 4) {
            ahead.fetch_step(step++);
            const uint8_t *w0 = panels[0] + u * Format::kUnitBytes, *w1 = panels[1] + u * Format::kUnitBytes;
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) {
                const uint8_t* operand = x.first + m / W * x.apart + (u * W + m % W) * Format::kOperandBytes;
                acc[m][0] = Format::multiply(acc[m][0], w0, operand);
                acc[m][1] = Format::multiply(acc[m][1], w1, operand);
            }
        }
        for (int m = 0; m < M; m++)
            for (int n = 0; n < kPanels; n++) {
                float* at = chain < 2 ? chains[m][n] : other[m][n];
                store(at, chain % 2 ? add(load(at), acc[m][n]) : acc[m][n]);
            }
    }
    for (int m = 0; m < M; m++)
        for (int n = 0; n < kPanels; n++) store(chains[m][n], add(load(chains[m][n]), load(other[m][n])));
}

// Calls body(rows, token) for the tiles of `tokens` tokens that begin at `x`.
template <class Body> QB_INLINE void each_tile(const uint8_t* x, size_t token_bytes, size_t tokens, const Body& body) {
    size_t token = 0;
    const size_t apart = kTile * token_bytes;
    for (; token + 2 * kTile <= tokens; token += 2 * kTile)
        body(TokenTile<2, kTile>{x + token * token_bytes, apart}, token);
    if (token + kTile <= tokens) {
        body(TokenTile<1, kTile>{x + token * token_bytes, apart}, token);
        token += kTile;
    }
    switch (tokens - token) {
        case 3: body(TokenTile<1, 3>{x + token * token_bytes, apart}, token); break;
        case 2: body(TokenTile<1, 2>{x + token * token_bytes, apart}, token); break;
        case 1: body(TokenTile<1, 1>{x + token * token_bytes, apart}, token); break;
        default: break;
    }
}

template <class Format>
constexpr bool expands = !requires { typename Format::Weights; } && !requires { Format::kValues; };

// Where results of `count` tokens will be written, into the second-level cache.
QB_INLINE void fetch_results(const LinearArgs& a, size_t token, int count, size_t panel) {
    for (int m = 0; m < count; m++) {
        const size_t at = (token + m) * a.out_stride + panel * kLanes;
        fetch(a.out + at);
        if (!a.gated) fetch(a.out + at + kLanes);
        if (a.residual && a.residual != a.out) fetch(a.residual + at), fetch(a.residual + at + kLanes);
    }
}

template <class Format> void many_tokens(const LinearArgs& a, size_t begin, size_t end) {
    LinearScratch& s = *static_cast<LinearScratch*>(a.scratch);
    const size_t stretch = stretch_tokens(a), step = a.gated ? 1 : kPanels;
    const auto read_on = [&](const uint8_t* at) { return at < a.read_end ? at : at + (a.read_next - a.read_end); };
    for (size_t first = 0; first < a.tokens; first += stretch) {
        const size_t tokens = first + stretch < a.tokens ? stretch : a.tokens - first;
        const uint8_t* x = a.activations + first * a.token_bytes;
        for (size_t panel = begin; panel < end; panel += step) {
            const bool lone = !a.gated && end - panel < kPanels;  // the second is the first once more
            const uint8_t *panels[kPanels], *next[kPanels];
            panels[0] = a.weights + (a.gated ? 2 : 1) * panel * a.panel_stride;
            panels[1] = lone ? panels[0] : panels[0] + a.panel_stride;
            for (int n = 0; n < kPanels; n++) next[n] = read_on(panels[n] + kPanels * a.panel_stride);
            if constexpr (requires { Format::kGroupBytes; }) {
                using To = ExpandedOf<Format>;
                for (size_t t = 0; t < tokens; t++)
                    for (int n = 0; n < kPanels; n++) store(s.chains[t][n], set(0.0f));
                const size_t groups = a.inputs / kGroup;
                for (size_t g = 0; g < groups; g += kExpandedGroups) {
                    const size_t count = groups - g < kExpandedGroups ? groups - g : kExpandedGroups;
                    for (int n = 0; n < kPanels; n++) expand<Format>(panels[n], g, count, s.panels[n]);
                    const auto at = [&](int n) {
                        if (g + count >= groups) return next[n];
                        return Format::group(panels[n], g + count, Format::kGroupBytes);
                    };
                    each_tile(x, a.token_bytes, tokens, [&](const auto& rows, size_t token) {
                        const Ahead ahead = {{token ? nullptr : at(0), at(1)}, Format::kGroupBytes};
                        if (g + count >= groups) fetch_results(a, first + token, rows.kCount, panel);
                        expanded_tile<To>(s, rows, a.inputs, g, count, ahead, s.chains + token);
                    });
                }
            } else {
                each_tile(x, a.token_bytes, tokens, [&](const auto& rows, size_t token) {
                    const Ahead ahead = {{token ? nullptr : next[0], next[1]}, Format::kUnitBytes};
                    fetch_results(a, first + token, rows.kCount, panel);
                    float_rows<Format>(panels, rows, a.inputs, ahead, s.chains + token);
                });
            }
            for (size_t t = 0; t < tokens; t++) {
                const F one = load(s.chains[t][0]), other = load(s.chains[t][1]);
                if (a.gated) {
                    finish_gated(a, first + t, panel, one, other);
                    continue;
                }
                finish_panel(a, first + t, panel, one);
                if (!lone) finish_panel(a, first + t, panel + 1, other);
            }
        }
    }
}

template <class Format> void linear(const LinearArgs& a, size_t begin, size_t end) {
    if constexpr (kExpands && expands<Format>)
        if (a.tokens > kTile) return many_tokens<Format>(a, begin, end);
    const size_t stretch = stretch_tokens(a);
    for (size_t first = 0; first < a.tokens; first += stretch) {
        const size_t last = first + stretch < a.tokens ? first + stretch : a.tokens;
        for (size_t panel = begin; panel < end; panel++) {
            size_t token = first;
            for (; token + kTile <= last; token += kTile) few_tokens<Format, kTile>(a, token, panel);
            switch (last - token) {
                case 3: few_tokens<Format, 3>(a, token, panel); break;
                case 2: few_tokens<Format, 2>(a, token, panel); break;
                case 1: few_tokens<Format, 1>(a, token, panel); break;
                default: break;
            }
        }
    }
}
