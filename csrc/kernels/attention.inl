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
};

// Scores and weights of all rows of a chunk.
struct alignas(64) AttendScratch {
    float scores[kAttendRows][kChunk];
    uint8_t weights[kAttendRows][kChunk * 4];  // rounded to the element type
};

static size_t attend_scratch_bytes() { return sizeof(AttendScratch); }

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

// Scores of M rows against 16 tokens of each of B blocks: B parallel streams.
template <class Kv, int M, int B> QB_INLINE void score_tile(const ChunkArgs& a, AttendScratch& s, int row, int group) {
    const size_t pairs = static_cast<size_t>(a.head_dim) / 2, row_bytes = a.head_dim * Kv::kOperandBytes;
    const uint8_t* q = static_cast<const uint8_t*>(a.queries) + row * row_bytes;
    const size_t start = group * pairs * Kv::kUnitBytes;
    const uint8_t* keys[B];
    for (int b = 0; b < B; b++) keys[b] = a.keys[b] + start;
    F acc[M][B];
    for (int m = 0; m < M; m++)
        for (int b = 0; b < B; b++) acc[m][b] = set(0.0f);
    for (size_t d = 0; d < pairs; d++)
#pragma GCC unroll 4
        for (int b = 0; b < B; b++) {
            const uint8_t* unit = keys[b] + d * Kv::kUnitBytes;
            if (row == 0) fetch_unit<Kv>(unit + segment_bytes<Kv>(a.head_dim));
#pragma GCC unroll 6
            for (int m = 0; m < M; m++)
                acc[m][b] = Kv::multiply(acc[m][b], unit, q + m * row_bytes + d * 2 * Kv::kOperandBytes);
        }
    for (int m = 0; m < M; m++)
        for (int b = 0; b < B; b++) store(&s.scores[row + m][b * kBlock + group * 16], acc[m][b]);
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
    F top = load(scores);
    for (int v = 1; v < vectors; v++) top = max(top, load(scores + v * 16));
    return highest(top);
}

// One row, which sees keys begin .. visible - 1: scores to rounded weights, their max and sum. Vectors at and beyond
// `vectors` are not read afterwards.
template <class Kv>
QB_INLINE void softmax_row(float* scores, uint8_t* weights, int begin, int visible, int vectors, float scale_log2,
                           float* max_out, float* sum_out) {
    const float largest = mask_row(scores, begin, visible, vectors);
    const F scale = set(scale_log2), shift = set(-largest * scale_log2);
    F total = set(0.0f);
    for (int v = 0; v < vectors; v += 2) {
        uint8_t* w = weights + v * 16 * Kv::kOperandBytes;
        Kv::operands(exp2(fma(load(scores + v * 16), scale, shift)), w);
        Kv::operands(exp2(fma(load(scores + v * 16 + 16), scale, shift)), w + 16 * Kv::kOperandBytes);
        total = Kv::accumulate(total, w);
    }
    *max_out = largest;
    *sum_out = sum(total);
}

// Weighted values of M rows over V vectors of 16 dimensions of one 64-wide stretch, B blocks in parallel streams.
template <class Kv, int M, int V, int B>
QB_INLINE void value_tile(const ChunkArgs& a, const AttendScratch& s, int row, int stretch) {
    const size_t before = static_cast<size_t>(stretch) * 32 * 4 * Kv::kUnitBytes;
    const size_t start = segment_bytes<Kv>(a.head_dim) + before;
    const uint8_t* values[B];
    for (int b = 0; b < B; b++) values[b] = a.keys[b] + start;
    F acc[M][V];
    for (int m = 0; m < M; m++)
        for (int v = 0; v < V; v++) acc[m][v] = set(0.0f);
    for (int t = 0; t < kBlock / 2; t++)
#pragma GCC unroll 4
        for (int b = 0; b < B; b++) {
            const size_t at = static_cast<size_t>(t) * V * Kv::kUnitBytes;
            const uint8_t* unit = values[b] + at;
            if (row == 0)
                for (int v = 0; v < V; v++) fetch_unit<Kv>(a.ahead[b] + before + at + v * Kv::kUnitBytes);
#pragma GCC unroll 4
            for (int v = 0; v < V; v++)
#pragma GCC unroll 6
                for (int m = 0; m < M; m++)
                    acc[m][v] = Kv::multiply(acc[m][v], unit + v * Kv::kUnitBytes,
                                             s.weights[row + m] + (b * kBlock + 2 * t) * Kv::kOperandBytes);
        }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < V; v++)
            store(a.out + static_cast<size_t>(row + m) * a.value_dim + stretch * 64 + v * 16, acc[m][v]);
}

template <class Kv, int M, int B>
__attribute__((noinline)) void score_rows(const ChunkArgs& a, AttendScratch& s, int row) {
    for (int group = 0; group < 4; group++) score_tile<Kv, M, B>(a, s, row, group);
}

template <class Kv, int M, int B>
__attribute__((noinline)) void value_rows(const ChunkArgs& a, AttendScratch& s, int row) {
    int stretch = 0;
    for (; (stretch + 1) * 64 <= a.value_dim; stretch++) value_tile<Kv, M, 4, B>(a, s, row, stretch);
    switch ((a.value_dim - stretch * 64) / 16) {
        case 3: value_tile<Kv, M, 3, B>(a, s, row, stretch); break;
        case 2: value_tile<Kv, M, 2, B>(a, s, row, stretch); break;
        case 1: value_tile<Kv, M, 1, B>(a, s, row, stretch); break;
        default: break;
    }
}

// Rows in tiles of the sizes in kRowTiles, largest first.
template <class Kv, int B, bool Values, int Size = 0>
QB_INLINE void all_rows(const ChunkArgs& a, AttendScratch& s, int row) {
    constexpr int M = kRowTiles[Size];
    for (; row + M <= a.rows; row += M) {
        if constexpr (Values)
            value_rows<Kv, M, B>(a, s, row);
        else
            score_rows<Kv, M, B>(a, s, row);
    }
    if constexpr (Size + 1 < static_cast<int>(sizeof kRowTiles / sizeof *kRowTiles))
        all_rows<Kv, B, Values, Size + 1>(a, s, row);
}

template <class Kv, int B> static void attend_blocks(const ChunkArgs& a) {
    AttendScratch& s = *static_cast<AttendScratch*>(a.scratch);
    all_rows<Kv, B, false>(a, s, 0);
    for (int row = 0; row < a.rows; row++) {
        const int visible = a.visible[row] < B * kBlock ? a.visible[row] : B * kBlock;
        const int begin = a.first ? a.first[row] : 0;
        if (visible > begin && visible > 0) {
            if (a.softcap > 0 || a.slopes) bend_scores(a, s.scores[row], row, B * 4);
            softmax_row<Kv>(s.scores[row], s.weights[row], begin, visible, B * 4, a.scale_log2, a.max + row,
                            a.sum + row);
        } else
            __builtin_memset(s.weights[row], 0, B * kBlock * Kv::kOperandBytes);
    }
    all_rows<Kv, B, true>(a, s, 0);
}

template <class Kv> static void attend_chunk(const ChunkArgs& a) {
    switch (a.blocks) {
        case 1: attend_blocks<Kv, 1>(a); break;
        case 2: attend_blocks<Kv, 2>(a); break;
        case 3: attend_blocks<Kv, 3>(a); break;
        default: attend_blocks<Kv, 4>(a); break;
    }
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
