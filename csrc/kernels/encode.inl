// Numbers to encoded rows: plain loops that compilers make vectors of. Every operation is rounded by itself and sums
// have one order, so that all instruction sets and quant/quantize.py, the specification, give the same bytes.

QB_INLINE uint16_t to_half(float x) {  // nearest even, too large becomes infinite
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
    if (magnitude < 0x38800000) {  // below 2^-14: adding 1/2 leaves multiples of 2^-24 in the lowest bits
        float small;
        __builtin_memcpy(&small, &magnitude, 4);
        small += 0.5f;
        __builtin_memcpy(&bits, &small, 4);
        return static_cast<uint16_t>(sign | (bits - 0x3f000000));
    }
    return static_cast<uint16_t>(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
}
QB_INLINE double from_half(uint16_t h) {
    const uint32_t exponent = h >> 10 & 31, fraction = h & 1023;
    float x = static_cast<float>(fraction) * 0x1p-24f;
    if (exponent) {
        const uint32_t bits = (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
        __builtin_memcpy(&x, &bits, 4);
    }
    return h & 0x8000 ? -static_cast<double>(x) : static_cast<double>(x);
}
QB_INLINE void put_half(uint8_t* out, uint16_t h) { __builtin_memcpy(out, &h, 2); }

static void encode_f32(const float* x, size_t n, uint8_t* out) { __builtin_memcpy(out, x, n * 4); }

static void encode_f16(const float* x, size_t n, uint8_t* out) {
    for (size_t i = 0; i < n; i++) put_half(out + i * 2, to_half(x[i]));
}

static void encode_bf16(const float* x, size_t n, uint8_t* out) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        __builtin_memcpy(&bits, x + i, 4);
        put_half(out + i * 2, static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16));
    }
}

static void encode_q8_0(const float* x, size_t n, uint8_t* out) {
    for (size_t block = 0; block < n / 32; block++, x += 32, out += 34) {
        float largest = 0;
        for (int i = 0; i < 32; i++) largest = __builtin_fabsf(x[i]) > largest ? __builtin_fabsf(x[i]) : largest;
        const float d = largest / 127.0f, inverse = d > 0 ? 1.0f / d : 0.0f;
        put_half(out, to_half(d));
        for (int i = 0; i < 32; i++) {  // halves go away from zero; double holds q + 1/2 exactly
            const double q = static_cast<double>(inverse <= 3e38f ? x[i] * inverse : 0.0f);
            out[2 + i] = static_cast<uint8_t>(static_cast<int>(q + (q < 0 ? -0.5 : 0.5)));
        }
    }
}

// 32 nibbles: value j in the low half of byte j, value j + 16 in the high half.
QB_INLINE void put_nibbles(const int* q, uint8_t* out) {
    for (int i = 0; i < 16; i++) out[i] = static_cast<uint8_t>(q[i] | q[i + 16] << 4);
}

static void encode_q4_0(const float* x, size_t n, uint8_t* out) {
    for (size_t block = 0; block < n / 32; block++, x += 32, out += 18) {
        float farthest = 0;
        for (int i = 0; i < 32; i++)
            if (__builtin_fabsf(x[i]) > __builtin_fabsf(farthest)) farthest = x[i];
        const float d = farthest / -8.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
        put_half(out, to_half(d));
        int q[32];
        for (int i = 0; i < 32; i++) {
            const float t = __builtin_fabsf(inverse) <= 3e38f ? x[i] * inverse + 8.5f : 8.5f;
            q[i] = t < 16.0f ? static_cast<int>(t) : 15;
        }
        put_nibbles(q, out + 2);
    }
}

// -- q4_1: the d and m whose values lie nearest, of those that cutting the ends of the range off leads to
// ----------------

struct Fit {
    uint16_t d, m;
    int q[32];
    double error;
};

QB_INLINE double total(const double* v) {  // of 32, in a fixed order
    double s[8];
    for (int i = 0; i < 8; i++) s[i] = ((v[i] + v[i + 8]) + v[i + 16]) + v[i + 24];
    for (int half = 4; half; half /= 2)
        for (int i = 0; i < half; i++) s[i] += s[i + half];
    return s[0];
}

QB_INLINE void nearest(const double* x, double d, double m, int* q) {
    const double inverse = d > 0 ? 1 / d : 0.0;
    for (int i = 0; i < 32; i++) {
        double t = (x[i] - m) * inverse;
        t = t > 0.0 ? t : 0.0;
        t = t < 15.0 ? t : 15.0;
        q[i] = static_cast<int>(t + 0.5);
    }
}

// With d and m as float16 holds them: q and the sum of squared errors.
QB_INLINE void measure(const double* x, Fit* fit) {
    const double d = from_half(fit->d), m = from_half(fit->m);
    nearest(x, d, m, fit->q);
    double squares[32];
    for (int i = 0; i < 32; i++) {
        const double e = x[i] - (d * fit->q[i] + m);
        squares[i] = e * e;
    }
    fit->error = total(squares);
}

static void encode_q4_1(const float* values, size_t n, uint8_t* out) {
    constexpr double kCuts[] = {0.0, 0.03, 0.06};
    for (size_t block = 0; block < n / 32; block++, values += 32, out += 20) {
        double x[32];
        for (int i = 0; i < 32; i++) x[i] = static_cast<double>(values[i]);
        double low = x[0], high = x[0];
        for (int i = 1; i < 32; i++) low = x[i] < low ? x[i] : low, high = x[i] > high ? x[i] : high;
        low += 0.0, high += 0.0;  // of -0 and 0 either may come first; here both are 0
        const double range = high - low, sum = total(x);
        Fit best, tried;
        best.d = to_half(static_cast<float>(range / 15)), best.m = to_half(static_cast<float>(low));
        measure(x, &best);
        for (int cut = 0; range > 0 && cut < 9; cut++) {
            const double start = low + kCuts[cut / 3] * range, step = ((high - kCuts[cut % 3] * range) - start) / 15;
            int q[32], sum_q = 0, sum_qq = 0;
            nearest(x, step, start, q);
            double products[32];
            for (int i = 0; i < 32; i++) {
                sum_q += q[i], sum_qq += q[i] * q[i];
                products[i] = x[i] * q[i];
            }
            const double d =
                (32 * total(products) - sum * sum_q) / (32.0 * sum_qq - static_cast<double>(sum_q) * sum_q);
            tried.d = to_half(static_cast<float>(d));
            tried.m = to_half(static_cast<float>((sum - from_half(tried.d) * sum_q) / 32));
            measure(x, &tried);
            if (tried.error < best.error) best = tried;
        }
        put_half(out, best.d);
        put_half(out + 2, best.m);
        put_nibbles(best.q, out + 4);
    }
}

// -- code books: the nearest part of the largest magnitude; where two are as near, the lower one
// -------------------------

// Of the ascending `Count` parts: how many of the middles between neighbours lie below t.
template <int Count> QB_INLINE int place(const float* parts, float t) {
    int at = 0;
    for (int j = 0; j + 1 < Count; j++) {
        const double middle = (static_cast<double>(parts[j]) + static_cast<double>(parts[j + 1])) / 2;
        at += t > static_cast<float>(middle);
    }
    return at;
}

template <class Nibble> QB_INLINE void encode_by_book(const float* x, size_t n, uint8_t* out, const Nibble& nibble) {
    for (size_t block = 0; block < n / 64; block++, x += 64, out += 36) {
        float largest = 0;
        for (int i = 0; i < 64; i++) largest = __builtin_fabsf(x[i]) > largest ? __builtin_fabsf(x[i]) : largest;
        __builtin_memcpy(out, &largest, 4);
        int q[64];
        for (int i = 0; i < 64; i++) q[i] = nibble(largest > 0 ? x[i] / largest : 0.0f);
        for (int i = 0; i < 32; i++) out[4 + i] = static_cast<uint8_t>(q[2 * i] << 4 | q[2 * i + 1]);
    }
}

static void encode_nf4(const float* x, size_t n, uint8_t* out) {
    encode_by_book(x, n, out, [](float t) { return place<16>(kNf4, t); });
}

static void encode_fp4(const float* x, size_t n, uint8_t* out) {
    static constexpr int nibbles[] = {0, 1, 6, 7, 4, 5, 2, 3};  // of ascending magnitudes
    static constexpr float parts[] = {kFp4[0], kFp4[1], kFp4[6], kFp4[7], kFp4[4], kFp4[5], kFp4[2], kFp4[3]};
    encode_by_book(x, n, out, [](float t) { return nibbles[place<8>(parts, __builtin_fabsf(t))] | (t < 0 ? 8 : 0); });
}
