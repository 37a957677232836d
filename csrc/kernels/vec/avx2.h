// 16 lanes on AVX2 with FMA and F16C: two registers each.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define QB_INLINE static inline __attribute__((always_inline))

namespace qb::avx2 {

constexpr int kRowTiles[] = {1};  // 16 registers hold 1 x 4 accumulators of two registers each
constexpr bool kExpands = false;

struct F {
    __m256 a, b;
};
struct I {
    __m256i a, b;
};
struct Bytes {
    __m256i a, b;
};

QB_INLINE __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

QB_INLINE F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
QB_INLINE void store(float* p, F x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
QB_INLINE F set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
QB_INLINE F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
QB_INLINE F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
QB_INLINE F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
QB_INLINE F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
QB_INLINE F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
QB_INLINE F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
QB_INLINE F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
QB_INLINE F abs(F x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
QB_INLINE __m256 copy_sign_half(__m256 magnitude, __m256 sign) {
    const __m256 bit = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(bit, magnitude), _mm256_and_ps(bit, sign));
}
QB_INLINE F copy_sign(F magnitude, F sign) {
    return {copy_sign_half(magnitude.a, sign.a), copy_sign_half(magnitude.b, sign.b)};
}
QB_INLINE F round_even(F x) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, nearest), _mm256_round_ps(x.b, nearest)};
}
// p * 2^n for p in [0.5, 2] and whole n; below 2^-126 exactly 0, above 2^127 infinite.
QB_INLINE __m256 scale2_half(__m256 p, __m256 n) {
    __m256 small = _mm256_cmp_ps(n, _mm256_set1_ps(-126.0f), _CMP_LT_OQ);
    __m256 large = _mm256_cmp_ps(n, _mm256_set1_ps(127.0f), _CMP_GT_OQ);
    __m256 clamped = _mm256_min_ps(_mm256_max_ps(n, _mm256_set1_ps(-126.0f)), _mm256_set1_ps(127.0f));
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(clamped), _mm256_set1_epi32(127)), 23);
    __m256 y = _mm256_andnot_ps(small, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
    return _mm256_blendv_ps(y, _mm256_set1_ps(__builtin_inff()), large);
}
QB_INLINE F scale2(F p, F n) { return {scale2_half(p.a, n.a), scale2_half(p.b, n.b)}; }
// The first n lanes of x, `otherwise` in the rest; 0 <= n <= 16.
QB_INLINE F first(F x, int n, float otherwise) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 fill = _mm256_set1_ps(otherwise);
    __m256 keep_a = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes));
    __m256 keep_b = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lanes));
    return {_mm256_blendv_ps(fill, x.a, keep_a), _mm256_blendv_ps(fill, x.b, keep_b)};
}
// The lanes of x from n on, `otherwise` in the first n; 0 <= n <= 16.
QB_INLINE F after(F x, int n, float otherwise) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 fill = _mm256_set1_ps(otherwise);
    __m256 fill_a = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes));
    __m256 fill_b = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lanes));
    return {_mm256_blendv_ps(x.a, fill, fill_a), _mm256_blendv_ps(x.b, fill, fill_b)};
}
QB_INLINE unsigned at_least_mask(F x, F y) {
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ))) |
           static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ))) << 8;
}
QB_INLINE unsigned nan_mask(F x) {
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q))) |
           static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q))) << 8;
}
// `value` where x >= y, 0 elsewhere.
QB_INLINE F keep(F x, F y, F value) {
    return {_mm256_and_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ), value.a),
            _mm256_and_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ), value.b)};
}
// The lanes of x that are set in mask, `otherwise` elsewhere.
QB_INLINE F select(unsigned mask, F x, float otherwise) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), high = _mm256_slli_epi32(bits, 8);
    const __m256i word = _mm256_set1_epi32(static_cast<int>(mask));
    const __m256 fill = _mm256_set1_ps(otherwise);
    const __m256i a = _mm256_cmpeq_epi32(_mm256_and_si256(word, bits), bits);
    const __m256i b = _mm256_cmpeq_epi32(_mm256_and_si256(word, high), high);
    return {_mm256_blendv_ps(fill, x.a, _mm256_castsi256_ps(a)), _mm256_blendv_ps(fill, x.b, _mm256_castsi256_ps(b))};
}
// Writes base + i for each lane i that is set in mask, ascending, and returns how many; `out` has room for 16.
QB_INLINE size_t put_indices(int32_t* out, int32_t base, unsigned mask) {
    size_t count = 0;
    for (; mask; mask &= mask - 1) out[count++] = base + __builtin_ctz(mask);
    return count;
}

QB_INLINE float sum(F x) {  // fixed tree: 16 -> 8 -> 4 -> 2 -> 1
    __m256 a = _mm256_add_ps(x.a, x.b);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
QB_INLINE float highest(F x) {
    __m256 a = _mm256_max_ps(x.a, x.b);
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
// Of four vectors the largest lane of each.
QB_INLINE void highest_of(const F (&x)[4], float* out) {
    for (int i = 0; i < 4; i++) out[i] = highest(x[i]);
}

QB_INLINE I zero_i() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
QB_INLINE I add_i(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
QB_INLINE I sub_i(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
template <int N> QB_INLINE I shift_left(I x) { return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)}; }
template <int N> QB_INLINE I shift_right(I x) { return {_mm256_srai_epi32(x.a, N), _mm256_srai_epi32(x.b, N)}; }
QB_INLINE I broadcast4(const void* p) {  // 4 bytes into every lane
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return {_mm256_set1_epi32(word), _mm256_set1_epi32(word)};
}
QB_INLINE I load_i(const void* p) { return {load256(p), load256(static_cast<const char*>(p) + 32)}; }
QB_INLINE F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
QB_INLINE I to_int(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }  // nearest, ties to even
QB_INLINE int32_t sum_i(I x) {
    __m256i a = _mm256_add_epi32(x.a, x.b);
    __m128i b = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    b = _mm_add_epi32(b, _mm_shuffle_epi32(b, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(b, _mm_shuffle_epi32(b, 0xb1)));
}
QB_INLINE void store_int8(int8_t* p, I x) {
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
    __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}
// Of lanes from 0 to 255.
QB_INLINE void store_uint8(uint8_t* p, I x) {
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
    __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

QB_INLINE Bytes load_bytes(const uint8_t* p) { return {load256(p), load256(p + 32)}; }
QB_INLINE void store_bytes(uint8_t* p, Bytes x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), x.b);
}
// The lowest byte of each lane: word 4u + r has those of lanes 4u .. 4u + 3 of rows[r], which are -128 to 127.
QB_INLINE Bytes pack_rows(const I (&rows)[4]) {
    return {_mm256_packs_epi16(_mm256_packs_epi32(rows[0].a, rows[1].a), _mm256_packs_epi32(rows[2].a, rows[3].a)),
            _mm256_packs_epi16(_mm256_packs_epi32(rows[0].b, rows[1].b), _mm256_packs_epi32(rows[2].b, rows[3].b))};
}
// sums[r] = lanes r, 4 + r, 8 + r and 12 + r.
QB_INLINE void sum_rows(I x, int32_t* sums) {
    const __m256i a = _mm256_add_epi32(x.a, x.b);
    const __m128i b = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums), b);
}
QB_INLINE Bytes broadcast_bytes(const void* p) {  // 4 bytes into every lane
    I x = broadcast4(p);
    return {x.a, x.b};
}
QB_INLINE Bytes low_nibbles(Bytes x) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
QB_INLINE Bytes high_nibbles(Bytes x) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(_mm256_srli_epi16(x.a, 4), mask), _mm256_and_si256(_mm256_srli_epi16(x.b, 4), mask)};
}
// Those where they are, at 16 times their value; and whether dots with them cost no more than with smaller ones.
constexpr bool kDotsUpper = false;
QB_INLINE Bytes upper_nibbles(Bytes x) {
    const __m256i mask = _mm256_set1_epi8(static_cast<char>(0xf0));
    return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
// acc[lane] += sum over 4 of u8 * s8. maddubs would saturate, so even and odd bytes are widened: exact for every value.
QB_INLINE __m256i dot4_half(__m256i acc, __m256i u8, __m256i s8) {
    __m256i u_even = _mm256_and_si256(u8, _mm256_set1_epi16(0xff)), u_odd = _mm256_srli_epi16(u8, 8);
    __m256i s_even = _mm256_srai_epi16(_mm256_slli_epi16(s8, 8), 8), s_odd = _mm256_srai_epi16(s8, 8);
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(u_even, s_even));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(u_odd, s_odd));
}
QB_INLINE I dot4(I acc, Bytes u8, I s8) { return {dot4_half(acc.a, u8.a, s8.a), dot4_half(acc.b, u8.b, s8.b)}; }
// The same for u8 <= 63: 2 * 63 * 128 fits 16 bits, so maddubs is exact.
QB_INLINE __m256i dot4_nibbles_half(__m256i acc, __m256i u4, __m256i s8) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u4, s8), _mm256_set1_epi16(1)));
}
QB_INLINE I dot4_nibbles(I acc, Bytes u4, I s8) {
    return {dot4_nibbles_half(acc.a, u4.a, s8.a), dot4_nibbles_half(acc.b, u4.b, s8.b)};
}

QB_INLINE I dot4_narrow(I acc, Bytes u6, I s8) { return dot4_nibbles(acc, u6, s8); }  // for u8 <= 63
QB_INLINE I dot4_wide(I acc, Bytes u8, I s8) { return dot4(acc, u8, s8); }
// dot4, fma and mul with the 4 bytes, or the float, at `p` in every lane.
QB_INLINE I dot4_at(I acc, Bytes u8, const uint8_t* p) { return dot4(acc, u8, broadcast4(p)); }
QB_INLINE F fma_at(F a, const uint8_t* p, F c) { return fma(a, set(*reinterpret_cast<const float*>(p)), c); }
QB_INLINE F mul_at(F a, const uint8_t* p) { return mul(a, set(*reinterpret_cast<const float*>(p))); }
// `low`, of At bits, with two or one bits of each byte of `high` on top: bits `shift` and up, as far as `mask` goes.
template <int At> QB_INLINE __m256i join_bits_half(__m256i low, __m256i high, int shift, int mask) {
    const __m256i wanted = _mm256_and_si256(_mm256_srli_epi32(high, shift), _mm256_set1_epi8(static_cast<char>(mask)));
    return _mm256_or_si256(low, _mm256_slli_epi32(wanted, At));
}
template <int At> QB_INLINE Bytes join_bits(Bytes low, Bytes high, int shift, int mask) {
    return {join_bits_half<At>(low.a, high.a, shift, mask), join_bits_half<At>(low.b, high.b, shift, mask)};
}
// Each byte, of 0 to 15, names one of 16.
QB_INLINE Bytes choose_bytes(const uint8_t* table, Bytes x) {
    const __m256i entries = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    return {_mm256_shuffle_epi8(entries, x.a), _mm256_shuffle_epi8(entries, x.b)};
}
QB_INLINE I mul_i(I x, I y) { return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)}; }
QB_INLINE __m128i load_8(const uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }
QB_INLINE I load_u8(const uint8_t* p) { return {_mm256_cvtepu8_epi32(load_8(p)), _mm256_cvtepu8_epi32(load_8(p + 8))}; }
QB_INLINE I load_s8(const uint8_t* p) { return {_mm256_cvtepi8_epi32(load_8(p)), _mm256_cvtepi8_epi32(load_8(p + 8))}; }

struct Book {
    __m256 low, high;
};  // 16 floats to look up
QB_INLINE Book load_book(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
QB_INLINE __m256 look_up_half(Book book, __m256i words) {
    const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(words, 28));  // bit 3 as the sign, which chooses
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(book.low, words), _mm256_permutevar8x32_ps(book.high, words),
                            upper);
}
// Each lane's word names an entry with its lowest 4 bits.
QB_INLINE F look_up(Book book, Bytes words) { return {look_up_half(book, words.a), look_up_half(book, words.b)}; }
QB_INLINE Bytes next_nibbles(Bytes words) { return {_mm256_srli_epi32(words.a, 4), _mm256_srli_epi32(words.b, 4)}; }

QB_INLINE F load_half(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
// 16 floats of a sign, 4 bits of exponent and 3 of fraction, each times 2^-8: so they are float16 once moved.
QB_INLINE __m256 load_e4m3_half(const uint8_t* p) {
    const __m128i wide = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    return _mm256_cvtph_ps(_mm_and_si128(_mm_slli_epi16(wide, 7), _mm_set1_epi16(static_cast<short>(0xbf80))));
}
QB_INLINE F load_e4m3(const uint8_t* p) { return {load_e4m3_half(p), load_e4m3_half(p + 8)}; }
QB_INLINE __m256 odd_bf16_half(__m256i x) {
    return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
QB_INLINE __m256 round_bf16_half(__m256 x) {  // nearest even, a NaN stays one
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i near = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return odd_bf16_half(_mm256_blendv_epi8(near, _mm256_or_si256(bits, _mm256_set1_epi32(0x400000)), nan));
}
QB_INLINE F round_bf16(F x) { return {round_bf16_half(x.a), round_bf16_half(x.b)}; }
QB_INLINE void store_bf16(uint16_t* p, F x) {
    const F near = round_bf16(x);
    const __m256i a = _mm256_srli_epi32(_mm256_castps_si256(near.a), 16);
    const __m256i b = _mm256_srli_epi32(_mm256_castps_si256(near.b), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8));
}
// Of 16 x 2 bf16 the first and the second of each two.
QB_INLINE F even_bf16(Bytes x) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(x.a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(x.b, 16))};
}
QB_INLINE F odd_bf16(Bytes x) { return {odd_bf16_half(x.a), odd_bf16_half(x.b)}; }
// 128 + u as bf16, of bytes 0 and 2, and of 1 and 3, of each lane; exact for u < 128.
QB_INLINE Bytes even_bytes(Bytes u7) {
    const __m256i lower = _mm256_set1_epi16(0x00ff), base = _mm256_set1_epi16(0x4300);
    return {_mm256_or_si256(_mm256_and_si256(u7.a, lower), base), _mm256_or_si256(_mm256_and_si256(u7.b, lower), base)};
}
QB_INLINE Bytes odd_bytes(Bytes u7) {
    const __m256i base = _mm256_set1_epi16(0x4300);
    return {_mm256_or_si256(_mm256_srli_epi16(u7.a, 8), base), _mm256_or_si256(_mm256_srli_epi16(u7.b, 8), base)};
}

QB_INLINE void fetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

}  // namespace qb::avx2
