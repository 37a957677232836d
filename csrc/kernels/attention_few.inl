// Attention of few rows: keys and values are taken as they lie, in tiles of rows by B blocks, which are parallel
// streams from memory.

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
        for (int b = 0; b < B; b++) store(&s.rows[row + m][b * kBlock + group * 16], acc[m][b]);
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
                    acc[m][v] = Kv::multiply(
                        acc[m][v], unit + v * Kv::kUnitBytes,
                        reinterpret_cast<const uint8_t*>(s.rows[row + m]) + (b * kBlock + 2 * t) * Kv::kOperandBytes);
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
