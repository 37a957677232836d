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

QB_INLINE F silu(F x) { return div(x, add(set(1.0f), exp2(mul(x, set(-kLog2e))))); }

static void rms_norm(const float* x, const float* weight, float eps, size_t inputs, float* out) {
    const size_t width = (inputs + kLanes - 1) / kLanes * kLanes;  // padding holds zeros
    F sums[2] = {set(0.0f), set(0.0f)};
    for (size_t k = 0; k < width; k += kLanes) {
        F v = load(x + k);
        sums[k / kLanes & 1] = fma(v, v, sums[k / kLanes & 1]);
    }
    const float mean = sum(add(sums[0], sums[1])) / static_cast<float>(inputs);
    const F scale = set(1.0f / __builtin_sqrtf(mean + eps));
    for (size_t k = 0; k < width; k += kLanes) store(out + k, mul(mul(load(x + k), scale), load(weight + k)));
}

static void add_rows(const float* a, const float* b, size_t n, float* out) {
    for (size_t k = 0; k < n; k += kLanes) store(out + k, add(load(a + k), load(b + k)));
}

static void swiglu_rows(const float* gate, const float* up, size_t n, float* out) {
    for (size_t k = 0; k < n; k += kLanes) store(out + k, mul(silu(load(gate + k)), load(up + k)));
}

static void rope(const float* x, const float* cos, const float* sin, int head_dim, float* out) {
    const int half = head_dim / 2;
    for (int d = 0; d < half; d += kLanes) {
        const int n = half - d < kLanes ? half - d : kLanes;
        if (n == kLanes) {
            F a = load(x + d), b = load(x + half + d), c = load(cos + d), s = load(sin + d);
            store(out + d, sub(mul(a, c), mul(b, s)));
            store(out + half + d, add(mul(b, c), mul(a, s)));
            continue;
        }
        for (int i = d; i < d + n; i++) {  // halves of 8: the same operations, one at a time
            const float a = x[i], b = x[half + i];
            out[i] = a * cos[i] - b * sin[i];
            out[half + i] = b * cos[i] + a * sin[i];
        }
    }
}

// 32 floats to int8 with one scale: q = round(x * 127 / max|x|), x ~ q * scale.
QB_INLINE void quantize_group(const float* x, int8_t* q, float* scale, float* scaled_sum, int32_t* total,
                              int32_t* first) {
    F a = load(x), b = load(x + 16);
    const float largest = highest(max(abs(a), abs(b)));
    const float d = largest / 127.0f;
    const F inverse = set(largest > 0.0f ? 127.0f / largest : 0.0f);
    I qa = to_int(mul(a, inverse)), qb = to_int(mul(b, inverse));
    store_int8(q, qa);
    store_int8(q + 16, qb);
    *total = sum_i(add_i(qa, qb));
    *first = sum_i(qa);
    *scale = d;
    *scaled_sum = d * static_cast<float>(*total);
}

static void prepare(Activation type, const float* x, size_t stride, size_t inputs, int m, const float* norm, float eps,
                    float* scratch, uint8_t* tile) {
    const size_t padded = padded_inputs(type, inputs);
    for (int row = 0; row < m; row++) {
        const float* values = x + row * stride;
        if (norm) {
            rms_norm(values, norm, eps, inputs, scratch);
            values = scratch;
        }
        switch (type) {
            case Activation::int8:
                for (size_t g = 0; g < padded / kGroup; g++) {
                    int8_t q[kGroup];
                    float scale, scaled_sum;
                    int32_t total, first;
                    quantize_group(values + g * kGroup, q, &scale, &scaled_sum, &total, &first);
                    for (int u = 0; u < kGroup / 4; u++)
                        __builtin_memcpy(tile + ((g * (kGroup / 4) + u) * m + row) * 4, q + 4 * u, 4);
                    uint8_t* at = tile + padded * m + g * m * 16 + row * 4;
                    __builtin_memcpy(at, &scale, 4);
                    __builtin_memcpy(at + m * 4, &scaled_sum, 4);
                    __builtin_memcpy(at + m * 8, &total, 4);
                    __builtin_memcpy(at + m * 12, &first, 4);
                }
                break;
            case Activation::bf16:
                for (size_t k = 0; k < padded; k += kLanes) {
                    alignas(64) uint16_t q[kLanes];
                    store_bf16(q, load(values + k));
                    const size_t n = padded - k < kLanes ? padded - k : kLanes;
                    for (size_t i = 0; i < n; i += 2) __builtin_memcpy(tile + ((k + i) / 2 * m + row) * 4, q + i, 4);
                }
                break;
            case Activation::bf16_groups:
                for (size_t k = 0; k < padded; k += kLanes) {
                    alignas(64) uint16_t q[kLanes];
                    alignas(64) uint32_t wide[kLanes];
                    store_bf16(q, load(values + k));
                    for (int i = 0; i < kLanes; i++) wide[i] = static_cast<uint32_t>(q[i]) << 16;
                    for (int i = 0; i < kLanes; i++) {  // 4 values are units k0, k2 and k1, k3
                        const size_t unit = (k + i) / 4 * 2 + i % 2;
                        __builtin_memcpy(tile + (unit * m + row) * 4 + i % 4 / 2 * 2, q + i, 2);
                    }
                    const float total = sum(load(reinterpret_cast<const float*>(wide)));
                    __builtin_memcpy(tile + padded * 2 * m + (k / kLanes * m + row) * 4, &total, 4);
                }
                break;
            case Activation::f32:
                for (size_t k = 0; k < padded; k++) __builtin_memcpy(tile + (k * m + row) * 4, values + k, 4);
                break;
        }
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
