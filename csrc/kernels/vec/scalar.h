// 16 lanes in portable C++ (the compiler's generic vectors): runs anywhere, and says plainly what each primitive means.
#pragma once

#include <cstddef>
#include <cstdint>

#define QB_INLINE static inline __attribute__((always_inline))

namespace qb::scalar {

constexpr int kRowTiles[] = {1};
constexpr bool kExpands = false;

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));

struct F {
    Floats v;
};
struct I {
    Ints v;
};
struct Bytes {
    Words v;
};  // 16 x 4 bytes

template <class To, class From> QB_INLINE To bits(From x) {
    To y;
    static_assert(sizeof x == sizeof y);
    __builtin_memcpy(&y, &x, sizeof y);
    return y;
}
// mask lanes are all ones or all zeros
QB_INLINE Floats choose(Ints mask, Floats yes, Floats no) {
    return bits<Floats>((mask & bits<Ints>(yes)) | (~mask & bits<Ints>(no)));
}
QB_INLINE Floats all(float x) { return x - Floats{}; }

QB_INLINE F load(const float* p) {
    F r;
    __builtin_memcpy(&r.v, p, 64);
    return r;
}
QB_INLINE void store(float* p, F x) { __builtin_memcpy(p, &x.v, 64); }
QB_INLINE F set(float x) { return {all(x)}; }
QB_INLINE F add(F a, F b) { return {a.v + b.v}; }
QB_INLINE F sub(F a, F b) { return {a.v - b.v}; }
QB_INLINE F mul(F a, F b) { return {a.v * b.v}; }
QB_INLINE F div(F a, F b) { return {a.v / b.v}; }
QB_INLINE F fma(F a, F b, F c) { return {a.v * b.v + c.v}; }  // two roundings
QB_INLINE F max(F a, F b) { return {choose(a.v > b.v, a.v, b.v)}; }
QB_INLINE F min(F a, F b) { return {choose(a.v < b.v, a.v, b.v)}; }
QB_INLINE F abs(F a) { return {bits<Floats>(bits<Ints>(a.v) & 0x7fffffff)}; }
QB_INLINE F copy_sign(F magnitude, F sign) {
    return {bits<Floats>((bits<Ints>(magnitude.v) & 0x7fffffff) | (bits<Ints>(sign.v) & INT32_MIN))};
}
// Adding 1.5 * 2^23 leaves no room for a fraction; larger numbers have none.
QB_INLINE F round_even(F a) {
    const Floats magic = all(12582912.0f);
    return {choose(abs(a).v < 4194304.0f, (a.v + magic) - magic, a.v)};
}
// p * 2^n for p in [0.5, 2] and whole n; below 2^-126 exactly 0, above 2^127 infinite.
QB_INLINE F scale2(F p, F n) {
    const Ints small = n.v < -126.0f, large = n.v > 127.0f;
    const Floats clamped = choose(small | large, all(0.0f), n.v);
    const Ints power = (__builtin_convertvector(clamped, Ints) + 127) << 23;
    return {choose(large, all(__builtin_inff()), choose(small, all(0.0f), p.v * bits<Floats>(power)))};
}
// The first n lanes of x, `otherwise` in the rest; 0 <= n <= 16.
QB_INLINE F first(F x, int n, float otherwise) {
    const Ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return {choose(lanes < n, x.v, all(otherwise))};
}
// The lanes of x from n on, `otherwise` in the first n; 0 <= n <= 16.
QB_INLINE F after(F x, int n, float otherwise) {
    const Ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return {choose(lanes < n, all(otherwise), x.v)};
}
QB_INLINE unsigned lanes_of(Ints mask) {
    unsigned out = 0;
    for (int i = 0; i < 16; i++) out |= static_cast<unsigned>(mask[i] & 1) << i;
    return out;
}
QB_INLINE unsigned at_least_mask(F x, F y) { return lanes_of(x.v >= y.v); }
QB_INLINE unsigned nan_mask(F x) { return lanes_of(x.v != x.v); }
// `value` where x >= y, 0 elsewhere.
QB_INLINE F keep(F x, F y, F value) { return {choose(x.v >= y.v, value.v, all(0.0f))}; }
// The lanes of x that are set in mask, `otherwise` elsewhere.
QB_INLINE F select(unsigned mask, F x, float otherwise) {
    for (int i = 0; i < 16; i++) x.v[i] = mask >> i & 1 ? x.v[i] : otherwise;
    return x;
}
// Writes base + i for each lane i that is set in mask, ascending, and returns how many; `out` has room for 16.
QB_INLINE size_t put_indices(int32_t* out, int32_t base, unsigned mask) {
    size_t count = 0;
    for (; mask; mask &= mask - 1) out[count++] = base + __builtin_ctz(mask);
    return count;
}
QB_INLINE float sum(F x) {  // fixed tree: 16 -> 8 -> 4 -> 2 -> 1
    float v[16];
    store(v, x);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) v[i] += v[i + half];
    return v[0];
}
QB_INLINE float highest(F x) {
    float v[16];
    store(v, x);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
    return v[0];
}
// Of four vectors the largest lane of each.
QB_INLINE void highest_of(const F (&x)[4], float* out) {
    for (int i = 0; i < 4; i++) out[i] = highest(x[i]);
}

QB_INLINE I zero_i() { return {Ints{}}; }
QB_INLINE I add_i(I a, I b) { return {a.v + b.v}; }
QB_INLINE I sub_i(I a, I b) { return {a.v - b.v}; }
template <int N> QB_INLINE I shift_left(I a) { return {a.v * (1 << N)}; }
template <int N> QB_INLINE I shift_right(I a) { return {a.v >> N}; }
QB_INLINE I broadcast4(const void* p) {  // 4 bytes into every lane
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return {word - Ints{}};
}
QB_INLINE I load_i(const void* p) {
    I r;
    __builtin_memcpy(&r.v, p, 64);
    return r;
}
QB_INLINE F to_float(I a) { return {__builtin_convertvector(a.v, Floats)}; }
// nearest, ties to even; what does not fit becomes INT_MIN, as the vector instructions have it
QB_INLINE I to_int(F a) {
    const Floats whole = round_even(a).v;
    const Ints fits = (whole >= -2147483648.0f) & (whole < 2147483648.0f);
    const Ints value = __builtin_convertvector(choose(fits, whole, all(0.0f)), Ints);
    return {(fits & value) | (~fits & (INT32_MIN - Ints{}))};
}
QB_INLINE int32_t sum_i(I a) {
    uint32_t s = 0;
    for (int i = 0; i < 16; i++) s += static_cast<uint32_t>(a.v[i]);
    return static_cast<int32_t>(s);
}
QB_INLINE void store_int8(int8_t* p, I a) {
    for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(a.v[i]);
}
// Of lanes from 0 to 255.
QB_INLINE void store_uint8(uint8_t* p, I a) {
    for (int i = 0; i < 16; i++) p[i] = static_cast<uint8_t>(a.v[i]);
}

QB_INLINE Bytes load_bytes(const uint8_t* p) {
    Bytes r;
    __builtin_memcpy(&r.v, p, 64);
    return r;
}
QB_INLINE void store_bytes(uint8_t* p, Bytes x) { __builtin_memcpy(p, &x.v, 64); }
// The lowest byte of each lane: word 4u + r has those of lanes 4u .. 4u + 3 of rows[r], which are -128 to 127.
QB_INLINE Bytes pack_rows(const I (&rows)[4]) {
    Bytes packed;
    int8_t* bytes = reinterpret_cast<int8_t*>(&packed);
    for (int i = 0; i < 64; i++) bytes[i] = static_cast<int8_t>(rows[i / 4 % 4].v[i / 16 * 4 + i % 4]);
    return packed;
}
// sums[r] = lanes r, 4 + r, 8 + r and 12 + r.
QB_INLINE void sum_rows(I x, int32_t* sums) {
    for (int r = 0; r < 4; r++) sums[r] = x.v[r] + x.v[4 + r] + x.v[8 + r] + x.v[12 + r];
}
QB_INLINE Bytes broadcast_bytes(const void* p) { return {bits<Words>(broadcast4(p).v)}; }  // 4 bytes into every lane
QB_INLINE Bytes low_nibbles(Bytes x) { return {x.v & 0x0f0f0f0fu}; }
QB_INLINE Bytes high_nibbles(Bytes x) { return {x.v >> 4 & 0x0f0f0f0fu}; }
// Those where they are, at 16 times their value; and whether dots with them cost no more than with smaller ones.
constexpr bool kDotsUpper = false;
QB_INLINE Bytes upper_nibbles(Bytes x) { return {x.v & 0xf0f0f0f0u}; }
// acc[lane] += sum over 4 of u8 * s8.
QB_INLINE I dot4(I acc, Bytes u8, I s8) {
    const Words s = bits<Words>(s8.v);
    for (int b = 0; b < 4; b++) acc.v += bits<Ints>(u8.v >> (8 * b) & 255u) * (bits<Ints>(s << (24 - 8 * b)) >> 24);
    return acc;
}
QB_INLINE I dot4_nibbles(I acc, Bytes u4, I s8) { return dot4(acc, u4, s8); }

// Not inlined: without vector instructions each is hundreds of plain ones, in dozens of tiles.
static __attribute__((noinline)) I dot4_wide(I acc, Bytes u8, I s8) { return dot4(acc, u8, s8); }
QB_INLINE I dot4_narrow(I acc, Bytes u6, I s8) { return dot4_wide(acc, u6, s8); }  // for u8 <= 63
// dot4, fma and mul with the 4 bytes, or the float, at `p` in every lane.
QB_INLINE I dot4_at(I acc, Bytes u8, const uint8_t* p) { return dot4(acc, u8, broadcast4(p)); }
QB_INLINE F fma_at(F a, const uint8_t* p, F c) { return fma(a, set(*reinterpret_cast<const float*>(p)), c); }
QB_INLINE F mul_at(F a, const uint8_t* p) { return mul(a, set(*reinterpret_cast<const float*>(p))); }
// `low`, of At bits, with two or one bits of each byte of `high` on top: bits `shift` and up, as far as `mask` goes.
template <int At> static __attribute__((noinline)) Bytes join_bits(Bytes low, Bytes high, int shift, int mask) {
    return {low.v | (high.v >> shift & static_cast<uint32_t>(mask) * 0x01010101u) << At};
}
// Each byte, of 0 to 15, names one of 16.
static __attribute__((noinline)) Bytes choose_bytes(const uint8_t* table, Bytes x) {
    uint8_t bytes[64];
    __builtin_memcpy(bytes, &x.v, 64);
    for (int i = 0; i < 64; i++) bytes[i] = table[bytes[i]];
    return load_bytes(bytes);
}
QB_INLINE I mul_i(I a, I b) { return {a.v * b.v}; }
static __attribute__((noinline)) I load_u8(const uint8_t* p) {
    I r;
    for (int i = 0; i < 16; i++) r.v[i] = p[i];
    return r;
}
static __attribute__((noinline)) I load_s8(const uint8_t* p) {
    I r;
    for (int i = 0; i < 16; i++) r.v[i] = static_cast<int8_t>(p[i]);
    return r;
}

struct Book {
    const float* entries;
};  // 16 floats to look up
QB_INLINE Book load_book(const float* p) { return {p}; }
// Each lane's word names an entry with its lowest 4 bits.
QB_INLINE F look_up(Book book, Bytes words) {
    F r;
    for (int i = 0; i < 16; i++) r.v[i] = book.entries[words.v[i] & 15];
    return r;
}
QB_INLINE Bytes next_nibbles(Bytes words) { return {words.v >> 4}; }

QB_INLINE float half_value(uint16_t h) {  // IEEE 754 binary16
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 0) {
        const float x = static_cast<float>(fraction) * 0x1p-24f;
        return sign ? -x : x;
    }
    return bits<float>(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13);
}
QB_INLINE F load_half(const uint16_t* p) {
    F r;
    for (int i = 0; i < 16; i++) r.v[i] = half_value(p[i]);
    return r;
}
// 16 floats of a sign, 4 bits of exponent and 3 of fraction, each times 2^-8: so they are float16 once moved.
QB_INLINE F load_e4m3(const uint8_t* p) {
    F r;
    for (int i = 0; i < 16; i++) r.v[i] = half_value(static_cast<uint16_t>((p[i] & 0x80) << 8 | (p[i] & 0x7f) << 7));
    return r;
}
QB_INLINE F round_bf16(F x) {  // nearest even, a NaN stays one
    const Words raw = bits<Words>(x.v), nan = bits<Words>(x.v != x.v);
    const Words near = raw + 0x7fffu + (raw >> 16 & 1u);
    return {bits<Floats>(((nan & (raw | 0x400000u)) | (~nan & near)) & 0xffff0000u)};
}
QB_INLINE void store_bf16(uint16_t* p, F x) {
    const Words upper = bits<Words>(round_bf16(x).v) >> 16;
    for (int i = 0; i < 16; i++) p[i] = static_cast<uint16_t>(upper[i]);
}
// Of 16 x 2 bf16 the first and the second of each two.
QB_INLINE F even_bf16(Bytes x) { return {bits<Floats>(x.v << 16)}; }
QB_INLINE F odd_bf16(Bytes x) { return {bits<Floats>(x.v & 0xffff0000u)}; }
// 128 + u as bf16, of bytes 0 and 2, and of 1 and 3, of each lane; exact for u < 128.
QB_INLINE Bytes even_bytes(Bytes u7) { return {(u7.v & 0x00ff00ffu) | 0x43004300u}; }
QB_INLINE Bytes odd_bytes(Bytes u7) { return {(u7.v >> 8 & 0x00ff00ffu) | 0x43004300u}; }

QB_INLINE void fetch(const void* p) { __builtin_prefetch(p); }

}  // namespace qb::scalar
