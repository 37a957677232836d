// What a weight format adds to the one GEMM core: how 64 bytes of a panel become operands.
//
// Quantized formats: a panel is K/32 groups of 16 rows x 32 k, scales first:
//   q8_0  [16 fp16 d][8 x 64 B]                 byte r*4+b of vector j: k = 4j+b, stored as u8 = w + 128
//   q4_0  [16 fp16 d][4 x 64 B]                 byte r*4+b of vector j: low nibble k = 8j+b, high k = 8j+4+b, u4 = w +
//   8 q4_1  [16 fp16 d][16 fp16 m][4 x 64 B]      the same nibbles, value d * u4 + m
// Formats with a code book: a panel is K/64 blocks of 16 rows x 64 k:
//   nf4, fp4  [16 f32 absmax][8 x 64 B]         word r of vector j: k = 8j+i in bits 4i..4i+3, value absmax * book[u4]
// Float formats: a panel is K/unit units of 16 rows:
//   bf16  [16 rows][2 k]   f16, f32  [16 rows][1 k]

struct Q8_0 {
    static constexpr int kGroupBytes = 544, kZeroShift = 7;  // zero point 128 = 1 << 7
    static constexpr bool kHasMin = false;
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        first4 = load_bytes(group + 32 + j * 128);
        next4 = load_bytes(group + 32 + j * 128 + 64);
    }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4(acc, w, x); }
};

template <bool Min> struct Nibbles {
    static constexpr int kScaleBytes = Min ? 64 : 32;
    static constexpr int kGroupBytes = kScaleBytes + 256, kZeroShift = Min ? -1 : 3;
    static constexpr bool kHasMin = Min;
    QB_INLINE void vectors(const uint8_t* group, int j, Bytes& first4, Bytes& next4) {
        Bytes both = load_bytes(group + kScaleBytes + j * 64);
        first4 = low_nibbles(both);
        next4 = high_nibbles(both);
    }
    QB_INLINE I dot(I acc, Bytes w, I x) { return dot4_nibbles(acc, w, x); }
};
using Q4_0 = Nibbles<false>;
using Q4_1 = Nibbles<true>;

struct Nf4 {
    static constexpr int kValues = 64, kBlockBytes = 576;
    static constexpr const float* kBook = kNf4;
};
struct Fp4 {
    static constexpr int kValues = 64, kBlockBytes = 576;
    static constexpr const float* kBook = kFp4;
};

struct Bf16 {
    static constexpr int kUnit = 2, kUnitBytes = 64;  // k and bytes of 16 rows
    QB_INLINE F multiply(F acc, const uint8_t* w, const uint8_t* x) {
        return dot2(acc, load_pairs(w), broadcast_pair(x));
    }
};
struct F16 {
    static constexpr int kUnit = 1, kUnitBytes = 32;
    QB_INLINE F multiply(F acc, const uint8_t* w, const uint8_t* x) {
        return fma(load_half(reinterpret_cast<const uint16_t*>(w)), set(*reinterpret_cast<const float*>(x)), acc);
    }
};
struct F32 {
    static constexpr int kUnit = 1, kUnitBytes = 64;
    QB_INLINE F multiply(F acc, const uint8_t* w, const uint8_t* x) {
        return fma(load(reinterpret_cast<const float*>(w)), set(*reinterpret_cast<const float*>(x)), acc);
    }
};
