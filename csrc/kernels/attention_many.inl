// Attention of many rows: units are expanded into floats, a stretch of pairs at a time, small enough for the
// first-level cache, and all rows run over it. Every chain is that of attention_few.inl; between stretches it stands in
// memory.

constexpr int kManyRows = 32;  // from here on that is faster

// A stretch of pairs of many rows, which as many times `wide` units are multiplied by.
struct Operands {
    const float* units;  // [count][wide]
    size_t wide, count;
    const float* x;          // of the first row
    size_t row_floats;       // from one row to the next
    const uint32_t* places;  // of each pair in a row
    float* out;              // of the first row
    size_t out_floats;
    bool begins;  // else the chains go on from what `out` has
};

template <int M, int V> static __attribute__((noinline)) void operand_tile(const Operands& o, int row) {
    const float *x = o.x + row * o.row_floats, *units = o.units;
    float* out = o.out + row * o.out_floats;
    F acc[M][V];
    for (int m = 0; m < M; m++)
        for (int v = 0; v < V; v++) acc[m][v] = o.begins ? set(0.0f) : load(out + m * o.out_floats + v * kLanes);
    for (size_t i = 0; i < o.count; i++, units += o.wide * kUnitFloats) {
        const float* pairs = x + o.places[i];
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            F unit[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) unit[v] = load(units + v * kUnitFloats + half * kLanes);
#pragma GCC unroll 6
            for (int m = 0; m < M; m++) {
                const F y = set(pairs[m * o.row_floats + half]);
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) acc[m][v] = fma(unit[v], y, acc[m][v]);
            }
        }
    }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < V; v++) store(out + m * o.out_floats + v * kLanes, acc[m][v]);
}

// Rows in tiles, each of the first vectors(row, end) units of each pair.
template <int Size = 0, class Vectors>
static void operand_rows(const Operands& o, int row, int rows, const Vectors& vectors) {
    constexpr int M = kRowTiles[Size];
    for (; row + M <= rows; row += M) switch (vectors(row, row + M)) {
            case 4: operand_tile<M, 4>(o, row); break;
            case 3: operand_tile<M, 3>(o, row); break;
            case 2: operand_tile<M, 2>(o, row); break;
            case 1: operand_tile<M, 1>(o, row); break;
            default: break;
        }
    if constexpr (Size + 1 < static_cast<int>(sizeof kRowTiles / sizeof *kRowTiles))
        operand_rows<Size + 1>(o, row, rows, vectors);
}

template <class Kv> static void expanded_scores(const ChunkArgs& a, AttendScratch& s) {
    const size_t pairs = static_cast<size_t>(a.head_dim) / 2;
    uint32_t places[kExpandedPairs];
    for (uint32_t d = 0; d < kExpandedPairs; d++) places[d] = 2 * d;
    for (int b = 0; b < a.blocks; b++) {
        // Groups of 16 tokens that any of some rows sees: the others' scores are masked, whatever stands there.
        const auto groups = [&](int row, int end) {
            int most = 0;
            for (; row < end; row++)
                if (a.visible[row] > most) most = a.visible[row];
            most -= b * kBlock;
            return most >= kBlock ? 4 : most <= 0 ? 0 : (most + 15) / 16;
        };
        for (size_t first = 0; first < pairs; first += kExpandedPairs) {
            const size_t count = pairs - first < kExpandedPairs ? pairs - first : kExpandedPairs;
            for (size_t d = 0; d < count; d++)
                for (size_t group = 0; group < 4; group++) {
                    const uint8_t* unit = a.keys[b] + (group * pairs + first + d) * Kv::kUnitBytes;
                    fetch_unit<Kv>(unit + segment_bytes<Kv>(a.head_dim));
                    Kv::expand(unit, s.units + (d * 4 + group) * kUnitFloats);
                }
            operand_rows({.units = s.units,
                          .wide = 4,
                          .count = count,
                          .x = static_cast<const float*>(a.queries) + 2 * first,
                          .row_floats = 2 * pairs,
                          .places = places,
                          .out = s.rows[0] + b * kBlock,
                          .out_floats = kChunk,
                          .begins = first == 0},
                         0, a.rows, groups);
        }
    }
}

template <class Kv> static void expanded_values(const ChunkArgs& a, AttendScratch& s) {
    const size_t blocks = static_cast<size_t>(a.blocks), vectors = static_cast<size_t>(a.value_dim) / kLanes;
    constexpr size_t kTokenPairs = kBlock / 2;
    const size_t most = kExpandedPairs / blocks;  // token pairs of a stretch
    uint32_t places[kExpandedPairs];
    for (size_t i = 0; i < most * blocks; i++) places[i] = static_cast<uint32_t>(i % blocks * kBlock + i / blocks * 2);
    for (size_t v0 = 0; v0 < vectors; v0 += 4) {
        const size_t wide = vectors - v0 < 4 ? vectors - v0 : 4, before = v0 * kTokenPairs * Kv::kUnitBytes;
        for (size_t first = 0; first < kTokenPairs; first += most) {
            const size_t count = kTokenPairs - first < most ? kTokenPairs - first : most;
            float* units = s.units;
            for (size_t t = first; t < first + count; t++)
                for (size_t b = 0; b < blocks; b++)
                    for (size_t v = 0; v < wide; v++, units += kUnitFloats) {
                        const size_t at = before + (t * wide + v) * Kv::kUnitBytes;
                        fetch_unit<Kv>(a.ahead[b] + at);
                        Kv::expand(a.keys[b] + segment_bytes<Kv>(a.head_dim) + at, units);
                    }
            operand_rows({.units = s.units,
                          .wide = wide,
                          .count = count * blocks,
                          .x = s.rows[0] + 2 * first,
                          .row_floats = kChunk,
                          .places = places,
                          .out = a.out + v0 * kLanes,
                          .out_floats = static_cast<size_t>(a.value_dim),
                          .begins = first == 0},
                         0, a.rows, [&](int, int) { return static_cast<int>(wide); });
        }
    }
}

template <class Kv, int B> static void attend_few(const ChunkArgs& a, AttendScratch& s) {
    all_rows<Kv, B, false>(a, s, 0);
    softmax_rows<Kv>(a, s);
    all_rows<Kv, B, true>(a, s, 0);
}

template <class Kv> static void attend_chunk(const ChunkArgs& a) {
    AttendScratch& s = *static_cast<AttendScratch*>(a.scratch);
    if constexpr (Kv::kExpanded)
        if (a.rows >= kManyRows) {
            expanded_scores<Kv>(a, s);
            softmax_rows<Kv>(a, s);
            expanded_values<Kv>(a, s);
            return;
        }
    switch (a.blocks) {
        case 1: attend_few<Kv, 1>(a, s); break;
        case 2: attend_few<Kv, 2>(a, s); break;
        case 3: attend_few<Kv, 3>(a, s); break;
        default: attend_few<Kv, 4>(a, s); break;
    }
}
