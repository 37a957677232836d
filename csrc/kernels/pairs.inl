// Pairs of bf16: what linears on bf16 and attention multiply. Of weights, keys and values 16 pairs lie in 64 bytes;
// what they are multiplied by is one pair in every lane. Where there is no fast instruction for that, it is held as two
// floats, which is exact, so that only the 16 pairs are taken apart, once for many rows.

#ifdef QB_BF16_DOTS

using Pairs = Bytes;
using Pair = Bytes;
constexpr size_t kPairBytes = 4;

QB_INLINE Pairs pairs_of(Bytes bf16) { return bf16; }
QB_INLINE Pair broadcast_pair(const uint8_t* p) { return {broadcast4(p).v}; }
QB_INLINE F dot2(F acc, Pairs a, Pair b) { return dot2_bf16(acc, a, b); }
// With the pair at `p`.
QB_INLINE F dot2_at(F acc, Pairs a, const uint8_t* p) { return dot2(acc, a, broadcast_pair(p)); }
// 16 floats, rounded, as 8 pairs to broadcast.
QB_INLINE void store_pairs(uint8_t* p, F x) { store_bf16(reinterpret_cast<uint16_t*>(p), x); }
// Adds 16 such pairs in 16 lanes.
QB_INLINE F add_pairs(F acc, const uint8_t* p) {
    const uint32_t ones = 0x3f803f80;
    return dot2_bf16(acc, load_bytes(p), {broadcast4(&ones).v});
}

#else

struct Pairs {
    F even, odd;
};
using Pair = Pairs;
constexpr size_t kPairBytes = 8;

QB_INLINE Pairs pairs_of(Bytes bf16) { return {even_bf16(bf16), odd_bf16(bf16)}; }
QB_INLINE Pair broadcast_pair(const uint8_t* p) {
    const float* pair = reinterpret_cast<const float*>(p);
    return {set(pair[0]), set(pair[1])};
}
QB_INLINE F dot2(F acc, Pairs a, Pair b) { return fma(a.odd, b.odd, fma(a.even, b.even, acc)); }
QB_INLINE F dot2_at(F acc, Pairs a, const uint8_t* p) { return fma_at(a.odd, p + 4, fma_at(a.even, p, acc)); }
QB_INLINE void store_pairs(uint8_t* p, F x) { store(reinterpret_cast<float*>(p), round_bf16(x)); }
QB_INLINE F add_pairs(F acc, const uint8_t* p) {
    const float* x = reinterpret_cast<const float*>(p);
    return add(add(acc, load(x)), load(x + kLanes));
}

#endif

QB_INLINE Pairs load_pairs(const uint8_t* p) { return pairs_of(load_bytes(p)); }
