// The GEMM core for more tokens than a tile has: panels are decoded into memory once, by twos and a stretch of their
// inputs at a time, small enough for the first-level cache, and tiles of 8 tokens x 2 panels run over what that gives.
// Every chain of operations is that of linear.inl, over all stretches; between them it stands in memory.

constexpr int kPanels = 2;
constexpr size_t kExpandedGroups = 24;   // of a stretch of quantized inputs; whole super-blocks
constexpr size_t kExpandedInputs = 128;  // of a stretch of floats

// What quantized groups become: [kVectors][16 floats], then [8 x 64 B] as q8_0 has them, u8 = w + 128.
//   floats: scale, or factor and the scales of both halves; then the minimum, or factor and minima of both halves
template <bool Halves, bool Min> struct Expanded {
    static constexpr bool kHalves = Halves, kMin = Min;
    static constexpr int kVectors = (Halves ? 3 : 1) * (Min ? 2 : 1);
    static constexpr size_t kGroupBytes = kVectors * 64 + 512;
};
constexpr size_t kMostGroupBytes = Expanded<true, true>::kGroupBytes;

// Of floats, four chains of each token stand in memory, of quantized formats one.
template <class Format> constexpr bool in_groups = requires { Format::kGroupBytes; };
template <class Format> constexpr int kChains = in_groups<Format> ? 1 : 4;
using Chain = float[kPanels][kLanes];

// What one thread works in.
struct alignas(64) LinearScratch {
    uint8_t panels[kPanels][kExpandedGroups * kMostGroupBytes];
    Chain chains[kStretchTokens * 4];
};
static_assert(sizeof(LinearScratch::panels) >= kPanels * kExpandedInputs * 16 * sizeof(float));

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

// The same for units of floats, which become what is multiplied.
template <class Format> using UnitOf = decltype(Format::weights(nullptr));
template <class Format>
__attribute__((noinline)) void expand_units(const uint8_t* panel, size_t first, size_t count, uint8_t* out) {
    auto* weights = reinterpret_cast<UnitOf<Format>*>(out);
    for (size_t u = 0; u < count; u++) weights[u] = Format::weights(panel + (first + u) * Format::kUnitBytes);
}

// What of the panels is read from memory next, while tiles run over what has been read: some bytes for each of their
// steps.
struct Ahead {
    const uint8_t* panels[kPanels];
    size_t left, bytes;  // of each panel: to read, and at each step
    __attribute__((always_inline)) void fetch_step(size_t step) const {
        for (size_t at = step * bytes; at < left && at < (step + 1) * bytes; at += 64)
            for (int n = 0; n < kPanels; n++) fetch(panels[n] + at);
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

// Dots of vectors `from` to `to` of a group: 4 k each. Three of four tokens are read as part of their dots: fewer
// instructions, which is what two threads of one core share, but more reads, of which a core has two at a time.
template <class X, int from, int to>
QB_INLINE void expanded_dots(const X& x, size_t values, const uint8_t* const (&w)[kPanels],
                             I (&dots)[X::kCount][kPanels]) {
#pragma GCC unroll 8
    for (int j = from; j < to; j++) {
        const Bytes w0 = load_bytes(w[0] + j * 64), w1 = load_bytes(w[1] + j * 64);
#pragma GCC unroll 8
        for (int m = 0; m < X::kCount; m++) {
            if (m % 4) {
                dots[m][0] = dot4_at(dots[m][0], w0, x.at(m, values, j));
                dots[m][1] = dot4_at(dots[m][1], w1, x.at(m, values, j));
                continue;
            }
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
                                             Ahead ahead, Chain* chains) {
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
        I dots[M][kPanels];
        if constexpr (!To::kHalves) {
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) dots[m][0] = dots[m][1] = broadcast4(x.at(m, scales, 2));
            expanded_dots<X, 0, 8>(x, values, w, dots);
#pragma GCC unroll 8
            for (int m = 0; m < M; m++)
                for (int n = 0; n < kPanels; n++) {
                    F f = load(chains[m][n]);
                    f = fma(to_float(dots[m][n]), mul_at(load(floats[n]), x.at(m, scales, 0)), f);
                    if constexpr (To::kMin) f = fma_at(load(floats[n] + 16), x.at(m, scales, 1), f);
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
                    F f = fma(dot, mul_at(load(floats[n]), x.at(m, scales, 0)), load(chains[m][n]));
                    if constexpr (To::kMin) {
                        const F sums[2] = {mul(to_float(first_bias(m)), set(-1.0f / 128)),
                                           mul(to_float(second_bias(m)), set(-1.0f / 128))};
                        const F least = fma(load(floats[n] + 80), sums[1], mul(load(floats[n] + 64), sums[0]));
                        f = fma(least, mul_at(load(floats[n] + 48), x.at(m, scales, 0)), f);
                    }
                    store(chains[m][n], f);
                }
        }
    }
}

// The same for weights that are floats: one of a panel's four chains after the other, so that a tile has registers for
// 8 tokens.
template <class Format, class X>
__attribute__((noinline)) void expanded_floats(const LinearScratch& s, X x, size_t first, size_t count, Ahead ahead,
                                               Chain* chains) {
    constexpr int M = X::kCount;
    constexpr int W = X::kWide;
    const UnitOf<Format>* weights[kPanels];
    for (int n = 0; n < kPanels; n++) weights[n] = reinterpret_cast<const UnitOf<Format>*>(s.panels[n]);
    for (int c = 0; c < 4; c++) {
        F acc[M][kPanels];
        for (int m = 0; m < M; m++)
            for (int n = 0; n < kPanels; n++) acc[m][n] = load(chains[c * M + m][n]);
        for (size_t u = c; u < count; u += 4) {
            ahead.fetch_step(c * (count / 4) + u / 4);
            const UnitOf<Format> w0 = weights[0][u], w1 = weights[1][u];
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) {
                const uint8_t* operand = x.first + m / W * x.apart + ((first + u) * W + m % W) * Format::kOperandBytes;
                if (m % 2) {
                    acc[m][0] = Format::multiply_at(acc[m][0], w0, operand);
                    acc[m][1] = Format::multiply_at(acc[m][1], w1, operand);
                    continue;
                }
                acc[m][0] = Format::multiply(acc[m][0], w0, operand);
                acc[m][1] = Format::multiply(acc[m][1], w1, operand);
            }
        }
        for (int m = 0; m < M; m++)
            for (int n = 0; n < kPanels; n++) store(chains[c * M + m][n], acc[m][n]);
    }
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

// What becomes of the chains of `count` tokens.
template <int chains>
__attribute__((noinline)) void finish_tile(const LinearArgs& a, const Chain* of, size_t token, int count, size_t panel,
                                           bool lone) {
    for (int m = 0; m < count; m++) {
        F dots[kPanels];
        for (int n = 0; n < kPanels; n++)
            if constexpr (chains == 1)
                dots[n] = load(of[m][n]);
            else
                dots[n] = add(add(load(of[m][n]), load(of[count + m][n])),
                              add(load(of[2 * count + m][n]), load(of[3 * count + m][n])));
        if (a.gated) {
            finish_gated(a, token + m, panel, dots[0], dots[1]);
            continue;
        }
        finish_panel(a, token + m, panel, dots[0]);
        if (!lone) finish_panel(a, token + m, panel + 1, dots[1]);
    }
}

template <class Format> void many_tokens(const LinearArgs& a, size_t begin, size_t end) {
    LinearScratch& s = *static_cast<LinearScratch*>(a.scratch);
    const size_t stretch = stretch_tokens(a), outputs = a.gated ? 1 : kPanels;
    const auto read_on = [&](const uint8_t* at) { return at < a.read_end ? at : at + (a.read_next - a.read_end); };
    size_t steps = a.inputs / kGroup, most = kExpandedGroups;  // of all inputs, and of a stretch of them
    if constexpr (!in_groups<Format>) steps = a.inputs / Format::kUnit, most = kExpandedInputs / Format::kUnit;
    for (size_t first = 0; first < a.tokens; first += stretch) {
        const size_t tokens = first + stretch < a.tokens ? stretch : a.tokens - first;
        const uint8_t* x = a.activations + first * a.token_bytes;
        for (size_t panel = begin; panel < end; panel += outputs) {
            const bool lone = !a.gated && end - panel < kPanels;  // the second is the first once more
            const uint8_t* panels[kPanels];
            panels[0] = a.weights + (a.gated ? 2 : 1) * panel * a.panel_stride;
            panels[1] = lone ? panels[0] : panels[0] + a.panel_stride;
            for (size_t at = 0; at < steps; at += most) {
                const size_t count = steps - at < most ? steps - at : most;
                const bool last = at + count == steps;
                const size_t tile_steps = count * ((tokens + 2 * kTile - 1) / (2 * kTile));
                Ahead ahead;
                ahead.left = a.panel_stride * count / steps;
                ahead.bytes = (ahead.left + tile_steps * 64 - 1) / (tile_steps * 64) * 64;
                for (int n = 0; n < kPanels; n++) {
                    if constexpr (in_groups<Format>) {
                        expand<Format>(panels[n], at, count, s.panels[n]);
                        ahead.panels[n] = Format::group(panels[n], at + count, Format::kGroupBytes);
                    } else {
                        expand_units<Format>(panels[n], at, count, s.panels[n]);
                        ahead.panels[n] = panels[n] + (at + count) * Format::kUnitBytes;
                    }
                    if (last) ahead.panels[n] = read_on(panels[n] + kPanels * a.panel_stride);
                }
                each_tile(x, a.token_bytes, tokens, [&](const auto& rows, size_t token) {
                    Chain* chains = s.chains + token * kChains<Format>;
                    if (at == 0)
                        for (int m = 0; m < rows.kCount * kChains<Format>; m++)
                            for (int n = 0; n < kPanels; n++) store(chains[m][n], set(0.0f));
                    if (last) fetch_results(a, first + token, rows.kCount, panel);
                    if constexpr (in_groups<Format>)
                        expanded_tile<ExpandedOf<Format>>(s, rows, a.inputs, at, count, ahead, chains);
                    else
                        expanded_floats<Format>(s, rows, at, count, ahead, chains);
                    if (last) finish_tile<kChains<Format>>(a, chains, first + token, rows.kCount, panel, lone);
                    const size_t done = ahead.bytes * count;
                    ahead.left -= done < ahead.left ? done : ahead.left;
                    for (int n = 0; n < kPanels; n++) ahead.panels[n] += done;
                });
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
