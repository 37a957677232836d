// What a weight format adds to the one GEMM core: how 64 bytes of a panel become operands.
//
// Quantized formats: a panel is K/32 groups of 16 rows x 32 k, scales first:
//   q8_0  [16 fp16 d][8 x 64 B]                 byte r*4+b of vector j: k = 4j+b, stored as u8 = w + 128
//   q4_0  [16 fp16 d][4 x 64 B]                 byte r*4+b of vector j: low nibble k = 8j+b, high k = 8j+4+b, u4 - 8
//   q4_1  [16 fp16 d][16 fp16 m][4 x 64 B]      the same nibbles, value d * u4 + m
// Formats with a code book: a panel is K/64 blocks of 16 rows x 64 k:
//   nf4, fp4  [16 f32 absmax][8 x 64 B]         word r of vector j: k = 8j+i in bits 4i..4i+3, value absmax * book[u4]
//   e4m3  [16 f32 scale][64 x 16 B]             byte r of vector k: a float of 8 bits, value scale * float
// Float formats: a panel is K/unit units of 16 rows:
//   bf16  [16 rows][2 k]   f16, f32  [16 rows][1 k]

//   q5_0  as q4_0, q5_1 as q4_1, then [64 B]    bit 2j+h of byte r*4+b: the fifth bit of k = 8j+4h+b; w = u5 - 16
//   iq4_nl  as q4_0, value d * book[u4]         mxfp4  [16 u8 e][4 x 64 B], value 2^(e-128) * book[u4]
//   u4z  as q4_1, value d * (u4 - z): z in the place of m
//   u8z  [16 f32 d][16 fp16 z][8 x 64 B]        as q8_0 but for the scales, value d * (u8 - z)
// K-quants: a panel is K/256 super-blocks, each a head of fp16 factors and 8 groups of 16 rows x 32 k whose scales are
// integers. The product of a factor and a scale has at most 19 bits: float32 holds it exactly.
//   q4_k  [16 d][16 -dmin]  [16 u8 s][16 u8 m][4 x 64 B]             value d * s * u4 + -dmin * m
//   q5_k  [16 d][16 -dmin]  [16 u8 s][16 u8 m][4 x 64 B][64 B]       as q5_1 has the fifth bits
//   q6_k  [16 d]            [16 s8 s][16 s8 s][4 x 64 B][2 x 64 B]   a scale for each 16 k, value d * s * (u6 - 32);
//         bits 2f, 2f+1 of byte r*4+b of vector h: the upper ones of k = 16h+4f+b
//   q2_k  [16 d][16 -dmin]  [2 x 16 u8 s][2 x 16 u8 m][2 x 64 B]     a scale and a minimum for each 16 k, value
//         d * s * u2 + -dmin * m; bits 2f, 2f+1 of byte r*4+b of vector h: k = 16h+4f+b
//   q3_k  [16 d]            [2 x 16 s8 s][2 x 64 B][64 B]            a scale for each 16 k, value d * s * (u3 - 4); the
//         lower two bits as in q2_k; bit 4h+f of byte r*4+b of the last vector: the third
//   iq4_xs  [16 d]          [16 s8 s][4 x 64 B]                      nibbles as in q4_0, value d * s * book[u4]
//   s8_k  [16 f32 d]        [16 s8 s][16 s8 s][8 x 64 B]             a scale for each 16 k, value d * s * (u8 - 128);
//         two halves' scaled dots stay below 2^24 while |s q| <= 2^12, as in all that is held so

// Where the scales of a group are: fp16 numbers in front of it, and nothing that several groups share.
struct Scales {
    static constexpr int kGroupsAHead = 1;
    struct Head {};
    QB_INLINE Head head(const uint8_t*) { return {}; }
    QB_INLINE const uint8_t* group(const uint8_t* panel, size_t g, size_t bytes) { return panel + g * bytes; }
    QB_INLINE F scale(const uint8_t* group, Head) { return load_half(reinterpret_cast<const uint16_t*>(group)); }
    QB_INLINE F min(const uint8_t* group, Head) { return load_half(reinterpret_cast<const uint16_t*>(group) + 16); }
};

struct Q8_0 : Scales {
    static constexpr int kGroupBytes = 544, kZeroShift = 7;  // zero point 128 = 1 << 7
    static constexpr bool kHasMin = false;
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        first4 = load_bytes(group + 32 + j * 128);
        next4 = load_bytes(group + 32 + j * 128 + 64);
    }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4(acc, w, x); }
};

// A zero point of its own for each group. What 128 and z differ by is added as a minimum is: nothing where they agree.
struct U8z : Q8_0 {
    static constexpr int kGroupBytes = 608;
    static constexpr bool kHasMin = true;
    QB_INLINE F scale(const uint8_t* group, Head) { return load(reinterpret_cast<const float*>(group)); }
    QB_INLINE F min(const uint8_t* group, Head head) {
        return mul(scale(group, head), sub(set(128.0f), load_half(reinterpret_cast<const uint16_t*>(group + 64))));
    }
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        Q8_0::vectors(group + 64, j, first4, next4);
    }
};

template <bool Min> struct Nibbles : Scales {
    static constexpr int kScaleBytes = Min ? 64 : 32;
    static constexpr int kGroupBytes = kScaleBytes + 256, kZeroShift = Min ? -1 : 3;
    static constexpr bool kHasMin = Min;
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        const Bytes both = nibbles(group, j);
        first4 = low_nibbles(both);
        next4 = high_nibbles(both);
    }
    QB_INLINE Bytes nibbles(const uint8_t* group, int j) { return load_bytes(group + kScaleBytes + j * 64); }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4_nibbles(acc, w, x); }
};
using Q4_0 = Nibbles<false>;
using Q4_1 = Nibbles<true>;
struct U4z : Q4_1 {
    static constexpr int kZeroShift = 3;
    QB_INLINE F min(const uint8_t* group, Head head) {
        return mul(scale(group, head), sub(set(8.0f), Scales::min(group, head)));
    }
};

// The vectors of nibbles at `at`, each with its fifth bit from the vector behind them.
QB_INLINE void five_bits(const uint8_t* at, int j, Bytes& first4, Bytes& next4) {
    const Bytes both = load_bytes(at + j * 64), fifth = load_bytes(at + 256);
    first4 = join_bits<4>(low_nibbles(both), fifth, 2 * j, 1);
    next4 = join_bits<4>(high_nibbles(both), fifth, 2 * j + 1, 1);
}
template <bool Min> struct Fives : Scales {
    static constexpr int kScaleBytes = Min ? 64 : 32;
    static constexpr int kGroupBytes = kScaleBytes + 320, kZeroShift = Min ? -1 : 4;
    static constexpr bool kHasMin = Min;
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        five_bits(group + kScaleBytes, j, first4, next4);
    }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4_narrow(acc, w, x); }
};
using Q5_0 = Fives<false>;
using Q5_1 = Fives<true>;

struct Iq4Nl : Scales {
    static constexpr int kGroupBytes = 288, kZeroShift = 7;
    static constexpr bool kHasMin = false;
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        const Bytes both = load_bytes(group + 32 + j * 64);
        first4 = choose_bytes(kIq4Nl, low_nibbles(both));
        next4 = choose_bytes(kIq4Nl, high_nibbles(both));
    }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4_wide(acc, w, x); }
};

struct Mxfp4 : Scales {
    static constexpr int kGroupBytes = 272, kZeroShift = 4;
    static constexpr bool kHasMin = false;
    QB_INLINE F scale(const uint8_t* group, Head) {  // 2^(e-128) as 2^down * 2^up: neither leaves float32
        const F power = sub(to_float(load_u8(group)), set(128.0f)), up = max(power, set(0.0f)), down = sub(power, up);
        const F small = mul(scale2(set(1.0f), add(down, set(2.0f))), set(0.25f));
        return mul(small, scale2(set(1.0f), up));
    }
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        const Bytes both = load_bytes(group + 16 + j * 64);
        first4 = choose_bytes(kMxfp4, low_nibbles(both));
        next4 = choose_bytes(kMxfp4, high_nibbles(both));
    }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4_narrow(acc, w, x); }
};

// Group g of a super-block format, and the head of the super-block, which lies before its first group.
template <int HeadBytes, int GroupBytes> struct Super {
    static constexpr int kGroupBytes = GroupBytes, kGroupsAHead = 8;
    struct Head {
        F factor, least;  // d, and -dmin where there is one
    };
    QB_INLINE const uint8_t* group(const uint8_t* panel, size_t g, size_t) {
        return panel + (g / 8 + 1) * HeadBytes + g * GroupBytes;
    }
    QB_INLINE Head head(const uint8_t* first_group) {
        const uint16_t* factors = reinterpret_cast<const uint16_t*>(first_group - HeadBytes);
        return {load_half(factors), load_half(factors + (HeadBytes == 64 ? 16 : 0))};
    }
    QB_INLINE F scale(const uint8_t* group, Head head) { return mul(head.factor, to_float(load_u8(group))); }
    QB_INLINE F min(const uint8_t* group, Head head) { return mul(head.least, to_float(load_u8(group + 16))); }
};

struct Q4_K : Super<64, 288> {
    static constexpr int kZeroShift = -1;
    static constexpr bool kHasMin = true;
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        const Bytes both = nibbles(group, j);
        first4 = low_nibbles(both);
        next4 = high_nibbles(both);
    }
    QB_INLINE Bytes nibbles(const uint8_t* group, int j) { return load_bytes(group + 32 + j * 64); }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4_narrow(acc, w, x); }
};

struct Q5_K : Super<64, 352> {
    static constexpr int kZeroShift = -1;
    static constexpr bool kHasMin = true;
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        five_bits(group + 32, j, first4, next4);
    }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4_narrow(acc, w, x); }
};

struct Q6_K : Super<32, 416> {
    static constexpr int kHalfZeroShift = 5;
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        const Bytes both = load_bytes(group + 32 + j * 64), upper = load_bytes(group + 288 + j / 2 * 64);
        first4 = join_bits<4>(low_nibbles(both), upper, j % 2 * 4, 3);
        next4 = join_bits<4>(high_nibbles(both), upper, j % 2 * 4 + 2, 3);
    }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4_narrow(acc, w, x); }
};

// Numbers of two bits, four in a byte of the two vectors at `at`.
QB_INLINE void two_bits(const uint8_t* at, int j, Bytes& first4, Bytes& next4) {
    const Bytes four = load_bytes(at + j / 2 * 64), both = j % 2 ? high_nibbles(four) : low_nibbles(four);
    first4 = choose_bytes(kLowerTwo, both);
    next4 = choose_bytes(kUpperTwo, both);
}
struct Q2_K : Super<64, 192> {
    static constexpr int kHalfZeroShift = -1;
    static constexpr bool kHalfMin = true;
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        two_bits(group + 64, j, first4, next4);
    }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4_narrow(acc, w, x); }
};

struct Q3_K : Super<32, 224> {
    static constexpr int kHalfZeroShift = 2;
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        const Bytes third = load_bytes(group + 160);
        two_bits(group + 32, j, first4, next4);
        first4 = join_bits<2>(first4, third, 2 * j, 1);
        next4 = join_bits<2>(next4, third, 2 * j + 1, 1);
    }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4_narrow(acc, w, x); }
};

struct Iq4Xs : Super<32, 272> {
    static constexpr int kZeroShift = 7;
    static constexpr bool kHasMin = false;
    QB_INLINE F scale(const uint8_t* group, Head head) { return mul(head.factor, to_float(load_s8(group))); }
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        Iq4Nl::vectors(group - 16, j, first4, next4);
    }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4_wide(acc, w, x); }
};

struct S8_K : Super<64, 544> {
    static constexpr int kHalfZeroShift = 7;
    QB_INLINE Head head(const uint8_t* first_group) {
        const F factor = load(reinterpret_cast<const float*>(first_group - 64));
        return {factor, factor};
    }
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        first4 = load_bytes(group + 32 + j * 128);
        next4 = load_bytes(group + 32 + j * 128 + 64);
    }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4(acc, w, x); }
};

// Whether a quantized format has a scale for each 16 of a group, whether it has minima, and which unsigned number of
// its vectors stands for 0.
template <class Format> constexpr bool in_halves = requires { Format::kHalfZeroShift; };
template <class Format> constexpr bool has_minimum() {
    if constexpr (in_halves<Format>)
        return requires { Format::kHalfMin; };
    else
        return Format::kHasMin;
}
template <class Format> constexpr int zero_point() {
    const auto number = [](int shift) { return shift < 0 ? 0 : 1 << shift; };
    if constexpr (in_halves<Format>)
        return number(Format::kHalfZeroShift);
    else
        return number(Format::kZeroShift);
}

// Blocks of 64 k with a scale in front, whose values are floats: `begin` at the first of eight k, `next` is one of
// them.
template <const float* Entries> struct ByBook {
    static constexpr int kValues = 64, kBlockBytes = 576;
    static constexpr float kFactor = 1;
    const Book book = load_book(Entries);
    Bytes words;
    __attribute__((always_inline)) void begin(const uint8_t* block, int j) { words = load_bytes(block + 64 + j * 64); }
    __attribute__((always_inline)) F next() {
        const F w = look_up(book, words);
        words = next_nibbles(words);
        return w;
    }
};
using Nf4 = ByBook<kNf4>;
using Fp4 = ByBook<kFp4>;

struct E4m3 {
    static constexpr int kValues = 64, kBlockBytes = 1088;
    static constexpr float kFactor = 256;  // of what load_e4m3 gives
    const uint8_t* at;
    __attribute__((always_inline)) void begin(const uint8_t* block, int j) { at = block + 64 + j * 128; }
    __attribute__((always_inline)) F next() {
        const F w = load_e4m3(at);
        at += 16;
        return w;
    }
};

struct Bf16 {
    static constexpr int kUnit = 2, kUnitBytes = 64;  // k and bytes of 16 rows
    static constexpr size_t kOperandBytes = kPairBytes;
    QB_INLINE Pairs weights(const uint8_t* unit) { return load_pairs(unit); }
    QB_INLINE F multiply(F acc, Pairs w, const uint8_t* x) { return dot2(acc, w, broadcast_pair(x)); }
    QB_INLINE F multiply_at(F acc, Pairs w, const uint8_t* x) { return dot2_at(acc, w, x); }  // where x is read again
};
struct F16 {
    static constexpr int kUnit = 1, kUnitBytes = 32;
    static constexpr size_t kOperandBytes = 4;
    QB_INLINE F weights(const uint8_t* unit) { return load_half(reinterpret_cast<const uint16_t*>(unit)); }
    QB_INLINE F multiply(F acc, F w, const uint8_t* x) { return fma(w, set(*reinterpret_cast<const float*>(x)), acc); }
    QB_INLINE F multiply_at(F acc, F w, const uint8_t* x) { return fma_at(w, x, acc); }
};
struct F32 : F16 {
    static constexpr int kUnitBytes = 64;
    QB_INLINE F weights(const uint8_t* unit) { return load(reinterpret_cast<const float*>(unit)); }
};
