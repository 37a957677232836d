// Attention: one arithmetic for a decoded token, a verified guess and a prompt of any length.
//
// A block holds 64 tokens of one kv head: a K segment, then a V segment, both of units of 16 lanes x 2 values
// (bf16: [16][2], f32: [2][16]):
//   K  [4 groups of 16 tokens][head_dim / 2]   unit = 16 tokens x 2 dimensions
//   V  [value_dim / 64][32 token pairs][4]     unit = 16 dimensions x 2 tokens (the last stretch may be narrower than
//   4)
//
// For one query row and one chunk of 256 keys anchored at absolute position 0:
//   1. score: one chain over dimension pairs, starting at +0; then a soft cap and a slope, where there are
//   2. keys that the row does not see: -1e30
//   3. max over the chunk alone; p = exp2((score - max) * scale * log2 e), rounded to the element type; masked p is 0
//   4. sum: chain over the rounded p, vectors 0..15 in order, then a fixed tree
//   5. out: one chain over token pairs t = 0..31, inside it blocks 0..3
// and chunks are merged in ascending order (merge). Rows never mix, so tiles of any number of rows give the same bits;
// blocks and keys beyond a row's limit contribute exact zeros, and a chunk that a row does not see is not merged.

constexpr float kMasked = -1e30f;  // finite: -inf minus -inf would be a NaN

struct Bf16Kv {
    static constexpr size_t kUnitBytes = 64, kValueBytes = 2;
    static constexpr size_t kOperandBytes = kPairBytes / 2;  // of a query's value or a weight
    QB_INLINE F multiply(F acc, const uint8_t* unit, const uint8_t* pair) {
        return dot2(acc, load_pairs(unit), broadcast_pair(pair));
    }
    QB_INLINE void round(F x, uint8_t* out) { store_bf16(reinterpret_cast<uint16_t*>(out), x); }
    QB_INLINE void operands(F x, uint8_t* out) { store_pairs(out, x); }
    QB_INLINE F accumulate(F acc, const uint8_t* two_vectors) { return add_pairs(acc, two_vectors); }
    QB_INLINE void put(uint8_t* unit, int lane, int which, const uint8_t* value) {
        __builtin_memcpy(unit + (lane * 2 + which) * 2, value, 2);
    }
    static constexpr bool kExpanded = kExpands && kOperandBytes == 4;  // for many rows (attention_many.inl)
    QB_INLINE void expand(const uint8_t* unit, float* out) {
        const Bytes x = load_bytes(unit);
        store(out, even_bf16(x)), store(out + 16, odd_bf16(x));
    }
};

struct F32Kv {
    static constexpr size_t kUnitBytes = 128, kValueBytes = 4, kOperandBytes = 4;
    QB_INLINE F multiply(F acc, const uint8_t* unit, const uint8_t* pair) {
        const float* x = reinterpret_cast<const float*>(unit);
        const float* y = reinterpret_cast<const float*>(pair);
        return fma(load(x + 16), set(y[1]), fma(load(x), set(y[0]), acc));
    }
    QB_INLINE void round(F x, uint8_t* out) { store(reinterpret_cast<float*>(out), x); }
    QB_INLINE void operands(F x, uint8_t* out) { round(x, out); }
    QB_INLINE F accumulate(F acc, const uint8_t* two_vectors) {  // adds 32 values in 16 lanes
        const float* x = reinterpret_cast<const float*>(two_vectors);
        return add(add(acc, load(x)), load(x + 16));
    }
    QB_INLINE void put(uint8_t* unit, int lane, int which, const uint8_t* value) {
        __builtin_memcpy(unit + (which * 16 + lane) * 4, value, 4);
    }
    static constexpr bool kExpanded = kExpands;
    QB_INLINE void expand(const uint8_t* unit, float* out) {
        const float* x = reinterpret_cast<const float*>(unit);
        store(out, load(x)), store(out + 16, load(x + 16));
    }
};

// A unit as F32Kv has it, and how many pairs of dimensions or tokens are expanded at a time, 4 units each: 32 kB.
constexpr size_t kUnitFloats = 2 * kLanes, kExpandedPairs = 64;

struct alignas(64) AttendScratch {
    float rows[kAttendRows][kChunk];  // scores; then weights in their place, as operands
    float units[kExpandedPairs * 4 * kUnitFloats];
};

template <class Kv> constexpr size_t segment_bytes(int head_dim) { return size_t{kBlock} * head_dim * Kv::kValueBytes; }

// Keys and values come from memory in runs too short for the hardware to foresee: while keys are read, the values at
// the same place of their blocks are fetched, and while values are read, the next chunk's keys.
template <class Kv> QB_INLINE void fetch_unit(const uint8_t* unit) {
    for (size_t line = 0; line < Kv::kUnitBytes; line += 64) fetch(unit + line);
}

template <class Kv> static void narrow(const float* x, size_t n, void* out) {
    for (size_t i = 0; i < n; i += kLanes)
        Kv::operands(load(x + i), static_cast<uint8_t*>(out) + i * Kv::kOperandBytes);
}

// One token's key and value into its slot (0..63) of a block.
template <class Kv>
static void store_kv(uint8_t* keys, int slot, int head_dim, int value_dim, const float* k, const float* v) {
    uint8_t* values = keys + segment_bytes<Kv>(head_dim);
    alignas(64) uint8_t rounded[kLanes * 4];
    for (int d = 0; d < head_dim; d += kLanes) {
        Kv::round(load(k + d), rounded);
        for (int i = 0; i < kLanes; i++) {
            const size_t unit = static_cast<size_t>(slot / 16) * (head_dim / 2) + (d + i) / 2;
            Kv::put(keys + unit * Kv::kUnitBytes, slot % 16, i & 1, rounded + i * Kv::kValueBytes);
        }
    }
    for (int d = 0; d < value_dim; d += kLanes) {
        Kv::round(load(v + d), rounded);
        const int stretch = d / 64, wide = value_dim - stretch * 64 < 64 ? (value_dim - stretch * 64) / 16 : 4;
        const size_t unit = static_cast<size_t>(stretch) * 32 * 4 + static_cast<size_t>(slot / 2) * wide + d % 64 / 16;
        for (int i = 0; i < kLanes; i++)
            Kv::put(values + unit * Kv::kUnitBytes, i, slot & 1, rounded + i * Kv::kValueBytes);
    }
}

// What some models make of a row's scores before their softmax.
static __attribute__((noinline)) void bend_scores(const ChunkArgs& a, float* scores, int row, int vectors) {
    if (a.softcap > 0)
        for (int v = 0; v < vectors; v++) store(scores + v * 16, tanh(mul(load(scores + v * 16), set(a.softcap))));
    if (!a.slopes) return;
    alignas(64) static const float lanes[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const F slope = set(a.slopes[row]), scale = set(a.slope_scale);
    for (int v = 0; v < vectors; v++) {
        const F distance = add(set(static_cast<float>(v * 16 + 1 - a.visible[row])), load(lanes));  // exact
        store(scores + v * 16, fma(load(scores + v * 16), scale, mul(slope, distance)));
    }
}

// One row's scores, which sees keys begin .. visible - 1: the others become kMasked. Returns the largest.
QB_INLINE float mask_row(float* scores, int begin, int visible, int vectors) {
    for (int v = 0; v * 16 < begin; v++) {
        const int n = begin - v * 16;
        store(scores + v * 16, after(load(scores + v * 16), n < 16 ? n : 16, kMasked));
    }
    for (int v = visible / 16; v < vectors; v++) {
        const int n = visible - v * 16;
        store(scores + v * 16, first(load(scores + v * 16), n < 0 ? 0 : n, kMasked));
    }
    F tops[4];  // `vectors` is a multiple of 4
    for (int i = 0; i < 4; i++) tops[i] = load(scores + i * 16);
    for (int v = 4; v < vectors; v += 4)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) tops[i] = max(tops[i], load(scores + (v + i) * 16));
    return highest(max(max(tops[0], tops[1]), max(tops[2], tops[3])));
}

// One row's scores, of which `largest` is the largest, to rounded weights in their place. Returns their sum.
template <class Kv> QB_INLINE float weigh_row(float* scores, float largest, int vectors, float scale_log2) {
    const F scale = set(scale_log2), shift = set(-largest * scale_log2);
    F total = set(0.0f);
    for (int v = 0; v < vectors; v += 2) {
        const F p = exp2(fma(load(scores + v * 16), scale, shift)),
                q = exp2(fma(load(scores + v * 16 + 16), scale, shift));
        uint8_t* weights = reinterpret_cast<uint8_t*>(scores) + v * 16 * Kv::kOperandBytes;
        Kv::operands(p, weights);
        Kv::operands(q, weights + 16 * Kv::kOperandBytes);
        total = Kv::accumulate(total, weights);
    }
    return sum(total);
}

// Scores of all rows to weights, with their maxima and sums. Rows wait for their maxima: so those come first, of all.
template <class Kv> static void softmax_rows(const ChunkArgs& a, AttendScratch& s) {
    const int keys = a.blocks * kBlock, vectors = keys / 16;
    const auto visible = [&](int row) { return a.visible[row] < keys ? a.visible[row] : keys; };
    const auto begin = [&](int row) { return a.first ? a.first[row] : 0; };
    const auto sees = [&](int row) { return visible(row) > begin(row) && visible(row) > 0; };
    for (int row = 0; row < a.rows; row++) {
        if (!sees(row)) continue;
        if (a.softcap > 0 || a.slopes) bend_scores(a, s.rows[row], row, vectors);
        a.max[row] = mask_row(s.rows[row], begin(row), visible(row), vectors);
    }
    for (int row = 0; row < a.rows; row++)
        if (sees(row))
            a.sum[row] = weigh_row<Kv>(s.rows[row], a.max[row], vectors, a.scale_log2);
        else
            __builtin_memset(s.rows[row], 0, keys * Kv::kOperandBytes);
}

static void merge(float* running_max, float* running_sum, float* out, float chunk_max, float chunk_sum,
                  const float* chunk_out, int value_dim, float scale_log2) {
    const float top = *running_max > chunk_max ? *running_max : chunk_max;
    const F old = exp2(set((*running_max - top) * scale_log2)), fresh = exp2(set((chunk_max - top) * scale_log2));
    alignas(64) float joined[kLanes];
    store(joined, fma(set(*running_sum), old, mul(set(chunk_sum), fresh)));
    *running_sum = joined[0];
    *running_max = top;
    // the inner + 0 makes -0 out of a chunk +0, whichever zeros the row's tile added
    for (int d = 0; d < value_dim; d += kLanes)
        store(out + d, fma(load(out + d), old, fma(load(chunk_out + d), fresh, set(0.0f))));
}

static void finish(const float* out, float total, int value_dim, float* result) {
    const F inverse = set(1.0f / total);
    for (int d = 0; d < value_dim; d += kLanes) store(result + d, mul(load(out + d), inverse));
}
