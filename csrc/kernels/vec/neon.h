// 16 lanes on NEON with dot products (ARMv8.2): four registers each.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#define QB_INLINE static inline __attribute__((always_inline))

namespace qb::neon {

constexpr int kRowTiles[] = {1};  // 1 x 4 accumulators of four registers each are half of the 32
constexpr bool kExpands = false;

template <class Quarter> struct Quarters {
    Quarter a, b, c, d;
};
using F = Quarters<float32x4_t>;
using I = Quarters<int32x4_t>;
using Bytes = Quarters<uint8x16_t>;
using Mask = Quarters<uint32x4_t>;  // lanes are all ones or all zeros

// The same of each quarter.
template <auto Of, class... Xs> QB_INLINE auto each(Xs... x) {
    return Quarters<decltype(Of(x.a...))>{Of(x.a...), Of(x.b...), Of(x.c...), Of(x.d...)};
}
template <class Quarter> QB_INLINE Quarters<Quarter> all(Quarter x) { return {x, x, x, x}; }

QB_INLINE F load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
QB_INLINE void store(float* p, F x) {
    vst1q_f32(p, x.a), vst1q_f32(p + 4, x.b), vst1q_f32(p + 8, x.c), vst1q_f32(p + 12, x.d);
}
QB_INLINE F set(float x) { return all(vdupq_n_f32(x)); }
QB_INLINE F add(F x, F y) { return each<vaddq_f32>(x, y); }
QB_INLINE F sub(F x, F y) { return each<vsubq_f32>(x, y); }
QB_INLINE F mul(F x, F y) { return each<vmulq_f32>(x, y); }
QB_INLINE F div(F x, F y) { return each<vdivq_f32>(x, y); }
QB_INLINE F fma(F x, F y, F z) { return each<vfmaq_f32>(z, x, y); }
QB_INLINE F choose(Mask mask, F yes, F no) { return each<vbslq_f32>(mask, yes, no); }
// y where one is no number, which vmaxq_f32 and vminq_f32 have otherwise.
QB_INLINE F max(F x, F y) { return choose(each<vcgtq_f32>(x, y), x, y); }
QB_INLINE F min(F x, F y) { return choose(each<vcltq_f32>(x, y), x, y); }
QB_INLINE F abs(F x) { return each<vabsq_f32>(x); }
QB_INLINE F copy_sign(F magnitude, F sign) { return choose(all(vdupq_n_u32(0x80000000u)), sign, magnitude); }
QB_INLINE F round_even(F x) { return each<vrndnq_f32>(x); }
// p * 2^n for p in [0.5, 2] and whole n; below 2^-126 exactly 0, above 2^127 infinite.
QB_INLINE float32x4_t scale2_quarter(float32x4_t p, float32x4_t n) {
    const uint32x4_t small = vcltq_f32(n, vdupq_n_f32(-126.0f)), large = vcgtq_f32(n, vdupq_n_f32(127.0f));
    const int32x4_t power = vshlq_n_s32(vqaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
    const float32x4_t y = vbslq_f32(small, vdupq_n_f32(0.0f), vmulq_f32(p, vreinterpretq_f32_s32(power)));
    return vbslq_f32(large, vdupq_n_f32(__builtin_inff()), y);
}
QB_INLINE F scale2(F p, F n) { return each<scale2_quarter>(p, n); }
QB_INLINE Mask lanes_before(int n) {
    alignas(16) static const int32_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const I at = {vld1q_s32(lanes), vld1q_s32(lanes + 4), vld1q_s32(lanes + 8), vld1q_s32(lanes + 12)};
    return each<vcltq_s32>(at, all(vdupq_n_s32(n)));
}
// The first n lanes of x, `otherwise` in the rest; 0 <= n <= 16.
QB_INLINE F first(F x, int n, float otherwise) { return choose(lanes_before(n), x, set(otherwise)); }
// The lanes of x from n on, `otherwise` in the first n; 0 <= n <= 16.
QB_INLINE F after(F x, int n, float otherwise) { return choose(lanes_before(n), set(otherwise), x); }
QB_INLINE unsigned lanes_of(Mask mask) {
    alignas(16) static const uint16_t bits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    const uint16x8_t low = vld1q_u16(bits), high = vshlq_n_u16(low, 8);
    const uint16x8_t ab = vcombine_u16(vmovn_u32(mask.a), vmovn_u32(mask.b));
    const uint16x8_t cd = vcombine_u16(vmovn_u32(mask.c), vmovn_u32(mask.d));
    return vaddvq_u16(vorrq_u16(vandq_u16(ab, low), vandq_u16(cd, high)));
}
QB_INLINE unsigned at_least_mask(F x, F y) { return lanes_of(each<vcgeq_f32>(x, y)); }
QB_INLINE unsigned nan_mask(F x) { return lanes_of(each<vmvnq_u32>(each<vceqq_f32>(x, x))); }
// `value` where x >= y, 0 elsewhere.
QB_INLINE F keep(F x, F y, F value) { return choose(each<vcgeq_f32>(x, y), value, set(0.0f)); }
// The lanes of x that are set in mask, `otherwise` elsewhere.
QB_INLINE F select(unsigned mask, F x, float otherwise) {
    alignas(16) static const uint32_t bits[4] = {1, 2, 4, 8};
    const uint32x4_t a = vld1q_u32(bits), word = vdupq_n_u32(mask);
    const Mask lanes = {a, vshlq_n_u32(a, 4), vshlq_n_u32(a, 8), vshlq_n_u32(a, 12)};
    return choose(each<vtstq_u32>(all(word), lanes), x, set(otherwise));
}
// Writes base + i for each lane i that is set in mask, ascending, and returns how many; `out` has room for 16.
QB_INLINE size_t put_indices(int32_t* out, int32_t base, unsigned mask) {
    size_t count = 0;
    for (; mask; mask &= mask - 1) out[count++] = base + __builtin_ctz(mask);
    return count;
}

QB_INLINE float sum(F x) {  // fixed tree: 16 -> 8 -> 4 -> 2 -> 1
    const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    return vaddv_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
}
QB_INLINE float highest(F x) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.a, x.c), vmaxq_f32(x.b, x.d))); }
// Of four vectors the largest lane of each.
QB_INLINE void highest_of(const F (&x)[4], float* out) {
    for (int i = 0; i < 4; i++) out[i] = highest(x[i]);
}

QB_INLINE I zero_i() { return all(vdupq_n_s32(0)); }
QB_INLINE I add_i(I x, I y) { return each<vaddq_s32>(x, y); }
QB_INLINE I sub_i(I x, I y) { return each<vsubq_s32>(x, y); }
QB_INLINE I mul_i(I x, I y) { return each<vmulq_s32>(x, y); }
template <int N> QB_INLINE I shift_left(I x) {
    return {vshlq_n_s32(x.a, N), vshlq_n_s32(x.b, N), vshlq_n_s32(x.c, N), vshlq_n_s32(x.d, N)};
}
template <int N> QB_INLINE I shift_right(I x) {
    return {vshrq_n_s32(x.a, N), vshrq_n_s32(x.b, N), vshrq_n_s32(x.c, N), vshrq_n_s32(x.d, N)};
}
QB_INLINE I broadcast4(const void* p) {  // 4 bytes into every lane
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return all(vdupq_n_s32(word));
}
QB_INLINE F to_float(I x) { return each<vcvtq_f32_s32>(x); }
// nearest, ties to even; what does not fit becomes INT_MIN, as elsewhere, where the instruction goes to the nearest
QB_INLINE int32x4_t to_int_quarter(float32x4_t x) {
    return vbslq_s32(vcaltq_f32(x, vdupq_n_f32(0x1p31f)), vcvtnq_s32_f32(x), vdupq_n_s32(INT32_MIN));
}
QB_INLINE I to_int(F x) { return each<to_int_quarter>(x); }
QB_INLINE int32_t sum_i(I x) { return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.c), vaddq_s32(x.b, x.d))); }
QB_INLINE void store_int8(int8_t* p, I x) {
    const int16x8_t ab = vcombine_s16(vmovn_s32(x.a), vmovn_s32(x.b));
    const int16x8_t cd = vcombine_s16(vmovn_s32(x.c), vmovn_s32(x.d));
    vst1q_s8(p, vcombine_s8(vmovn_s16(ab), vmovn_s16(cd)));
}
// Of lanes from 0 to 255.
QB_INLINE void store_uint8(uint8_t* p, I x) { store_int8(reinterpret_cast<int8_t*>(p), x); }
QB_INLINE I load_s8(const uint8_t* p) {
    const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(p));
    const int16x8_t ab = vmovl_s8(vget_low_s8(bytes)), cd = vmovl_high_s8(bytes);
    return {vmovl_s16(vget_low_s16(ab)), vmovl_high_s16(ab), vmovl_s16(vget_low_s16(cd)), vmovl_high_s16(cd)};
}
QB_INLINE I load_u8(const uint8_t* p) {
    const uint8x16_t bytes = vld1q_u8(p);
    const uint16x8_t ab = vmovl_u8(vget_low_u8(bytes)), cd = vmovl_high_u8(bytes);
    return each<vreinterpretq_s32_u32>(Quarters<uint32x4_t>{vmovl_u16(vget_low_u16(ab)), vmovl_high_u16(ab),
                                                            vmovl_u16(vget_low_u16(cd)), vmovl_high_u16(cd)});
}

QB_INLINE Bytes load_bytes(const uint8_t* p) {
    return {vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)};
}
QB_INLINE I load_i(const void* p) { return each<vreinterpretq_s32_u8>(load_bytes(static_cast<const uint8_t*>(p))); }
QB_INLINE void store_bytes(uint8_t* p, Bytes x) {
    vst1q_u8(p, x.a), vst1q_u8(p + 16, x.b), vst1q_u8(p + 32, x.c), vst1q_u8(p + 48, x.d);
}
// The lowest byte of each lane: word 4u + r has those of lanes 4u .. 4u + 3 of rows[r], which are -128 to 127.
QB_INLINE uint8x16_t pack_quarters(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d) {
    const int16x8_t ab = vcombine_s16(vmovn_s32(a), vmovn_s32(b)), cd = vcombine_s16(vmovn_s32(c), vmovn_s32(d));
    return vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(ab), vmovn_s16(cd)));
}
QB_INLINE Bytes pack_rows(const I (&rows)[4]) {
    return {pack_quarters(rows[0].a, rows[1].a, rows[2].a, rows[3].a),
            pack_quarters(rows[0].b, rows[1].b, rows[2].b, rows[3].b),
            pack_quarters(rows[0].c, rows[1].c, rows[2].c, rows[3].c),
            pack_quarters(rows[0].d, rows[1].d, rows[2].d, rows[3].d)};
}
// sums[r] = lanes r, 4 + r, 8 + r and 12 + r.
QB_INLINE void sum_rows(I x, int32_t* sums) { vst1q_s32(sums, vaddq_s32(vaddq_s32(x.a, x.b), vaddq_s32(x.c, x.d))); }
QB_INLINE Bytes broadcast_bytes(const void* p) { return each<vreinterpretq_u8_s32>(broadcast4(p)); }
QB_INLINE Bytes low_nibbles(Bytes x) { return each<vandq_u8>(x, all(vdupq_n_u8(0x0f))); }
QB_INLINE Bytes high_nibbles(Bytes x) {
    return {vshrq_n_u8(x.a, 4), vshrq_n_u8(x.b, 4), vshrq_n_u8(x.c, 4), vshrq_n_u8(x.d, 4)};
}
// Those where they are, at 16 times their value; and whether dots with them cost no more than with smaller ones.
constexpr bool kDotsUpper = false;
QB_INLINE Bytes upper_nibbles(Bytes x) { return each<vandq_u8>(x, all(vdupq_n_u8(0xf0))); }
// acc[lane] += sum over 4 of u8 * s8 for u8 <= 127, which are s8 as well.
QB_INLINE int32x4_t dot4_quarter(int32x4_t acc, uint8x16_t u7, int32x4_t s8) {
    return vdotq_s32(acc, vreinterpretq_s8_u8(u7), vreinterpretq_s8_s32(s8));
}
QB_INLINE I dot4_nibbles(I acc, Bytes u4, I s8) { return each<dot4_quarter>(acc, u4, s8); }
QB_INLINE I dot4_narrow(I acc, Bytes u6, I s8) { return dot4_nibbles(acc, u6, s8); }
// The same for every u8: (u8 - 128) * s8 - -128 * s8, and all that is between fits.
QB_INLINE int32x4_t dot4_wide_quarter(int32x4_t acc, uint8x16_t u8, int32x4_t s8) {
    const uint8x16_t top = vdupq_n_u8(0x80);
    return vsubq_s32(dot4_quarter(acc, veorq_u8(u8, top), s8), dot4_quarter(vdupq_n_s32(0), top, s8));
}
QB_INLINE I dot4(I acc, Bytes u8, I s8) { return each<dot4_wide_quarter>(acc, u8, s8); }
QB_INLINE I dot4_wide(I acc, Bytes u8, I s8) { return dot4(acc, u8, s8); }
// dot4, fma and mul with the 4 bytes, or the float, at `p` in every lane.
QB_INLINE I dot4_at(I acc, Bytes u8, const uint8_t* p) { return dot4(acc, u8, broadcast4(p)); }
QB_INLINE F fma_at(F a, const uint8_t* p, F c) { return fma(a, set(*reinterpret_cast<const float*>(p)), c); }
QB_INLINE F mul_at(F a, const uint8_t* p) { return mul(a, set(*reinterpret_cast<const float*>(p))); }
// `low`, of At bits, with two or one bits of each byte of `high` on top: bits `shift` and up, as far as `mask` goes.
template <int At> QB_INLINE uint8x16_t join_bits_quarter(uint8x16_t low, uint8x16_t high, int shift, int mask) {
    const uint8x16_t down = vreinterpretq_u8_u32(vreinterpretq_u32_u8(high) >> static_cast<uint32_t>(shift));
    return vsliq_n_u8(low, vandq_u8(down, vdupq_n_u8(static_cast<uint8_t>(mask))), At);
}
template <int At> QB_INLINE Bytes join_bits(Bytes low, Bytes high, int shift, int mask) {
    return {join_bits_quarter<At>(low.a, high.a, shift, mask), join_bits_quarter<At>(low.b, high.b, shift, mask),
            join_bits_quarter<At>(low.c, high.c, shift, mask), join_bits_quarter<At>(low.d, high.d, shift, mask)};
}
// Each byte, of 0 to 15, names one of 16.
QB_INLINE Bytes choose_bytes(const uint8_t* table, Bytes x) { return each<vqtbl1q_u8>(all(vld1q_u8(table)), x); }

struct Book {
    uint8x16x4_t bytes;
};  // 16 floats to look up
QB_INLINE Book load_book(const float* p) {
    const F x = load(p);
    return {
        {{vreinterpretq_u8_f32(x.a), vreinterpretq_u8_f32(x.b), vreinterpretq_u8_f32(x.c), vreinterpretq_u8_f32(x.d)}}};
}
QB_INLINE float32x4_t look_up_quarter(Book book, uint8x16_t words) {
    const uint32x4_t entry = vandq_u32(vreinterpretq_u32_u8(words), vdupq_n_u32(15));
    const uint32x4_t bytes = vmlaq_u32(vdupq_n_u32(0x03020100), entry, vdupq_n_u32(0x04040404));  // 4 entry + 0 .. 3
    return vreinterpretq_f32_u8(vqtbl4q_u8(book.bytes, vreinterpretq_u8_u32(bytes)));
}
// Each lane's word names an entry with its lowest 4 bits.
QB_INLINE F look_up(Book book, Bytes words) {
    return {look_up_quarter(book, words.a), look_up_quarter(book, words.b), look_up_quarter(book, words.c),
            look_up_quarter(book, words.d)};
}
QB_INLINE uint8x16_t next_nibbles_quarter(uint8x16_t words) {
    return vreinterpretq_u8_u32(vshrq_n_u32(vreinterpretq_u32_u8(words), 4));
}
QB_INLINE Bytes next_nibbles(Bytes words) { return each<next_nibbles_quarter>(words); }

QB_INLINE F from_halves(uint16x8_t ab, uint16x8_t cd) {
    const float16x8_t x = vreinterpretq_f16_u16(ab), y = vreinterpretq_f16_u16(cd);
    return {vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x), vcvt_f32_f16(vget_low_f16(y)), vcvt_high_f32_f16(y)};
}
QB_INLINE F load_half(const uint16_t* p) { return from_halves(vld1q_u16(p), vld1q_u16(p + 8)); }
// 16 floats of a sign, 4 bits of exponent and 3 of fraction, each times 2^-8: so they are float16 once moved.
QB_INLINE F load_e4m3(const uint8_t* p) {
    const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(p));
    const uint16x8_t ab = vreinterpretq_u16_s16(vshll_n_s8(vget_low_s8(bytes), 7));
    const uint16x8_t cd = vreinterpretq_u16_s16(vshll_high_n_s8(bytes, 7)), kept = vdupq_n_u16(0xbf80);
    return from_halves(vandq_u16(ab, kept), vandq_u16(cd, kept));
}
QB_INLINE float32x4_t round_bf16_quarter(float32x4_t x) {
    const uint32x4_t raw = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(raw, 16), vdupq_n_u32(1));
    const uint32x4_t near = vaddq_u32(raw, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const uint32x4_t quiet = vorrq_u32(raw, vdupq_n_u32(0x400000));
    const uint32x4_t upper = vbslq_u32(vceqq_f32(x, x), near, quiet);
    return vreinterpretq_f32_u32(vandq_u32(upper, vdupq_n_u32(0xffff0000u)));
}
QB_INLINE F round_bf16(F x) { return each<round_bf16_quarter>(x); }  // nearest even, a NaN stays one
QB_INLINE void store_bf16(uint16_t* p, F x) {
    const auto upper = each<vreinterpretq_u16_f32>(round_bf16(x));
    vst1q_u16(p, vuzp2q_u16(upper.a, upper.b)), vst1q_u16(p + 8, vuzp2q_u16(upper.c, upper.d));
}
// Of 16 x 2 bf16 the first and the second of each two.
QB_INLINE float32x4_t even_bf16_quarter(uint8x16_t x) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u8(x), 16));
}
QB_INLINE F even_bf16(Bytes x) { return each<even_bf16_quarter>(x); }
QB_INLINE float32x4_t odd_bf16_quarter(uint8x16_t x) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u8(x), vdupq_n_u32(0xffff0000u)));
}
QB_INLINE F odd_bf16(Bytes x) { return each<odd_bf16_quarter>(x); }
// 128 + u as bf16, of bytes 0 and 2, and of 1 and 3, of each lane; exact for u < 128.
QB_INLINE Bytes even_bytes(Bytes u7) { return each<vtrn1q_u8>(u7, all(vdupq_n_u8(0x43))); }
QB_INLINE Bytes odd_bytes(Bytes u7) { return each<vtrn2q_u8>(u7, all(vdupq_n_u8(0x43))); }

QB_INLINE void fetch(const void* p) { __builtin_prefetch(p, 0, 2); }

}  // namespace qb::neon
