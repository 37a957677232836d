// Attention over keys and values that are stored as integers of 8 bits: half the memory, and half of what is read.
//
// A segment of a block begins with a float32 scale for each of its 64 tokens, the largest magnitude / 127. Then come
// units of 16 lanes x 4 bytes:
//   K  [4 groups of 16 tokens][head_dim / 4]   unit = 16 tokens x 4 dimensions, u8: 128 + k
//   V  [value_dim / 64][16 token quads][4]     unit = 16 dimensions x 4 tokens, s8 (the last stretch may be narrower)
// What multiplies them has 16 bits, in two planes of bytes: high * 256 + low.
//
// For one query row and one chunk of 256 keys, as in attention.inl but for:
//   1. score: the query as integers of +-32512, the exact sum of the products, times the scales of key and query
//   3. p = exp2((score - max) * scale * log2 e), in float32; masked p is 0
//   4. sum: the p, vectors 0..15 in order, then a fixed tree
//   5. out: p times the scale of its value, as integers of which the chunk's largest is 65535, the exact sum of the
//      products with the values, times what one is worth
// Sums of integers have no order. All roundings are of one key, one row, or one row and chunk.

constexpr float kLeastScale = 0x1p-100f;  // its inverse and products with p are no denormals: what is smaller is 0
constexpr size_t kScaleBytes = kBlock * sizeof(float), kUnit = 64;

// What one is worth where the largest magnitude is `most`; NaN of anything not finite, which as an integer would be
// lost.
QB_INLINE float scale_of(const float* x, int n, float most) {
    F top = set(kLeastScale * most), nothing = set(0.0f);
    for (int i = 0; i < n; i += kLanes) {
        top = max(abs(load(x + i)), top);
        nothing = fma(load(x + i), set(0.0f), nothing);
    }
    return highest(top) / most + sum(nothing);
}

static void store_kv_int8(uint8_t* keys, int slot, int head_dim, int value_dim, const float* k, const float* v) {
    uint8_t* values = keys + kv_segment_bytes(KvType::int8, static_cast<size_t>(head_dim));
    const float key_scale = scale_of(k, head_dim, 127.0f), value_scale = scale_of(v, value_dim, 127.0f);
    __builtin_memcpy(keys + slot * sizeof(float), &key_scale, sizeof(float));
    __builtin_memcpy(values + slot * sizeof(float), &value_scale, sizeof(float));
    keys += kScaleBytes, values += kScaleBytes;
    alignas(64) uint8_t rounded[kLanes];
    const I middle = to_int(set(128.0f));
    for (int d = 0; d < head_dim; d += kLanes) {
        store_uint8(rounded, add_i(to_int(div(load(k + d), set(key_scale))), middle));
        for (int i = 0; i < kLanes; i += 4) {
            const size_t unit = static_cast<size_t>(slot / 16) * (head_dim / 4) + (d + i) / 4;
            __builtin_memcpy(keys + unit * kUnit + slot % 16 * 4, rounded + i, 4);
        }
    }
    for (int d = 0; d < value_dim; d += kLanes) {
        store_int8(reinterpret_cast<int8_t*>(rounded), to_int(div(load(v + d), set(value_scale))));
        const int stretch = d / 64, wide = value_dim - stretch * 64 < 64 ? (value_dim - stretch * 64) / 16 : 4;
        const size_t unit = static_cast<size_t>(stretch) * 16 * 4 + static_cast<size_t>(slot / 4) * wide + d % 64 / 16;
        for (int i = 0; i < kLanes; i++) values[unit * kUnit + i * 4 + slot % 4] = rounded[i];
    }
}

// What follows a query's planes. Sums of its bytes times -128 make of 128 + k what k gives.
struct QueryTail {
    float scale;
    int32_t low, high, unused;
};

static void narrow_int8(const float* x, size_t n, void* out) {
    int8_t *low = static_cast<int8_t*>(out), *high = low + n;
    const float scale = scale_of(x, static_cast<int>(n), 32512.0f);  // 127 * 256: the high bytes are at most 127
    I lows = zero_i(), highs = zero_i();
    const I half = to_int(set(128.0f));
    for (size_t i = 0; i < n; i += kLanes) {
        const I v = to_int(div(load(x + i), set(scale))), h = shift_right<8>(add_i(v, half));
        const I l = sub_i(v, shift_left<8>(h));  // -128 .. 127
        store_int8(low + i, l), store_int8(high + i, h);
        lows = add_i(lows, l), highs = add_i(highs, h);
    }
    const QueryTail tail = {scale, -128 * sum_i(lows), -128 * sum_i(highs), 0};
    __builtin_memcpy(high + n, &tail, sizeof tail);
}

// Scores and weights of all rows of a chunk.
struct alignas(64) Int8Scratch {
    float scores[kAttendRows][kChunk];
    uint8_t low[kAttendRows][kChunk], high[kAttendRows][kChunk];
    float worth[kAttendRows];  // of a product of a weight's integer and a value's
};

static size_t attend_scratch_bytes() {
    return sizeof(Int8Scratch) > sizeof(AttendScratch) ? sizeof(Int8Scratch) : sizeof(AttendScratch);
}

// Of sums below 2^24, which are exact as floats.
QB_INLINE F join_planes(I high, I low) { return fma(to_float(high), set(256.0f), to_float(low)); }

// Two sums for each element of a tile: half as many rows as of others.
template <int M> struct Rows {
    static constexpr int count = M;
};
template <class Tile> QB_INLINE void in_tiles(int rows, Tile tile) {
    for (int row = 0; row < rows;) {
        if constexpr (kRowTiles[0] >= 6) {
            const int left = rows - row;
            if (left == 3 || left > 4) {
                tile(Rows<3>(), row), row += 3;
                continue;
            }
            if (left > 1) {
                tile(Rows<2>(), row), row += 2;
                continue;
            }
        }
        tile(Rows<1>(), row), row++;
    }
}

// Scores of all rows against 16 tokens of each of B blocks: B parallel streams.
template <int B> static __attribute__((noinline)) void score_group(const ChunkArgs& a, Int8Scratch& s, int group) {
    const size_t dims = static_cast<size_t>(a.head_dim), row_bytes = query_bytes(KvType::int8, dims, kPairBytes);
    const size_t segment = kv_segment_bytes(KvType::int8, dims);
    const uint8_t *queries = static_cast<const uint8_t*>(a.queries), *keys[B];
    for (int b = 0; b < B; b++) {
        keys[b] = a.keys[b] + kScaleBytes + group * dims / 4 * kUnit;
        fetch(a.keys[b] + segment + group * kUnit);  // a quarter of the scales of its values
    }
    in_tiles(a.rows, [&](auto tile, int row) __attribute__((always_inline)) {
        constexpr int M = decltype(tile)::count;
        const uint8_t* q = queries + row * row_bytes;
        I low[M][B], high[M][B];
        QueryTail tails[M];
        for (int m = 0; m < M; m++) {
            __builtin_memcpy(&tails[m], q + m * row_bytes + 2 * dims, sizeof(QueryTail));
            for (int b = 0; b < B; b++) low[m][b] = broadcast4(&tails[m].low), high[m][b] = broadcast4(&tails[m].high);
        }
        for (size_t d = 0; d < dims; d += 4) {
            Bytes k[B];
            for (int b = 0; b < B; b++) {
                const uint8_t* unit = keys[b] + d / 4 * kUnit;
                k[b] = load_bytes(unit);
                if (row == 0) fetch(unit + segment);
            }
#pragma GCC unroll 3
            for (int m = 0; m < M; m++) {
                const I l = broadcast4(q + m * row_bytes + d), h = broadcast4(q + m * row_bytes + dims + d);
#pragma GCC unroll 4
                for (int b = 0; b < B; b++)
                    low[m][b] = dot4_wide(low[m][b], k[b], l), high[m][b] = dot4_wide(high[m][b], k[b], h);
            }
        }
        for (int b = 0; b < B; b++) {
            const F scales = load(reinterpret_cast<const float*>(a.keys[b]) + group * kLanes);
            for (int m = 0; m < M; m++)
                store(&s.scores[row + m][b * kBlock + group * kLanes],
                      mul(join_planes(high[m][b], low[m][b]), mul(scales, set(tails[m].scale))));
        }
    });
}

// One row, which sees keys begin .. visible - 1: scores to weights, their max and sum, and what one of those is worth.
template <int B> QB_INLINE void softmax_row_int8(const ChunkArgs& a, Int8Scratch& s, int row, int begin, int visible) {
    float* scores = s.scores[row];
    const float largest = mask_row(scores, begin, visible, B * 4);
    const F scale = set(a.scale_log2), shift = set(-largest * a.scale_log2);
    F total = set(0.0f), top = set(0.0f);
    for (int b = 0; b < B; b++) {
        const float* scales =
            reinterpret_cast<const float*>(a.keys[b] + kv_segment_bytes(KvType::int8, static_cast<size_t>(a.head_dim)));
        for (int v = 0; v < 4; v++) {
            float* at = scores + b * kBlock + v * kLanes;
            const F p = exp2(fma(load(at), scale, shift)), weight = mul(p, load(scales + v * kLanes));
            total = add(total, p);
            top = max(weight, top);
            store(at, weight);
        }
    }
    const float most = highest(top);
    const F inverse = set(65535.0f / most);
    for (int v = 0; v < B * 4; v++) {
        const I x = to_int(mul(load(scores + v * kLanes), inverse)), h = shift_right<8>(x);
        store_uint8(s.low[row] + v * kLanes, sub_i(x, shift_left<8>(h)));
        store_uint8(s.high[row] + v * kLanes, h);
    }
    s.worth[row] = most / 65535.0f;
    a.max[row] = largest;
    a.sum[row] = sum(total);
}

// Weighted values of all rows over V vectors of 16 dimensions of one 64-wide stretch, B blocks in parallel streams.
template <int V, int B>
static __attribute__((noinline)) void weigh_stretch(const ChunkArgs& a, const Int8Scratch& s, int stretch) {
    const size_t before = kScaleBytes + static_cast<size_t>(stretch) * 16 * 4 * kUnit;
    const size_t start = kv_segment_bytes(KvType::int8, static_cast<size_t>(a.head_dim)) + before;
    in_tiles(a.rows, [&](auto tile, int row) __attribute__((always_inline)) {
        constexpr int M = decltype(tile)::count;
        I low[M][V], high[M][V];
        for (int m = 0; m < M; m++)
            for (int v = 0; v < V; v++) low[m][v] = high[m][v] = zero_i();
        for (int t = 0; t < kBlock / 4; t++)
#pragma GCC unroll 4
            for (int b = 0; b < B; b++) {
                const size_t at = static_cast<size_t>(t) * V * kUnit;
                I x[V];
                for (int v = 0; v < V; v++) {
                    x[v] = load_i(a.keys[b] + start + at + v * kUnit);
                    if (row == 0) fetch(a.ahead[b] + before + at + v * kUnit);
                }
#pragma GCC unroll 3
                for (int m = 0; m < M; m++) {
                    const Bytes l = broadcast_bytes(s.low[row + m] + b * kBlock + 4 * t),
                                h = broadcast_bytes(s.high[row + m] + b * kBlock + 4 * t);
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++)
                        low[m][v] = dot4_wide(low[m][v], l, x[v]), high[m][v] = dot4_wide(high[m][v], h, x[v]);
                }
            }
        for (int m = 0; m < M; m++)
            for (int v = 0; v < V; v++)
                store(a.out + static_cast<size_t>(row + m) * a.value_dim + stretch * 64 + v * kLanes,
                      mul(join_planes(high[m][v], low[m][v]), set(s.worth[row + m])));
    });
}

template <int B> static void attend_blocks_int8(const ChunkArgs& a) {
    Int8Scratch& s = *static_cast<Int8Scratch*>(a.scratch);
    for (int group = 0; group < 4; group++) score_group<B>(a, s, group);
    for (int row = 0; row < a.rows; row++) {
        const int visible = a.visible[row] < B * kBlock ? a.visible[row] : B * kBlock;
        const int begin = a.first ? a.first[row] : 0;
        if (visible > begin && visible > 0) {
            if (a.softcap > 0 || a.slopes) bend_scores(a, s.scores[row], row, B * 4);
            softmax_row_int8<B>(a, s, row, begin, visible);
        } else {
            __builtin_memset(s.low[row], 0, B * kBlock);
            __builtin_memset(s.high[row], 0, B * kBlock);
            s.worth[row] = 0;
        }
    }
    for (int b = 0; b < kChunkBlocks; b++)
        for (size_t line = 0; line < kScaleBytes; line += 64) fetch(a.ahead[b] + line);
    int stretch = 0;
    for (; (stretch + 1) * 64 <= a.value_dim; stretch++) weigh_stretch<4, B>(a, s, stretch);
    switch ((a.value_dim - stretch * 64) / 16) {
        case 3: weigh_stretch<3, B>(a, s, stretch); break;
        case 2: weigh_stretch<2, B>(a, s, stretch); break;
        case 1: weigh_stretch<1, B>(a, s, stretch); break;
        default: break;
    }
}

static void attend_chunk_int8(const ChunkArgs& a) {
    switch (a.blocks) {
        case 1: attend_blocks_int8<1>(a); break;
        case 2: attend_blocks_int8<2>(a); break;
        case 3: attend_blocks_int8<3>(a); break;
        default: attend_blocks_int8<4>(a); break;
    }
}
