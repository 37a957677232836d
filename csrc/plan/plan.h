// A recorded list of verbs, walked in one call a step by every thread of the pool.
//
// Numbers of tokens and rows are symbolic: a buffer is as wide as its verb says and as long as the step needs.
// Work is divided over panels, tokens, heads and fixed chunks, never in a way that a result depends on.
#pragma once

#include <atomic>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "core/kv.h"
#include "core/pool.h"
#include "core/states.h"
#include "core/weights.h"
#include "table.h"

namespace qb {

// One step's arrays, as engine/batch.py describes them. Checked by Plan::run before anything is computed.
struct BatchView {
    std::span<const int32_t> tokens, positions, starts, blocks, block_starts, logit_rows, fresh;
    std::span<const int32_t> turns = {};  // which variant of its rotations each sequence uses; empty: the first
    std::span<const int32_t> reads = {}, writes = {};  // places of states; empty where the plan has none
};

enum class Verb : uint8_t;

enum class Length : uint8_t { tokens, rows };  // one row a token, or one a row that wants logits

class Plan {
public:
    // wide: the input of linears with quantized weights is rounded to bf16, not to int8.
    // states: of verbs that have some; nullptr: there are none.
    Plan(Pool&, const Weights&, KvMemory&, const Kernels&, bool wide = false, StateMemory* states = nullptr);
    ~Plan();
    Plan(const Plan&) = delete;
    Plan& operator=(const Plan&) = delete;

    // Buffers are float32, (length, width), width padded to 16 with zeros.
    int buffer(size_t width, Length);

    // The verbs; ids are checked here, once. Each throws std::invalid_argument with a sentence.
    void embed(size_t weight, int out);
    // Row `offset` + position of a table for each token.
    void positions(size_t weight, size_t offset, int out);
    // A norm, by its number, of vectors; bias >= 0: of a centred one.
    int norm(int weight, int bias, float eps, bool centred);
    struct Output {
        size_t weight;
        int buffer;
        int bias = -1;  // >= 0: a vector that is added to the result
    };
    // x times each weight into its own buffer. norm >= 0: x is normalised first. residual >= 0 (one output only): added
    // to the result; may be the output itself.
    void linear(int x, const std::vector<Output>&, int norm = -1, int residual = -1);
    // nonlinearity(x gate^T + bias) * (x up^T + bias); the panels of gate and up alternate (Weights::add with two
    // sources). limit: of Nonlinearity::clamped.
    struct Gate {
        size_t gate, up;
        Nonlinearity nonlinearity = Nonlinearity::silu;
        float limit = 0;
        int norm = -1, gate_bias = -1, up_bias = -1;
    };
    void gated_linear(int x, const Gate&, int out);
    // heads > 1: each of so many equal parts of a row, by a vector for all of them or one that has a part for each.
    void normalise(int x, int norm, int out, int heads = 1);
    // A rotation, by its number: frequencies (variants, dims / 2) in radians a position, and of each variant a factor
    // on cos and sin. Values start .. start + dims of a head turn, in pairs of its halves or interleaved: adjacent
    // ones. All rotations of a plan have as many variants.
    int rotation(std::span<const double> frequencies, std::span<const double> factors, size_t start = 0,
                 bool interleaved = false);
    // Other variants of a rotation, from the next step on. The width stays.
    void turn(int rotation, std::span<const double> frequencies, std::span<const double> factors);
    void rope(int x, int rotation, int heads, int out);
    struct Attention {
        size_t layer;      // of the memory, which is written and then read
        int q, k, v, out;  // k and v -1: nothing is written
        int heads;
        float scale;
        int rotation = -1;               // q and k come already rotated
        int32_t window = 0;              // a token sees so many positions, its own included; 0: all up to its own
        int q_norm = -1, k_norm = -1;    // norms of each head, both or none, where there is a k
        float softcap = 0;               // > 0: scores become softcap * tanh(score / softcap)
        int sinks = -1;                  // a vector: for each head a score that takes weight and gives no value
        std::vector<float> slopes = {};  // for each head, times (key - query position) added to scores; or none
    };
    void attention(const Attention&);
    void add(int a, int b, int out);
    void multiply(int a, int b, int out);
    void scale(int x, float factor, int out);
    void softcap(int x, float cap, int out);
    void activate(int x, Nonlinearity, int out);
    void gated(int gate, int up, Nonlinearity, float limit, int out);
    // Values begin .. end of each of the heads of a row.
    void part(int x, int heads, size_t begin, size_t end, int out);
    // Heads of a, each followed by b's of the same number, or by b's only one.
    void join(int a, int b, int heads, int out);
    // out[:, i] = x[:, order[i]], for weights whose columns are held in another order.
    void columns(int x, std::span<const int64_t> order, int out);
    // Which experts each row of logits takes: (rows, experts) -> (rows, 2 top_k), their numbers, ascending, then their
    // weights, as models/routing.py describes it. bias >= 0: a vector that is added to the scores while choosing.
    // scales >= 0: one that the weights are multiplied by at last.
    struct Router {
        int top_k;
        bool sigmoid, renormalise;
        double scale, least;
        int groups, top_groups, group_best;
    };
    void route(int logits, const Router&, int bias, int scales, int out);
    // The sum over a token's experts, in the order of its routing, of their weights times
    // (nonlinearity(x gate^T + bias) * (x up^T + bias)) down^T + bias. The panels of gate and up alternate.
    struct Expert {
        size_t gate, up, down;
        int gate_bias = -1, up_bias = -1, down_bias = -1;
    };
    void experts(int x, int routing, const std::vector<Expert>&, Nonlinearity, float limit, int out);
    // Each row times the sigmoid of its gate, (rows, 1).
    void gate_rows(int x, int gate, int out);
    void rows(int x, int out);
    // Verbs with a state, which begins at an offset in a place: (length - 1, width padded to 16) floats, filter a
    // vector (width, length).
    void short_conv(int x, int filter, int bias, size_t state, int out);
    // (heads, V / 16, K, 16) floats. skip >= 0: a vector, a number for each head.
    struct Recurrence {
        int q, k, v, beta, decay, out;
        int heads, key_heads;
        bool delta;
        int skip;
        size_t state;
    };
    void recurrence(const Recurrence&);
    void decay(int x, int log_rate, int out);
    void softplus(int x, int out);
    // The logits, (rows, width) of this buffer, are what run() leaves behind.
    void result(int buffer);

    void run(const BatchView&);

    size_t rows_run() const { return rows_; }
    const float* row(size_t index) const;  // of the result
    size_t result_width() const;
    size_t result_stride() const;
    std::span<float> contents(int buffer);       // of the last step, for tests and taps
    size_t growths() const { return growths_; }  // how often scratch memory grew: constant after warm-up
    size_t instructions() const;

    // What the steps since profile(true) took, a thread and an instruction.
    struct Spent {
        double work = 0, wait = 0;  // seconds in it, and then until the last thread was through
    };
    struct Stage {
        std::vector<Spent> threads;
        size_t bytes = 0;  // of packed weights that a step reads
    };
    void profile(bool on);
    std::vector<Stage> stages() const;                             // one an instruction; empty: no profile
    double profiled_seconds() const { return profiled_seconds_; }  // of those steps, whole
    Pool& pool() const { return pool_; }
    const Kernels& kernel_table() const { return kernels_; }

private:
    struct Applied;
    struct Buffer;
    struct Instruction;
    struct Rope;
    struct Attend;
    struct Thread;
    struct Mixture;
    struct Pairs;
    struct Piece;
    struct Pieces;

    size_t length(Length l) const { return l == Length::tokens ? tokens_ : rows_; }
    Buffer& checked(int buffer);
    const Rope& checked_rotation(int rotation) const;
    size_t variants() const;
    const float* bias_vector(int bias, size_t width) const;
    Applied applied(int norm, size_t width, size_t heads = 1) const;
    const PackedWeight& alternating(size_t gate, size_t up) const;
    void same_shape(const char* verb, std::initializer_list<int> buffers);
    Instruction& note(Verb, int x, int out);
    void check(const BatchView&) const;
    void prepare_step(const BatchView&);
    void plan_attention(Attend&);
    void execute(const Instruction&, size_t index, int thread);
    void execute_all(int thread);
    void run_linear(const Instruction&, size_t index, int thread);
    void run_attention(const Instruction&, size_t index, int thread);
    void prepare_mixtures();
    void route_row(const Instruction&, const float* logits, Thread&, float* out) const;
    void sort_pairs(const Mixture&, const Buffer& routing, size_t tokens, Pairs&) const;
    void run_experts(const Instruction&, size_t index, int thread);
    void run_pieces(const Pieces&, size_t claims, int thread, const uint8_t* next);
    size_t bytes_of_token(const Instruction&) const;
    void keep(Instruction&, size_t offset, size_t floats) const;
    void check_states(const BatchView&) const;
    const float* read_state(const Instruction&, size_t sequence) const;
    float* written_state(const Instruction&, size_t sequence) const;
    void run_short_conv(const Instruction&, size_t index, int thread);
    void run_recurrence(const Instruction&, size_t index, int thread);
    static void decay_row(const Instruction&, const float* x, size_t width, float* out);
    static void softplus_row(const float* x, size_t width, float* out);
    void attend_item(const Instruction&, Attend&, size_t item, size_t last_item, int thread);
    void store_keys(const Instruction&, size_t token, size_t kv_head, Thread&);
    const float* turned(const Instruction&, const float* x, const Applied& norm, size_t head, size_t token,
                        float* out) const;
    void rotate(const Rope&, const float* x, size_t token, size_t dim, float* out) const;
    uint8_t* block_keys(size_t layer, size_t sequence, size_t block, size_t kv_head) const;
    size_t panels(const Instruction&) const;
    const uint8_t* next_read(size_t index, int thread) const;
    template <class Body> void claim(size_t index, int thread, size_t items, size_t at_a_time, const Body&);

    Pool& pool_;
    const Weights& weights_;
    KvMemory& kv_;
    const Kernels& kernels_;
    const bool wide_;
    StateMemory* const states_;
    std::vector<Buffer> buffers_;
    std::vector<Instruction> instructions_;
    struct Normed {
        Norm norm;
        size_t width;  // of its vectors
    };
    std::vector<Normed> norms_;
    std::vector<Rope> ropes_;
    std::vector<Attend> attends_;
    std::vector<Router> routers_;
    std::vector<Mixture> mixtures_;
    std::vector<Thread> threads_;
    size_t claims_made_ = 0;
    int result_ = -1;

    BatchView batch_{};
    size_t tokens_ = 0, rows_ = 0, sequences_ = 0, growths_ = 0;
    std::vector<uint32_t> sequence_of_;  // per token
    Scratch activations_;
    Scratch pair_inputs_, pair_hidden_, pair_results_;  // of pairs of a token and an expert, sorted by expert
    std::vector<float> no_value_;                       // zeros: what sinks give
    std::vector<Spent> spent_;                          // (threads, instructions); empty: no profile
    double profiled_seconds_ = 0;
    size_t token_bytes_ = 0;  // most that any linear's packed activations need
    size_t widest_ = 0;
};

}  // namespace qb
