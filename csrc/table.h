// One table of function pointers per instruction set: all that the rest of the native code sees of the kernels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qb {

// How weights are packed. Panels of 16 output rows; see core/weights.h for the bytes of each.
enum class Format : uint8_t {
    f32,
    f16,
    bf16,
    q8_0,
    q4_0,
    q4_1,
    nf4,
    fp4,  // those that numbers can be encoded in, first
    q4_k,
    q6_k,
    q5_0,
    q5_1,
    q5_k,
    iq4_nl,
    mxfp4,
    u4z,
    u8z,
    e4m3,
    s8_k,
    q2_k,
    q3_k,
    iq4_xs
};
constexpr int kFormats = 22, kEncodable = 8;

// What the input of a linear is rounded to; it follows from the weight's format and from what its model asks of those
// that take int8: int8, or bf16_groups, which is bf16 in the order and with the sums that their kernels need.
enum class Activation : uint8_t { f32, bf16, int8, bf16_groups };

// What bends a network. clamped, of a gate and its partner alone: gate to at most a limit, up to between -limit and
// limit, then gate * sigmoid(1.702 gate) * (up + 1).
enum class Nonlinearity : uint8_t { silu, gelu, gelu_tanh, relu, relu2, sigmoid, tanh, clamped };
constexpr int kNonlinearities = 8;

// x / sqrt(mean(x^2) + eps) * weight, or centred: (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias. Vectors
// are padded to 16 with zeros.
struct Norm {
    const float* weight;
    const float* bias;  // of a centred one; nullptr: none
    float eps;
    bool centred;
};

// What the nibbles of nf4 (Dettmers et al. 2023) and fp4 stand for, in parts of the largest magnitude of their block.
inline constexpr float kNf4[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};
inline constexpr float kFp4[16] = {
    0.0f,  0.005208333333f,  2.0f / 3,  1.0f,  1.0f / 3,  0.5f,  1.0f / 6,  0.25f,
    -0.0f, -0.005208333333f, -2.0f / 3, -1.0f, -1.0f / 3, -0.5f, -1.0f / 6, -0.25f,
};

// What the nibbles of iq4_nl and iq4_xs stand for, plus 128, and those of mxfp4, doubled, plus 16: as unsigned bytes.
inline constexpr uint8_t kIq4Nl[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
inline constexpr uint8_t kMxfp4[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

// Two numbers of 2 bits in a nibble.
inline constexpr uint8_t kLowerTwo[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
inline constexpr uint8_t kUpperTwo[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};

constexpr int kLanes = 16;  // rows of a panel, floats of a vector
constexpr size_t padded16(size_t n) { return (n + kLanes - 1) / kLanes * kLanes; }
constexpr int kTile = 4;     // most tokens in one register tile, and in one tile of packed activations
constexpr int kGroup = 32;   // k per quantized group
constexpr int kBlock = 64;   // tokens per KV block
constexpr int kChunk = 256;  // keys per attention chunk, anchored at absolute position 0
constexpr int kChunkBlocks = kChunk / kBlock;
constexpr int kStretch = 128;  // logits of which the maximum is kept

// Bytes of one token's packed activations. A tile of m tokens is m times that:
//   [units][m] with 4 int8, 1 f32 or a pair of bf16 a unit, which takes the kernels' pair_bytes; then for int8, per
//   group of 32: [m] f32 scale, [m] f32 scale * sum, [m] int32 -128 * sum, [m] int32 -128 * sum of the first 16; for
//   bf16_groups the units of each 4 k are k0, k2 and k1, k3; then per group [2 halves][m] f32 sum.
constexpr size_t padded_inputs(Activation type, size_t inputs) {
    // float chains run over 4 units at a time; the padding is zeros on both sides
    size_t multiple = type == Activation::f32 ? 4 : type == Activation::bf16 ? 8 : kGroup;
    return (inputs + multiple - 1) / multiple * multiple;
}
constexpr size_t packed_bytes(Activation type, size_t inputs, size_t pair_bytes) {
    size_t k = padded_inputs(type, inputs);
    switch (type) {
        case Activation::f32: return k * 4;
        case Activation::bf16: return k / 2 * pair_bytes;
        case Activation::int8: return k + k / kGroup * 16;
        case Activation::bf16_groups: break;
    }
    return k / 2 * pair_bytes + k / kGroup * 8;
}

struct LinearArgs {
    const uint8_t* weights;      // first panel
    size_t panel_stride;         // bytes from one panel to the next
    size_t inputs;               // K, padded
    const uint8_t* activations;  // packed, `tokens` of them in tiles of kTile and one shorter tile at the end
    size_t token_bytes;          // packed_bytes(...)
    size_t tokens;
    float* out;  // (tokens, out_stride); panel p writes columns 16p..16p+15
    size_t out_stride;
    const float* bias;      // added first: a row for all tokens, as wide as out; of a gated one, the gate's; or nullptr
    const float* up_bias;   // of a gated one, or nullptr
    const float* residual;  // added then: (tokens, out_stride), may be `out` itself; or nullptr; not of a gated one
    bool gated;             // panels alternate gate, up: out = nonlinearity(gate) * up
    Nonlinearity nonlinearity;
    float limit;  // of Nonlinearity::clamped
    // A few tokens read each weight once, from memory. This thread reads on to read_end, and then from read_next on;
    // what is so many bytes further on that way is fetched.
    const uint8_t* read_end;
    const uint8_t* read_next;
    size_t read_ahead;
    void* scratch;  // linear_scratch_bytes() of the calling thread
};

// One chunk of at most 256 keys against rows of one kv head, and the running result it is merged into.
struct ChunkArgs {
    const uint8_t* const* keys;   // the K segment of each of `blocks` blocks; its V segment follows it
    const uint8_t* const* ahead;  // kChunkBlocks segments to fetch while working (may repeat `keys`)
    int blocks;                   // 1..4
    int rows;                     // <= kAttendRows
    int head_dim, value_dim;      // multiples of 16
    const void* queries;          // `rows` of query_bytes(...), as `narrow` makes them
    const int* visible;           // per row: it sees keys of this chunk before this one, <= 0 for none
    const int* first;             // and from this one on, <= 0 for all, >= 256 for none; nullptr: all of every row
    float softcap;                // > 0: scores become tanh(softcap * score) first
    const float* slopes;  // per row: scores then become slope_scale * score + slope * (key - position); or nullptr
    float slope_scale;
    float scale_log2;  // scale * log2(e), of what the scores have become
    void* scratch;     // attend_scratch_bytes()
    float* max;        // (rows) out, of visible rows
    float* sum;        // (rows) out
    float* out;        // (rows, value_dim) out: unnormalised
};

constexpr int kAttendRows = 96;

// New tokens of one text, some channels of it, multiples of 16: out[t] = bias + sum over j of filter[j] * value t + j
// of those read and then x.
struct ConvArgs {
    const float* x;
    float* out;
    size_t stride;  // of x and out
    size_t tokens, channels;
    const float* filter;  // (length, filter_stride)
    size_t filter_stride, length;
    const float* bias;  // or nullptr
    const float* read;  // (length - 1, state_stride): the values before; nullptr: zeros
    float* write;       // the last ones then
    size_t state_stride;
};

// New tokens of one text, 16 columns of one head, as models/ops.py describes it.
struct RecurrenceArgs {
    const float *q, *k;  // (tokens, keys) at key_stride
    size_t key_stride;
    const float* v;  // (tokens, 16) at value_stride
    float* out;
    size_t value_stride;
    const float *beta, *decay;  // (tokens) at head_stride
    size_t head_stride;
    size_t tokens, keys;
    bool delta, skips;
    float skip;
    const float* read;  // (keys, 16); nullptr: zeros
    float* write;
};

// What keys and values are stored in. int8: integers, with a float32 scale for each token's key or value of a kv head.
enum class KvType : uint8_t { bf16, f32, int8 };
constexpr int kKvTypes = 3;

// Bytes of a K or V segment, of a block's tokens and `width` values each: int8 has the scales of its tokens first.
constexpr size_t kv_segment_bytes(KvType type, size_t width) {
    return kBlock * (type == KvType::int8 ? sizeof(float) + width : type == KvType::bf16 ? 2 * width : 4 * width);
}
// Bytes of one query as attention takes it: int8 has two planes of bytes, then a float32 scale, two int32 and padding.
constexpr size_t query_bytes(KvType type, size_t width, size_t pair_bytes) {
    return type == KvType::int8 ? 2 * width + 16 : type == KvType::bf16 ? width / 2 * pair_bytes : 4 * width;
}

// What is multiplied and added where this variant's instructions are busiest: u8 with s8 into int32, bf16 into f32,
// f32.
enum class Peak : uint8_t { int8, bf16, f32 };
constexpr int kPeaks = 3, kPeakRounds = 1 << 16;
constexpr size_t kPeakOperands = 320;

struct Kernels {
    const char* name;

    size_t pair_bytes;  // of two bf16 that are multiplied by 16 pairs: as they are, or as floats

    // out[tokens][panel] for panels [begin, end); of gated ones, output panels.
    void (*linear[kFormats])(const LinearArgs&, size_t begin, size_t end);
    // The same on bf16_groups, of formats that would take int8; nullptr for the others.
    void (*linear_bf16[kFormats])(const LinearArgs&, size_t begin, size_t end);
    size_t (*linear_scratch_bytes)();

    // Packs one tile of m <= kTile rows of x (row stride in floats) into `tile`; with `norm`, which may be
    // nullptr, each row is normalised first through `scratch` (m rows of inputs floats, padded to 16).
    void (*prepare)(Activation, const float* x, size_t stride, size_t inputs, int m, const Norm* norm, float* scratch,
                    uint8_t* tile);

    // Plain verbs on rows of n floats, n a multiple of 16 (padding included).
    void (*normalise)(const Norm&, const float* x, size_t inputs, float* out);
    void (*add)(const float* a, const float* b, size_t n, float* out);
    void (*multiply)(const float* a, const float* b, size_t n, float* out);
    void (*scale)(const float* x, float factor, size_t n, float* out);
    void (*add_scaled)(const float* x, float factor, const float* sum, size_t n, float* out);  // sum + factor * x
    void (*softcap)(const float* x, float cap, size_t n, float* out);                          // cap * tanh(x / cap)
    void (*activate)(Nonlinearity, const float* x, size_t n, float* out);
    void (*gate)(Nonlinearity, float limit, const float* gate, const float* up, size_t n, float* out);
    // x of dims floats, cos and sin of dims / 2. Pairs are the halves [a | b], or adjacent values.
    void (*rope[2])(const float* x, const float* cos, const float* sin, int dims, float* out);

    // n values, whole blocks, encoded as published; q4_1 with a search for the best d and m. The same bytes everywhere.
    void (*encode[kEncodable])(const float* x, size_t n, uint8_t* out);

    size_t (*attend_scratch_bytes)();
    void (*store_kv[kKvTypes])(uint8_t* keys, int slot, int head_dim, int value_dim, const float* k, const float* v);
    void (*narrow[kKvTypes])(const float* x, size_t n, void* out);  // a query of n values to its query_bytes(...)
    void (*attend_chunk[kKvTypes])(const ChunkArgs&);
    // Merge a chunk's (max, sum, out) of one row into the row's running (max, sum, out); start: -1e30, 0, 0.
    void (*merge)(float* max, float* sum, float* out, float chunk_max, float chunk_sum, const float* chunk_out,
                  int value_dim, float scale_log2);
    void (*finish)(const float* out, float sum, int value_dim, float* result);  // out / sum

    // Verbs with a state. What is written is not what is read.
    void (*short_conv)(const ConvArgs&);
    void (*recurrence)(const RecurrenceArgs&);

    // Rows of logits, in stretches of kStretch, the last one shorter; n >= 1. `maxima` are those of the stretches.
    // Writes the largest of each stretch; returns the largest of all, NaN if any is one. With `sums`, writes of each
    // stretch the sum of exp((x - its largest) * inverse_temperature) too, in the same look at memory.
    float (*maxima)(const float* x, size_t n, float* out, float inverse_temperature, float* sums);
    // Writes exp((x - max) * inverse_temperature); -inf gives exactly 0.
    void (*exponentials)(const float* x, size_t n, float max, float inverse_temperature, float* out);
    // Writes the sum of those of each stretch, over x >= least.
    void (*weights)(const float* x, size_t n, const float* maxima, float max, float inverse_temperature, float least,
                    float* sums);
    // Indices with least <= x <= most in ascending order; `out` has room for n + kLanes. Returns how many.
    size_t (*between)(const float* x, size_t n, const float* maxima, float least, float most, int32_t* out);
    // Copies x where the bit of its index is set, the lowest bit first; -inf elsewhere.
    void (*only)(const float* x, size_t n, const int32_t* allowed, float* out);

    // As many multiply-adds as can be done at once: returns operations, two to each. `operands` are kPeakOperands bytes
    // of at most 63, aligned to 64; `sum` has room for kLanes.
    double (*peak[kPeaks])(const uint8_t* operands, float* sum);
};

// Chosen once, on first use. QB_ISA forces a variant; throws std::runtime_error with a sentence when that is
// impossible.
const Kernels& kernels();
// The table of one variant by name; nullptr when it is not compiled in or this CPU cannot run it.
const Kernels* kernels_named(const char* name);
// Names compiled in and runnable here, best last, separated by spaces; and why the chosen one was chosen.
const char* available_variants();
const char* variant_reason();

}  // namespace qb
