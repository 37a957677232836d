// 16 lanes on AVX-512 with VNNI: one register each.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define QB_INLINE static inline __attribute__((always_inline))

namespace qb::QB_ISA {

constexpr int kRowTiles[] = {6, 4, 3, 2, 1};  // rows of an attention tile: 6 x 4 accumulators fit 32 registers
constexpr bool kExpands = true;  // many tokens: weights are decoded into memory first, for tiles of 8 x 2 accumulators

struct F {
    __m512 v;
};
struct I {
    __m512i v;
};
struct Bytes {
    __m512i v;
};

QB_INLINE F load(const float* p) { return {_mm512_loadu_ps(p)}; }
QB_INLINE void store(float* p, F x) { _mm512_storeu_ps(p, x.v); }
QB_INLINE F set(float x) { return {_mm512_set1_ps(x)}; }
QB_INLINE F add(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
QB_INLINE F sub(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
QB_INLINE F mul(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
QB_INLINE F div(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
QB_INLINE F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
QB_INLINE F max(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
QB_INLINE F min(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
QB_INLINE F abs(F a) { return {_mm512_abs_ps(a.v)}; }
QB_INLINE F copy_sign(F magnitude, F sign) {
    const __m512 bit = _mm512_set1_ps(-0.0f);
    return {_mm512_or_ps(_mm512_andnot_ps(bit, magnitude.v), _mm512_and_ps(bit, sign.v))};
}
QB_INLINE F round_even(F a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
QB_INLINE F scale2(F p, F n) { return {_mm512_scalef_ps(p.v, n.v)}; }  // p * 2^n
// The first n lanes of x, `otherwise` in the rest; 0 <= n <= 16.
QB_INLINE F first(F x, int n, float otherwise) {
    return {_mm512_mask_mov_ps(_mm512_set1_ps(otherwise), static_cast<__mmask16>((1u << n) - 1), x.v)};
}
// The lanes of x from n on, `otherwise` in the first n; 0 <= n <= 16.
QB_INLINE F after(F x, int n, float otherwise) {
    return {_mm512_mask_mov_ps(x.v, static_cast<__mmask16>((1u << n) - 1), _mm512_set1_ps(otherwise))};
}
QB_INLINE unsigned at_least_mask(F x, F y) { return _mm512_cmp_ps_mask(x.v, y.v, _CMP_GE_OQ); }
QB_INLINE unsigned nan_mask(F x) { return _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q); }
// `value` where x >= y, 0 elsewhere.
QB_INLINE F keep(F x, F y, F value) { return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, y.v, _CMP_GE_OQ), value.v)}; }
// The lanes of x that are set in mask, `otherwise` elsewhere.
QB_INLINE F select(unsigned mask, F x, float otherwise) {
    return {_mm512_mask_mov_ps(_mm512_set1_ps(otherwise), static_cast<__mmask16>(mask), x.v)};
}
// Writes base + i for each lane i that is set in mask, ascending, and returns how many; `out` has room for 16.
QB_INLINE size_t put_indices(int32_t* out, int32_t base, unsigned mask) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i all = _mm512_add_epi32(_mm512_set1_epi32(base), lanes);
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(static_cast<__mmask16>(mask), all));
    return static_cast<size_t>(__builtin_popcount(mask));
}

QB_INLINE float sum(F x) {  // fixed tree: 16 -> 8 -> 4 -> 2 -> 1
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
QB_INLINE float highest(F x) {
    __m256 a = _mm256_max_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
// Of four vectors the largest lane of each.
QB_INLINE void highest_of(const F (&x)[4], float* out) {
    const __m512 ab =
        _mm512_max_ps(_mm512_shuffle_f32x4(x[0].v, x[1].v, 0x44), _mm512_shuffle_f32x4(x[0].v, x[1].v, 0xee));
    const __m512 cd =
        _mm512_max_ps(_mm512_shuffle_f32x4(x[2].v, x[3].v, 0x44), _mm512_shuffle_f32x4(x[2].v, x[3].v, 0xee));
    __m512 four = _mm512_max_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    four = _mm512_max_ps(four, _mm512_permute_ps(four, 0x4e));
    four = _mm512_max_ps(four, _mm512_permute_ps(four, 0xb1));
    const __m512i of_each = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(of_each, four)));
}

QB_INLINE I zero_i() { return {_mm512_setzero_si512()}; }
QB_INLINE I add_i(I a, I b) { return {_mm512_add_epi32(a.v, b.v)}; }
QB_INLINE I sub_i(I a, I b) { return {_mm512_sub_epi32(a.v, b.v)}; }
template <int N> QB_INLINE I shift_left(I a) { return {_mm512_slli_epi32(a.v, N)}; }
template <int N> QB_INLINE I shift_right(I a) { return {_mm512_srai_epi32(a.v, N)}; }
QB_INLINE I broadcast4(const void* p) {  // 4 bytes into every lane
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return {_mm512_set1_epi32(word)};
}
QB_INLINE I load_i(const void* p) { return {_mm512_loadu_si512(p)}; }
QB_INLINE F to_float(I a) { return {_mm512_cvtepi32_ps(a.v)}; }
QB_INLINE I to_int(F a) { return {_mm512_cvtps_epi32(a.v)}; }  // nearest, ties to even
QB_INLINE int32_t sum_i(I a) { return _mm512_reduce_add_epi32(a.v); }
QB_INLINE void store_int8(int8_t* p, I a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
// Of lanes from 0 to 255.
QB_INLINE void store_uint8(uint8_t* p, I a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}

QB_INLINE Bytes load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
QB_INLINE void store_bytes(uint8_t* p, Bytes x) { _mm512_storeu_si512(p, x.v); }
QB_INLINE Bytes add_bytes(Bytes x, int n) { return {_mm512_add_epi8(x.v, _mm512_set1_epi8(static_cast<char>(n)))}; }
// The lowest byte of each lane: word 4u + r has those of lanes 4u .. 4u + 3 of rows[r], which are -128 to 127.
QB_INLINE Bytes pack_rows(const I (&rows)[4]) {
    return {_mm512_packs_epi16(_mm512_packs_epi32(rows[0].v, rows[1].v), _mm512_packs_epi32(rows[2].v, rows[3].v))};
}
// sums[r] = lanes r, 4 + r, 8 + r and 12 + r.
QB_INLINE void sum_rows(I x, int32_t* sums) {
    const __m256i a = _mm256_add_epi32(_mm512_castsi512_si256(x.v), _mm512_extracti64x4_epi64(x.v, 1));
    const __m128i b = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums), b);
}
QB_INLINE Bytes broadcast_bytes(const void* p) { return {broadcast4(p).v}; }  // 4 bytes into every lane
QB_INLINE Bytes low_nibbles(Bytes x) { return {_mm512_and_si512(x.v, _mm512_set1_epi8(15))}; }
QB_INLINE Bytes high_nibbles(Bytes x) { return {_mm512_and_si512(_mm512_srli_epi16(x.v, 4), _mm512_set1_epi8(15))}; }
// Those where they are, at 16 times their value; and whether dots with them cost no more than with smaller ones.
constexpr bool kDotsUpper = true;
QB_INLINE Bytes upper_nibbles(Bytes x) { return {_mm512_and_si512(x.v, _mm512_set1_epi8(static_cast<char>(0xf0)))}; }
// acc[lane] += sum over 4 of u8 * s8: exact for every u8 and s8.
QB_INLINE I dot4(I acc, Bytes u8, I s8) { return {_mm512_dpbusd_epi32(acc.v, u8.v, s8.v)}; }
// dot4, fma and mul with the 4 bytes, or the float, at `p` in every lane. Reading them is part of the instruction, but
// is done for each; GCC would make one broadcast of several.
QB_INLINE I dot4_at(I acc, Bytes u8, const uint8_t* p) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc.v) : "v"(u8.v), "m"(*reinterpret_cast<const int32_t*>(p)));
    return acc;
}
QB_INLINE F fma_at(F a, const uint8_t* p, F c) {
    asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(c.v) : "v"(a.v), "m"(*reinterpret_cast<const float*>(p)));
    return c;
}
QB_INLINE F mul_at(F a, const uint8_t* p) {
    F product;
    asm("vmulps %2%{1to16%}, %1, %0" : "=v"(product.v) : "v"(a.v), "m"(*reinterpret_cast<const float*>(p)));
    return product;
}
QB_INLINE I dot4_nibbles(I acc, Bytes u4, I s8) { return dot4(acc, u4, s8); }

QB_INLINE I dot4_narrow(I acc, Bytes u6, I s8) { return dot4_nibbles(acc, u6, s8); }  // for u8 <= 63
QB_INLINE I dot4_wide(I acc, Bytes u8, I s8) { return dot4(acc, u8, s8); }
// `low`, of At bits, with two or one bits of each byte of `high` on top: bits `shift` and up, as far as `mask` goes.
template <int At> QB_INLINE Bytes join_bits(Bytes low, Bytes high, int shift, int mask) {
    typedef uint32_t Words __attribute__((vector_size(64)));
    const __m512i wanted =
        _mm512_and_si512((__m512i)((Words)high.v >> shift), _mm512_set1_epi8(static_cast<char>(mask)));
    return {_mm512_or_si512(low.v, _mm512_slli_epi32(wanted, At))};
}
// Each byte, of 0 to 15, names one of 16.
QB_INLINE Bytes choose_bytes(const uint8_t* table, Bytes x) {
    const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), x.v)};
}
QB_INLINE I mul_i(I a, I b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
QB_INLINE I load_u8(const uint8_t* p) {
    return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
QB_INLINE I load_s8(const uint8_t* p) {
    return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}

struct Book {
    __m512 v;
};  // 16 floats to look up
QB_INLINE Book load_book(const float* p) { return {_mm512_loadu_ps(p)}; }
// Each lane's word names an entry with its lowest 4 bits.
QB_INLINE F look_up(Book book, Bytes words) { return {_mm512_permutexvar_ps(words.v, book.v)}; }
QB_INLINE Bytes next_nibbles(Bytes words) { return {_mm512_srli_epi32(words.v, 4)}; }

QB_INLINE F load_half(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
// 16 floats of a sign, 4 bits of exponent and 3 of fraction, each times 2^-8: so they are float16 once moved.
QB_INLINE F load_e4m3(const uint8_t* p) {
    const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i bits = _mm256_set1_epi16(static_cast<short>(0xbf80));
    return {_mm512_cvtph_ps(_mm256_and_si256(_mm256_slli_epi16(wide, 7), bits))};
}
QB_INLINE F round_bf16(F x) {  // nearest even, a NaN stays one
    const __m512i bits = _mm512_castps_si512(x.v), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    const __m512i near = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q);
    const __m512i all = _mm512_mask_or_epi32(near, nan, bits, _mm512_set1_epi32(0x400000));
    return {_mm512_castsi512_ps(_mm512_and_si512(all, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
#ifdef QB_BF16_DOTS
QB_INLINE void store_bf16(uint16_t* p, F x) {  // nearest even; denormals become 0
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(x.v));
}
// acc[lane] += both products of two bf16 with two others.
QB_INLINE F dot2_bf16(F acc, Bytes a, Bytes b) { return {_mm512_dpbf16_ps(acc.v, (__m512bh)a.v, (__m512bh)b.v)}; }
#else
QB_INLINE void store_bf16(uint16_t* p, F x) {
    const __m512i upper = _mm512_srli_epi32(_mm512_castps_si512(round_bf16(x).v), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(upper));
}
#endif
// Of 16 x 2 bf16 the first and the second of each two.
QB_INLINE F even_bf16(Bytes x) { return {_mm512_castsi512_ps(_mm512_slli_epi32(x.v, 16))}; }
QB_INLINE F odd_bf16(Bytes x) {
    return {_mm512_castsi512_ps(_mm512_and_si512(x.v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
// 128 + u as bf16, of bytes 0 and 2, and of 1 and 3, of each lane; exact for u < 128.
QB_INLINE Bytes even_bytes(Bytes u7) {
    return {_mm512_ternarylogic_epi32(u7.v, _mm512_set1_epi16(0x00ff), _mm512_set1_epi16(0x4300), 0xea)};
}
QB_INLINE Bytes odd_bytes(Bytes u7) { return {_mm512_or_si512(_mm512_srli_epi16(u7.v, 8), _mm512_set1_epi16(0x4300))}; }

QB_INLINE void fetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

}  // namespace qb::QB_ISA
