// Verbs on rows, and the packing of activations.

// 2^t: t = n + r with whole n and |r| <= 1/2, degree 5 minimax in r with p(0) = 1 exactly; relative error below 2e-7.
// Far below -126 the result is exactly 0, which is what masked scores rely on.
QB_INLINE F exp2(F t) {
    t = max(t, set(-1000.0f));  // keeps whole n representable; -inf becomes exactly 0
    F n = round_even(t), r = sub(t, n);
    F p = set(1.326472731307149e-3f);
    p = fma(p, r, set(9.671512991189957e-3f));
    p = fma(p, r, set(5.550733581185341e-2f));
    p = fma(p, r, set(2.4022242426872253e-1f));
    p = fma(p, r, set(6.931470036506653e-1f));
    p = fma(p, r, set(1.0f));
    return scale2(p, n);
}
constexpr float kLog2e = 1.44269504088896341f;

// 2^t - 1 for t <= 0, with small errors relative to itself: as above, with (2^r - 1) / r of degree 5, off by 2.1e-8.
QB_INLINE F exp2_minus_1(F t) {
    t = max(set(-1000.0f), t);  // in this order a NaN stays one
    F n = round_even(t), r = sub(t, n);
    F p = set(0.00015403428f);
    p = fma(p, r, set(0.0013390695f));
    p = fma(p, r, set(0.009618238f));
    p = fma(p, r, set(0.055503577f));
    p = fma(p, r, set(0.24022649f));
    p = fma(p, r, set(0.6931472f));
    const F scale = scale2(set(1.0f), n);
    return fma(mul(p, r), scale, sub(scale, set(1.0f)));
}

// With m = e^(-2|x|) - 1 it is -m / (m + 2), and has the sign of x.
QB_INLINE F tanh(F x) {
    const F m = exp2_minus_1(mul(abs(x), set(-2 * kLog2e)));
    return copy_sign(div(m, add(m, set(2.0f))), x);
}

QB_INLINE F silu(F x) { return div(x, add(set(1.0f), exp2(mul(x, set(-kLog2e))))); }

// x Q(-x) = max(x, 0) - a Q(a), where a = |x| and Q is the normal distribution's upper tail: for t = 1 / (1 + 0.28 a)
// it is e^(-a^2/2) t p(t) with p of degree 8, off by 5.6e-8 of itself.
QB_INLINE F gelu(F x) {
    const F a = abs(x), t = div(set(1.0f), fma(a, set(0.28f), set(1.0f)));
    F p = set(0.0227902699f);
    p = fma(p, t, set(-0.0833599493f));
    p = fma(p, t, set(0.0697689205f));
    p = fma(p, t, set(0.0208538212f));
    p = fma(p, t, set(0.0532539412f));
    p = fma(p, t, set(0.0920812264f));
    p = fma(p, t, set(0.100929581f));
    p = fma(p, t, set(0.111994959f));
    p = fma(p, t, set(0.111687258f));
    const F tail = mul(exp2(mul(mul(a, a), set(-0.5f * kLog2e))), mul(p, t));
    return sub(max(set(0.0f), x), mul(min(a, set(1e4f)), tail));  // infinity times 0 would be a NaN
}

// x / 2 (1 + tanh(u)) = x / (1 + e^(-2u)) with u = sqrt(2 / pi) (x + 0.044715 x^3)
QB_INLINE F gelu_tanh(F x) {
    constexpr float kLinear = -2 * kLog2e * 0.797884560802865356f;
    const F t = mul(x, fma(mul(x, x), set(kLinear * 0.044715f), set(kLinear)));
    return div(x, add(set(1.0f), exp2(min(t, set(1000.0f)))));
}

// (up + 1) gate sigmoid(1.702 gate), each clamped
QB_INLINE F clamped_gate(float limit, F gate, F up) {
    gate = min(gate, set(limit));
    up = max(min(up, set(limit)), set(-limit));
    return mul(add(up, set(1.0f)), div(gate, add(set(1.0f), exp2(mul(gate, set(-1.702f * kLog2e))))));
}

// Not inlined: the gates of dozens of linear tiles share it.
static __attribute__((noinline)) F bent(Nonlinearity kind, F x) {
    const F zero = set(0.0f);
    switch (kind) {
        case Nonlinearity::silu: return silu(x);
        case Nonlinearity::gelu: return gelu(x);
        case Nonlinearity::gelu_tanh: return gelu_tanh(x);
        case Nonlinearity::relu: return max(zero, x);
        case Nonlinearity::relu2: return mul(max(zero, x), max(zero, x));
        case Nonlinearity::sigmoid: return div(set(1.0f), add(set(1.0f), exp2(mul(x, set(-kLog2e)))));
        case Nonlinearity::tanh: return tanh(x);
        case Nonlinearity::clamped: break;  // of two numbers
    }
    return x;
}

QB_INLINE F gated(Nonlinearity kind, float limit, F gate, F up) {
    if (kind == Nonlinearity::silu) return mul(silu(gate), up);
    if (kind == Nonlinearity::clamped) return clamped_gate(limit, gate, up);
    return mul(bent(kind, gate), up);
}

static void rms_norm(const Norm& norm, const float* x, size_t inputs, float* out) {
    const size_t width = (inputs + kLanes - 1) / kLanes * kLanes;  // padding holds zeros
    F sums[2] = {set(0.0f), set(0.0f)};
    for (size_t k = 0; k < width; k += kLanes) {
        F v = load(x + k);
        sums[k / kLanes & 1] = fma(v, v, sums[k / kLanes & 1]);
    }
    const float mean = sum(add(sums[0], sums[1])) / static_cast<float>(inputs);
    const F scale = set(1.0f / __builtin_sqrtf(mean + norm.eps));
    for (size_t k = 0; k < width; k += kLanes) store(out + k, mul(mul(load(x + k), scale), load(norm.weight + k)));
}

static void layer_norm(const Norm& norm, const float* x, size_t inputs, float* out) {
    const size_t width = (inputs + kLanes - 1) / kLanes * kLanes;
    F sums[2] = {set(0.0f), set(0.0f)}, squares[2] = {set(0.0f), set(0.0f)};
    for (size_t k = 0; k < width; k += kLanes) sums[k / kLanes & 1] = add(sums[k / kLanes & 1], load(x + k));
    const F mean = set(sum(add(sums[0], sums[1])) / static_cast<float>(inputs));
    for (size_t k = 0; k < width; k += kLanes) {
        const size_t left = inputs - k;  // padding is no part of the variance
        const F d = first(sub(load(x + k), mean), left < kLanes ? static_cast<int>(left) : kLanes, 0.0f);
        squares[k / kLanes & 1] = fma(d, d, squares[k / kLanes & 1]);
    }
    const float variance = sum(add(squares[0], squares[1])) / static_cast<float>(inputs);
    const F scale = set(1.0f / __builtin_sqrtf(variance + norm.eps));
    for (size_t k = 0; k < width; k += kLanes) {
        F y = mul(mul(sub(load(x + k), mean), scale), load(norm.weight + k));
        if (norm.bias) y = add(y, load(norm.bias + k));
        store(out + k, y);
    }
}

static void normalise(const Norm& norm, const float* x, size_t inputs, float* out) {
    norm.centred ? layer_norm(norm, x, inputs, out) : rms_norm(norm, x, inputs, out);
}

static void add_rows(const float* a, const float* b, size_t n, float* out) {
    for (size_t k = 0; k < n; k += kLanes) store(out + k, add(load(a + k), load(b + k)));
}

static void multiply_rows(const float* a, const float* b, size_t n, float* out) {
    for (size_t k = 0; k < n; k += kLanes) store(out + k, mul(load(a + k), load(b + k)));
}

static void scale_row(const float* x, float factor, size_t n, float* out) {
    for (size_t k = 0; k < n; k += kLanes) store(out + k, mul(load(x + k), set(factor)));
}

static void add_scaled_row(const float* x, float factor, const float* sum, size_t n, float* out) {
    for (size_t k = 0; k < n; k += kLanes) store(out + k, fma(load(x + k), set(factor), load(sum + k)));
}

static void softcap_row(const float* x, float cap, size_t n, float* out) {
    for (size_t k = 0; k < n; k += kLanes) store(out + k, mul(tanh(div(load(x + k), set(cap))), set(cap)));
}

static void activate_row(Nonlinearity kind, const float* x, size_t n, float* out) {
    for (size_t k = 0; k < n; k += kLanes) store(out + k, bent(kind, load(x + k)));
}

static void gate_rows(Nonlinearity kind, float limit, const float* gate, const float* up, size_t n, float* out) {
    for (size_t k = 0; k < n; k += kLanes) store(out + k, gated(kind, limit, load(gate + k), load(up + k)));
}

static void rope_halves(const float* x, const float* cos, const float* sin, int dims, float* out) {
    const int half = dims / 2;
    for (int d = 0; d < half; d += kLanes) {
        const int n = half - d < kLanes ? half - d : kLanes;
        if (n == kLanes) {
            F a = load(x + d), b = load(x + half + d), c = load(cos + d), s = load(sin + d);
            store(out + d, sub(mul(a, c), mul(b, s)));
            store(out + half + d, add(mul(b, c), mul(a, s)));
            continue;
        }
        for (int i = d; i < d + n; i++) {  // what is no whole vector: the same operations, one at a time
            const float a = x[i], b = x[half + i];
            out[i] = a * cos[i] - b * sin[i];
            out[half + i] = b * cos[i] + a * sin[i];
        }
    }
}

static void rope_pairs(const float* x, const float* cos, const float* sin, int dims, float* out) {
    for (int i = 0; i < dims / 2; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        out[2 * i] = a * cos[i] - b * sin[i];
        out[2 * i + 1] = b * cos[i] + a * sin[i];
    }
}

// 32 floats of each of 4 rows to int8 with one scale: q = round(x * 127 / max|x|), x ~ q * scale. Where that quotient
// would be infinite, or nearly, all are 0. Writes a tile's values and scales of that group: see packed_bytes.
constexpr float kLeastGroup = 0x1p-119f;
QB_INLINE void quantize_rows(const float* const (&rows)[kTile], size_t k, uint8_t* values, float* scales) {
    F a[kTile], b[kTile], most[kTile];
    for (int row = 0; row < kTile; row++) {
        a[row] = load(rows[row] + k), b[row] = load(rows[row] + k + kLanes);
        most[row] = max(abs(a[row]), abs(b[row]));
    }
    alignas(16) float largest[kTile], inverse[kTile];
    highest_of(most, largest);
    for (int row = 0; row < kTile; row++) {
        scales[row] = largest[row] / 127.0f;
        const float quotient = 127.0f / largest[row];
        inverse[row] = largest[row] > kLeastGroup ? quotient : 0.0f;
    }
    I first[kTile], second[kTile];
    for (int row = 0; row < kTile; row++) {
        first[row] = to_int(mul(a[row], set(inverse[row])));
        second[row] = to_int(mul(b[row], set(inverse[row])));
    }
    const Bytes units[2] = {pack_rows(first), pack_rows(second)};
    store_bytes(values, units[0]), store_bytes(values + 64, units[1]);
    const uint32_t ones = 0x01010101;
    const I sum = dot4(zero_i(), broadcast_bytes(&ones), load_i(values));
    alignas(16) int32_t sums[kTile], first_sums[kTile];
    sum_rows(sum, first_sums);
    sum_rows(dot4(sum, broadcast_bytes(&ones), load_i(values + 64)), sums);
    for (int row = 0; row < kTile; row++) {
        const int32_t biases[2] = {-128 * sums[row], -128 * first_sums[row]};
        scales[kTile + row] = scales[row] * static_cast<float>(sums[row]);
        __builtin_memcpy(scales + 2 * kTile + row, &biases[0], 4);
        __builtin_memcpy(scales + 3 * kTile + row, &biases[1], 4);
    }
}

static void prepare_int8(const float* const (&rows)[kTile], size_t padded, int m, uint8_t* tile) {
    constexpr int kUnits = kGroup / 4, kScales = 4;
    alignas(64) uint8_t values[kGroup * kTile];
    alignas(64) float scales[kScales * kTile];
    for (size_t g = 0; g < padded / kGroup; g++) {
        uint8_t *to_values = tile + g * kGroup * m, *to_scales = tile + padded * m + g * kScales * 4 * m;
        if (m == kTile) {
            quantize_rows(rows, g * kGroup, to_values, reinterpret_cast<float*>(to_scales));
            continue;
        }
        quantize_rows(rows, g * kGroup, values, scales);
        for (int row = 0; row < m; row++) {
            for (int u = 0; u < kUnits; u++)
                __builtin_memcpy(to_values + (u * m + row) * 4, values + (u * kTile + row) * 4, 4);
            for (int i = 0; i < kScales; i++)
                __builtin_memcpy(to_scales + (i * m + row) * 4, scales + i * kTile + row, 4);
        }
    }
}

static void prepare(Activation type, const float* x, size_t stride, size_t inputs, int m, const Norm* norm,
                    float* scratch, uint8_t* tile) {
    const size_t padded = padded_inputs(type, inputs);
    const float* rows[kTile] = {x, x, x, x};  // what is no row is read all the same
    for (int row = 0; row < m; row++) {
        rows[row] = x + row * stride;
        if (!norm) continue;
        float* normalised = scratch + row * padded16(inputs);
        normalise(*norm, rows[row], inputs, normalised);
        rows[row] = normalised;
    }
    switch (type) {
        case Activation::int8: return prepare_int8(rows, padded, m, tile);
        case Activation::bf16:
            for (size_t k = 0; k < padded; k += kLanes)
                for (int row = 0; row < m; row++) {
                    alignas(64) uint8_t pairs[kLanes / 2 * kPairBytes];
                    store_pairs(pairs, load(rows[row] + k));
                    const size_t n = padded - k < kLanes ? padded - k : kLanes;
                    for (size_t i = 0; i < n / 2; i++)
                        __builtin_memcpy(tile + ((k / 2 + i) * m + row) * kPairBytes, pairs + i * kPairBytes,
                                         kPairBytes);
                }
            break;
        case Activation::bf16_groups:
            for (size_t k = 0; k < padded; k += kLanes)
                for (int row = 0; row < m; row++) {
                    constexpr size_t kHalf = kPairBytes / 2;
                    alignas(64) uint8_t pairs[kLanes * kHalf];
                    store_pairs(pairs, load(rows[row] + k));
                    for (size_t i = 0; i < kLanes; i++) {  // 4 values are units k0, k2 and k1, k3
                        const size_t unit = (k + i) / 4 * 2 + i % 2;
                        __builtin_memcpy(tile + (unit * m + row) * kPairBytes + i % 4 / 2 * kHalf, pairs + i * kHalf,
                                         kHalf);
                    }
                    const float total = sum(round_bf16(load(rows[row] + k)));
                    __builtin_memcpy(tile + padded * kHalf * m + (k / kLanes * m + row) * 4, &total, 4);
                }
            break;
        case Activation::f32:
            for (size_t k = 0; k < padded; k++)
                for (int row = 0; row < m; row++) __builtin_memcpy(tile + (k * m + row) * 4, rows[row] + k, 4);
            break;
    }
}

// The values of a stretch that may be cut short, filled up with -inf: then all stretches are alike.
QB_INLINE const float* whole_stretch(const float* x, size_t n, float* filled) {
    if (n >= kStretch) return x;
    for (int i = 0; i < kStretch; i += kLanes) store(filled + i, set(-__builtin_inff()));
    __builtin_memcpy(filled, x, n * 4);
    return filled;
}

// The sum of exp2((x - shift) * scale) over x >= limit, in a tree: each is rounded 7 times on its way.
QB_INLINE float stretch_weight(const float* values, F shift, F scale, F limit) {
    F parts[4];
    for (int i = 0; i < 4; i++) {
        const F a = load(values + i * kLanes), b = load(values + (i + 4) * kLanes);
        parts[i] =
            add(keep(a, limit, exp2(mul(sub(a, shift), scale))), keep(b, limit, exp2(mul(sub(b, shift), scale))));
    }
    return sum(add(add(parts[0], parts[2]), add(parts[1], parts[3])));
}

static float maxima(const float* x, size_t n, float* out, float inverse_temperature, float* sums) {
    constexpr size_t kAhead = 8 * kStretch;
    const F scale = set(inverse_temperature * kLog2e), every = set(-__builtin_inff());
    alignas(64) float last[kStretch];
    unsigned nan = 0;
    F top = every;
    for (size_t k = 0; k < n; k += kStretch) {
        const float* values = whole_stretch(x + k, n - k, last);
        if (n - k > kAhead + kStretch)  // over the ends of pages, where the hardware stops
            for (int i = 0; i < kStretch; i += kLanes) fetch(values + kAhead + i);
        F best = load(values);
        nan |= nan_mask(best);
        for (int i = kLanes; i < kStretch; i += kLanes) {
            const F v = load(values + i);
            nan |= nan_mask(v);
            best = max(best, v);
        }
        const float largest = highest(best);
        out[k / kStretch] = largest;
        top = max(top, best);
        if (sums) sums[k / kStretch] = stretch_weight(values, set(largest), scale, every);
    }
    return nan ? __builtin_nanf("") : highest(top);
}

static void exponentials(const float* x, size_t n, float largest, float inverse_temperature, float* out) {
    const F shift = set(largest), scale = set(inverse_temperature * kLog2e);
    size_t k = 0;
    for (; k + kLanes <= n; k += kLanes) store(out + k, exp2(mul(sub(load(x + k), shift), scale)));
    if (k == n) return;
    alignas(64) float last[kLanes] = {};
    __builtin_memcpy(last, x + k, (n - k) * 4);
    store(last, exp2(mul(sub(load(last), shift), scale)));
    __builtin_memcpy(out + k, last, (n - k) * 4);
}

static void weights(const float* x, size_t n, const float* maxima, float largest, float inverse_temperature,
                    float least, float* sums) {
    const F shift = set(largest), scale = set(inverse_temperature * kLog2e), limit = set(least);
    alignas(64) float last[kStretch];
    for (size_t k = 0; k < n; k += kStretch) {
        if (maxima[k / kStretch] < least) {
            sums[k / kStretch] = 0.0f;
            continue;
        }
        const float* values = whole_stretch(x + k, n - k, last);
        sums[k / kStretch] = stretch_weight(values, shift, scale, limit);
    }
}

static size_t between(const float* x, size_t n, const float* maxima, float least, float most, int32_t* out) {
    const F low = set(least), high = set(most);
    size_t count = 0;
    for (size_t begin = 0; begin < n; begin += kStretch) {
        if (maxima[begin / kStretch] < least) continue;
        const size_t end = n - begin < kStretch ? n : begin + kStretch;
        size_t k = begin;
        for (; k + kLanes <= end; k += kLanes) {
            const F v = load(x + k);
            count += put_indices(out + count, static_cast<int32_t>(k), at_least_mask(v, low) & at_least_mask(high, v));
        }
        for (; k < end; k++)
            if (x[k] >= least && x[k] <= most) out[count++] = static_cast<int32_t>(k);
    }
    return count;
}

static void only(const float* x, size_t n, const int32_t* allowed, float* out) {
    size_t k = 0;
    for (; k + kLanes <= n; k += kLanes) {
        const unsigned mask = static_cast<uint32_t>(allowed[k / 32]) >> k % 32 & 0xffffu;
        store(out + k, select(mask, load(x + k), -__builtin_inff()));
    }
    for (; k < n; k++) out[k] = static_cast<uint32_t>(allowed[k / 32]) >> k % 32 & 1 ? x[k] : -__builtin_inff();
}
