#include "plan/plan.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <string>

#include "plan/internal.h"

namespace qb {

namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::time_point start, Clock::time_point end) {
    return std::chrono::duration<double>(end - start).count();
}

// How far ahead a thread fetches what it reads, in bytes. In long reads less is faster: what was fetched and not used
// yet is in the way. Short ones are over soon, and then it is the beginning of the next that is fetched
// (docs/journal.md, 2026-11-27).
constexpr size_t kAhead = 4096, kFarAhead = 12288, kLongRead = 2 << 20;

size_t padded16(size_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument(why); }

}  // namespace

Plan::Plan(Pool& pool, const Weights& weights, KvMemory& kv, const Kernels& kernels, bool wide)
    : pool_(pool), weights_(weights), kv_(kv), kernels_(kernels), wide_(wide), threads_(pool.threads()) {}
Plan::~Plan() = default;

// -- recording ------------------------------------------------------------------------------------------------------

int Plan::buffer(size_t width, Length length) {
    if (width == 0 || width > (size_t{1} << 31)) refuse("a buffer of impossible width");
    buffers_.push_back({width, padded16(width), length, {}, nullptr});
    widest_ = std::max(widest_, padded16(width));
    return static_cast<int>(buffers_.size()) - 1;
}

Plan::Buffer& Plan::checked(int buffer) {
    if (buffer < 0 || static_cast<size_t>(buffer) >= buffers_.size()) refuse("no buffer of that number");
    return buffers_[buffer];
}

const float* Plan::norm_vector(int norm, size_t width) const {
    if (norm < 0) return nullptr;
    std::span<const float> vector = weights_.vector(norm);
    if (vector.size() != width) refuse("a norm's weight does not fit its input");
    return vector.data();
}

int Plan::rotation(std::span<const double> frequencies, std::span<const double> factors) {
    if (factors.empty() || frequencies.empty() || frequencies.size() % factors.size())
        refuse("a rotation needs frequencies and a factor for each of its variants");
    ropes_.push_back({{frequencies.begin(), frequencies.end()}, {factors.begin(), factors.end()}, {}, nullptr});
    return static_cast<int>(ropes_.size()) - 1;
}

void Plan::turn(int rotation, std::span<const double> frequencies, std::span<const double> factors) {
    const size_t half = checked_rotation(rotation).half();
    if (factors.empty() || frequencies.size() != factors.size() * half)
        refuse("a rotation's variants do not fit its heads");
    Rope& rope = ropes_[rotation];
    rope.frequencies.assign(frequencies.begin(), frequencies.end());
    rope.factors.assign(factors.begin(), factors.end());
}

const Plan::Rope& Plan::checked_rotation(int rotation) const {
    if (rotation < 0 || static_cast<size_t>(rotation) >= ropes_.size()) refuse("no rotation of that number");
    return ropes_[rotation];
}

size_t Plan::variants() const {
    size_t count = ropes_.empty() ? 1 : ropes_[0].factors.size();
    for (const Rope& rope : ropes_) count = std::min(count, rope.factors.size());
    return count;
}

void Plan::embed(size_t weight, int out) {
    if (checked(out).width != weights_.weight(weight).inputs) refuse("the embedding does not fit its buffer");
    Instruction i{Verb::embed};
    i.out = out;
    i.outputs = {{weight, out}};
    instructions_.push_back(std::move(i));
}

void Plan::linear(int x, const std::vector<Output>& outputs, int norm, float eps, int residual) {
    if (outputs.empty()) refuse("a linear without outputs");
    const Activation type = activation_of(weights_.weight(outputs[0].weight).format, wide_);
    for (const Output& o : outputs) {
        const PackedWeight& w = weights_.weight(o.weight);
        const Buffer& out = checked(o.buffer);
        if (w.inputs != checked(x).width || w.rows != out.width || out.length != checked(x).length)
            refuse("a linear's weight does not fit its input and output");
        if (activation_of(w.format, wide_) != type) refuse("weights of one linear must round their input alike");
        if (o.buffer == x) refuse("a linear cannot overwrite its input");
        if (o.bias >= 0 && weights_.vector(o.bias).size() != w.rows) refuse("a bias does not fit its output");
        if (o.bias >= 0 && residual >= 0) refuse("a linear adds a bias or a residual, not both");
    }
    if (residual >= 0 && (outputs.size() != 1 || checked(residual).width != checked(outputs[0].buffer).width ||
                          checked(residual).length != checked(outputs[0].buffer).length))
        refuse("a residual does not fit the output");
    Instruction i{Verb::linear};
    i.x = x;
    i.outputs = outputs;
    i.norm = norm_vector(norm, checked(x).width);
    i.eps = eps;
    i.residual = residual;
    token_bytes_ = std::max(token_bytes_, packed_bytes(type, checked(x).width));
    instructions_.push_back(std::move(i));
}

void Plan::gated(int x, size_t gate, size_t up, int out, int norm, float eps) {
    const PackedWeight &g = weights_.weight(gate), &u = weights_.weight(up);
    if (g.format != u.format || g.rows != u.rows || g.inputs != u.inputs || g.panel_stride != u.panel_stride ||
        u.data != g.data + g.panel_stride / 2)
        refuse("the panels of gate and up must alternate");
    if (g.inputs != checked(x).width || g.rows != checked(out).width || checked(out).length != checked(x).length ||
        out == x)
        refuse("gate and up do not fit their input and output");
    Instruction i{Verb::gated};
    i.x = x;
    i.outputs = {{gate, out}};
    i.norm = norm_vector(norm, checked(x).width);
    i.eps = eps;
    token_bytes_ = std::max(token_bytes_, packed_bytes(activation_of(g.format, wide_), checked(x).width));
    instructions_.push_back(std::move(i));
}

void Plan::rms_norm(int x, int norm, float eps, int out, int heads) {
    if (norm < 0) refuse("a norm without a weight");
    if (heads < 1 || checked(x).width % heads || (heads > 1 && checked(x).width / heads % kLanes))
        refuse("a norm of heads needs equal parts of a multiple of 16 values");
    if (checked(x).width != checked(out).width || checked(x).length != checked(out).length)
        refuse("a norm changes no shape");
    Instruction i{Verb::rms_norm};
    i.x = x;
    i.out = out;
    i.norm = norm_vector(norm, checked(x).width / heads);
    i.eps = eps;
    i.heads = heads;
    instructions_.push_back(std::move(i));
}

void Plan::rope(int x, int rotation, int heads, int out) {
    const size_t half = checked_rotation(rotation).half();
    if (heads < 1 || checked(x).width != 2 * half * heads || checked(out).width != checked(x).width || half % 8 ||
        checked(x).length != Length::tokens || checked(out).length != Length::tokens || x == out)
        refuse("rope: heads and frequencies do not fit the input");
    Instruction i{Verb::rope};
    i.x = x;
    i.out = out;
    i.rope = rotation;
    i.heads = heads;
    instructions_.push_back(std::move(i));
}

void Plan::attention(const Attention& asked) {
    const auto [layer, q, k, v, out, heads, scale, rotation, window, q_norm, k_norm, eps] = asked;
    const size_t d = kv_.head_dim(), kv_width = kv_.kv_heads() * d;
    if (layer >= kv_.layers()) refuse("attention: no layer of that number");
    if (heads < 1 || heads % kv_.kv_heads() || heads / kv_.kv_heads() > kAttendRows)
        refuse("attention: the query heads must be a multiple of the key heads, at most 96 times");
    if (checked(q).width != heads * d || checked(out).width != heads * d || checked(k).width != kv_width ||
        checked(v).width != kv_width)
        refuse("attention: inputs do not fit the heads");
    for (int b : {q, k, v, out})
        if (checked(b).length != Length::tokens) refuse("attention works on tokens");
    if (out == q || out == k || out == v) refuse("attention cannot overwrite its input");
    if (rotation >= 0 && checked_rotation(rotation).half() * 2 != d)
        refuse("attention: frequencies do not fit the heads");
    if (window < 0) refuse("attention: a window cannot be negative");
    if ((q_norm < 0) != (k_norm < 0)) refuse("attention: queries and keys are normalised both or not at all");
    Instruction i{Verb::attention};
    i.x = q;
    i.y = k;
    i.z = v;
    i.out = out;
    i.layer = layer;
    i.heads = heads;
    i.rope = rotation;
    i.q_norm = norm_vector(q_norm, d);
    i.k_norm = norm_vector(k_norm, d);
    i.eps = eps;
    for (size_t a = 0; a < attends_.size(); a++)
        if (attends_[a].heads == heads && attends_[a].scale == scale && attends_[a].window == window)
            i.attend = static_cast<int>(a);
    if (i.attend < 0) {
        Attend a{};
        a.heads = heads;
        a.scale = scale;
        a.window = window;
        attends_.push_back(std::move(a));
        i.attend = static_cast<int>(attends_.size()) - 1;
    }
    instructions_.push_back(std::move(i));
}

void Plan::add(int a, int b, int out) {
    for (int i : {b, out})
        if (checked(i).width != checked(a).width || checked(i).length != checked(a).length)
            refuse("add changes no shape");
    Instruction i{Verb::add};
    i.x = a;
    i.y = b;
    i.out = out;
    instructions_.push_back(std::move(i));
}

void Plan::swiglu(int gate, int up, int out) {
    for (int i : {up, out})
        if (checked(i).width != checked(gate).width || checked(i).length != checked(gate).length)
            refuse("swiglu changes no shape");
    Instruction i{Verb::swiglu};
    i.x = gate;
    i.y = up;
    i.out = out;
    instructions_.push_back(std::move(i));
}

void Plan::columns(int x, std::span<const int64_t> order, int out) {
    if (checked(x).width != order.size() || checked(out).width != order.size() ||
        checked(x).length != checked(out).length || x == out)
        refuse("an order of columns does not fit its input and output");
    Instruction i{Verb::columns};
    i.x = x;
    i.out = out;
    for (int64_t column : order) {
        if (column < 0 || static_cast<size_t>(column) >= order.size()) refuse("no column of that number");
        i.order.push_back(static_cast<uint32_t>(column));
    }
    instructions_.push_back(std::move(i));
}

void Plan::rows(int x, int out) {
    if (checked(x).width != checked(out).width || checked(x).length != Length::tokens ||
        checked(out).length != Length::rows)
        refuse("rows takes tokens to rows of the same width");
    Instruction i{Verb::rows};
    i.x = x;
    i.out = out;
    instructions_.push_back(std::move(i));
}

void Plan::result(int buffer) {
    checked(buffer);
    result_ = buffer;
}

// -- a step ---------------------------------------------------------------------------------------------------------

void Plan::check(const BatchView& b) const {
    const size_t t = b.tokens.size(), s = b.starts.size();
    if (t == 0 || b.positions.size() != t || s < 2 || b.block_starts.size() != s)
        refuse("batch: arrays do not fit together");
    if (t > (size_t{1} << 24)) refuse("batch: more than 2**24 tokens in a step");
    const auto ascending = [](std::span<const int32_t> x, size_t last, bool strictly) {
        if (x.front() != 0 || static_cast<size_t>(x.back()) != last) return false;
        for (size_t i = 1; i < x.size(); i++)
            if (x[i] < x[i - 1] + (strictly ? 1 : 0)) return false;
        return true;
    };
    if (!ascending(b.starts, t, true)) refuse("batch: starts must ascend from 0 to the number of tokens");
    if (!ascending(b.block_starts, b.blocks.size(), false))
        refuse("batch: block_starts must ascend over the block tables");
    const PackedWeight* embedding = nullptr;
    for (const Instruction& i : instructions_)
        if (i.verb == Verb::embed) embedding = &weights_.weight(i.outputs[0].weight);
    for (int32_t token : b.tokens)
        if (token < 0 || (embedding && static_cast<size_t>(token) >= embedding->rows))
            refuse("batch: token id " + std::to_string(token) + " is outside the vocabulary");
    for (int32_t block : b.blocks)
        if (block < 0 || static_cast<size_t>(block) >= kv_.blocks()) refuse("batch: no block of that number");
    for (int32_t block : b.fresh)
        if (block < 0 || static_cast<size_t>(block) >= kv_.blocks()) refuse("batch: no fresh block of that number");
    for (size_t i = 0; i + 1 < s; i++) {
        const int32_t first = b.positions[b.starts[i]];
        const int64_t held = int64_t{b.block_starts[i + 1] - b.block_starts[i]} * kBlock;
        if (first < 0 || int64_t{first} + (b.starts[i + 1] - b.starts[i]) > held)
            refuse("batch: a sequence's blocks do not hold its positions");
        for (int32_t j = b.starts[i]; j < b.starts[i + 1]; j++)
            if (b.positions[j] != first + (j - b.starts[i]))
                refuse("batch: positions of a sequence must ascend by one");
    }
    if (!b.turns.empty() && b.turns.size() != s - 1) refuse("batch: turns must be one for each sequence");
    for (int32_t turn : b.turns)
        if (turn < 0 || static_cast<size_t>(turn) >= variants()) refuse("batch: no rotation of that variant");
    for (size_t i = 0; i < b.logit_rows.size(); i++)
        if (b.logit_rows[i] < 0 || static_cast<size_t>(b.logit_rows[i]) >= t ||
            (i && b.logit_rows[i] <= b.logit_rows[i - 1]))
            refuse("batch: logit rows must ascend within the tokens");
}

void Plan::prepare_step(const BatchView& b) {
    batch_ = b;
    tokens_ = b.tokens.size();
    rows_ = b.logit_rows.size();
    sequences_ = b.starts.size() - 1;
    if (sequence_of_.capacity() < tokens_) growths_++;
    sequence_of_.resize(tokens_);
    for (size_t s = 0; s < sequences_; s++)
        std::fill(sequence_of_.begin() + b.starts[s], sequence_of_.begin() + b.starts[s + 1], static_cast<uint32_t>(s));
    for (Buffer& buffer : buffers_)
        buffer.data =
            reinterpret_cast<float*>(buffer.memory.need(product(length(buffer.length), buffer.stride * 4), growths_));
    for (Rope& rope : ropes_)
        rope.data = reinterpret_cast<float*>(rope.memory.need(product(tokens_, rope.half() * 8), growths_));
    if (tokens_ > kTile) activations_.need(product(tokens_, token_bytes_), growths_);
    const size_t d = kv_.head_dim();
    for (Thread& thread : threads_) {
        thread.activations.need(kTile * token_bytes_, growths_);
        thread.row.need((widest_ + 2 * d + kLanes) * 4, growths_);  // attention uses two heads of it
        thread.attend.need(kernels_.attend_scratch_bytes(), growths_);
        thread.queries.need(kAttendRows * d * 4, growths_);
        thread.results.need(2 * kAttendRows * (d + 2 + kLanes) * 4, growths_);
    }
    for (Attend& attend : attends_) plan_attention(attend);
    const size_t claims = instructions_.size();
    if (claims > claims_made_) {
        for (Thread& thread : threads_) thread.claims = std::make_unique<std::atomic<uint32_t>[]>(claims);
        claims_made_ = claims;
        growths_++;
    }
    for (Thread& thread : threads_)
        for (size_t i = 0; i < claims; i++) thread.claims[i].store(0, std::memory_order_relaxed);
}

void Plan::run(const BatchView& batch) {
    if (result_ < 0) refuse("the plan has no result");
    const auto start = Clock::now();
    check(batch);
    const auto walk = [this](int thread, int threads) {
        const auto [begin, end] = share(tokens_, thread, threads);
        for (Rope& rope : ropes_)
            for (size_t t = begin; t < end; t++) {
                const size_t variant = batch_.turns.empty() ? 0 : batch_.turns[sequence_of_[t]], half = rope.half();
                const double *frequencies = rope.frequencies.data() + variant * half, factor = rope.factors[variant];
                for (size_t i = 0; i < half; i++) {
                    const double angle = batch_.positions[t] * frequencies[i];
                    rope.cos(t)[i] = static_cast<float>(std::cos(angle) * factor);
                    rope.sin(t)[i] = static_cast<float>(std::sin(angle) * factor);
                }
            }
        execute_all(thread);
    };
    try {
        prepare_step(batch);
        for (int32_t block : batch.fresh) kv_.clear(block);
        pool_.run(walk);
        if (!spent_.empty()) profiled_seconds_ += seconds(start, Clock::now());
    } catch (...) {
        tokens_ = rows_ = 0;  // what a failed step left is not to be read
        throw;
    }
}

void Plan::execute_all(int thread) {
    if (spent_.empty()) {
        for (size_t i = 0; i < instructions_.size(); i++) {
            execute(instructions_[i], i, thread);
            pool_.barrier();
        }
        return;
    }
    auto start = Clock::now();
    for (size_t i = 0; i < instructions_.size(); i++) {
        Spent& spent = spent_[thread * instructions_.size() + i];
        execute(instructions_[i], i, thread);
        const auto done = Clock::now();
        pool_.barrier();
        const auto end = Clock::now();
        spent.work += seconds(start, done);
        spent.wait += seconds(done, end);
        start = end;  // nothing of a thread's time is left out
    }
}

void Plan::execute(const Instruction& i, size_t index, int thread) {
    const int threads = pool_.active();
    switch (i.verb) {
        case Verb::linear:
        case Verb::gated: return run_linear(i, index, thread);
        case Verb::attention: return run_attention(i, index, thread);
        case Verb::embed: {
            const PackedWeight& table = weights_.weight(i.outputs[0].weight);
            const auto [begin, end] = share(tokens_, thread, threads);
            for (size_t t = begin; t < end; t++) decode_row(table, batch_.tokens[t], buffers_[i.out].row(t));
            return;
        }
        case Verb::rms_norm: {
            const Buffer &x = buffers_[i.x], &out = buffers_[i.out];
            const auto [begin, end] = share(length(x.length), thread, threads);
            const size_t part = x.width / i.heads;
            for (size_t t = begin; t < end; t++)
                for (int h = 0; h < i.heads; h++)
                    kernels_.rms_norm(x.row(t) + h * part, i.norm, i.eps, part, out.row(t) + h * part);
            return;
        }
        case Verb::rope: {
            const Buffer &x = buffers_[i.x], &out = buffers_[i.out];
            const Rope& rope = ropes_[i.rope];
            const size_t d = 2 * rope.half();
            const auto [begin, end] = share(tokens_, thread, threads);
            for (size_t t = begin; t < end; t++)
                for (int h = 0; h < i.heads; h++)
                    kernels_.rope(x.row(t) + h * d, rope.cos(t), rope.sin(t), static_cast<int>(d), out.row(t) + h * d);
            return;
        }
        case Verb::add:
        case Verb::swiglu: {
            const Buffer &a = buffers_[i.x], &b = buffers_[i.y], &out = buffers_[i.out];
            const auto [begin, end] = share(length(a.length), thread, threads);
            const auto verb = i.verb == Verb::add ? kernels_.add : kernels_.swiglu;
            for (size_t t = begin; t < end; t++) verb(a.row(t), b.row(t), a.stride, out.row(t));
            return;
        }
        case Verb::columns: {
            const Buffer &x = buffers_[i.x], &out = buffers_[i.out];
            const auto [begin, end] = share(length(x.length), thread, threads);
            for (size_t t = begin; t < end; t++) {
                const float* from = x.row(t);
                float* to = out.row(t);
                for (size_t k = 0; k < i.order.size(); k++) to[k] = from[i.order[k]];
            }
            return;
        }
        case Verb::rows: {
            const Buffer &x = buffers_[i.x], &out = buffers_[i.out];
            const auto [begin, end] = share(rows_, thread, threads);
            for (size_t r = begin; r < end; r++) std::memcpy(out.row(r), x.row(batch_.logit_rows[r]), x.stride * 4);
            return;
        }
    }
}

size_t Plan::panels(const Instruction& i) const {
    size_t total = 0;
    for (const Output& o : i.outputs) total += weights_.weight(o.weight).panels;
    return total;
}

// Where the thread's own weights of the next linear begin, in this step or the next.
const uint8_t* Plan::next_read(size_t index, int thread) const {
    do index = (index + 1) % instructions_.size();
    while (instructions_[index].verb != Verb::linear && instructions_[index].verb != Verb::gated);
    const Instruction& next = instructions_[index];
    size_t panel = range(panels(next), thread, pool_.active()).first;
    for (const Output& o : next.outputs) {
        const PackedWeight& w = weights_.weight(o.weight);
        if (panel < w.panels) return w.data + panel * w.panel_stride;
        panel -= w.panels;
    }
    return weights_.weight(next.outputs[0].weight).data;  // more threads than panels
}

void Plan::run_linear(const Instruction& i, size_t index, int thread) {
    const Buffer& x = buffers_[i.x];
    const size_t tokens = length(x.length);
    if (tokens == 0) return;
    Thread& own = threads_[thread];
    const Activation type = activation_of(weights_.weight(i.outputs[0].weight).format, wide_);
    const size_t token_bytes = packed_bytes(type, x.width);

    // Few tokens: every thread packs them for itself, which is cheaper than meeting. Many: shared out, then a meeting.
    const bool alone = tokens <= kTile;
    uint8_t* packed = alone ? own.activations.data() : activations_.data();
    const size_t tiles = (tokens + kTile - 1) / kTile;
    const auto [first, last] = alone ? std::pair<size_t, size_t>{0, tiles} : share(tiles, thread, pool_.active());
    for (size_t tile = first; tile < last; tile++) {
        const size_t token = tile * kTile;
        kernels_.prepare(type, x.row(token), x.stride, x.width,
                         static_cast<int>(std::min<size_t>(kTile, tokens - token)), i.norm, i.eps,
                         reinterpret_cast<float*>(own.row.data()), packed + token * token_bytes);
    }
    if (!alone) pool_.barrier();

    const size_t total = panels(i);
    // An even number of panels at a time: kernels work on pairs.
    const size_t at_a_time = std::max<size_t>(2, total / (pool_.active() * 4) / 2 * 2);
    const uint8_t* next = next_read(index, thread);
    claim(index, thread, total, at_a_time, [&](size_t begin, size_t end, size_t last) {
        size_t base = 0;
        for (size_t part = 0; part < i.outputs.size(); part++) {
            const Output& o = i.outputs[part];
            const PackedWeight& w = weights_.weight(o.weight);
            if (begin < base + w.panels && end > base) {
                const bool goes_on = last > base + w.panels;  // to the next weight
                const Buffer& out = buffers_[o.buffer];
                const bool gated = i.verb == Verb::gated, add = i.residual >= 0 || o.bias >= 0;
                const LinearArgs args = {
                    .weights = w.data,
                    .panel_stride = gated ? w.panel_stride / 2 : w.panel_stride,
                    .inputs = padded_inputs(type, x.width),
                    .activations = packed,
                    .token_bytes = token_bytes,
                    .tokens = tokens,
                    .out = out.data,
                    .out_stride = out.stride,
                    .residual = i.residual >= 0 ? buffers_[i.residual].data
                                : o.bias >= 0   ? weights_.vector(o.bias).data()
                                                : nullptr,
                    .residual_stride = i.residual >= 0 ? out.stride : 0,
                    .epilogue = gated ? Epilogue::swiglu
                                : add ? Epilogue::add
                                      : Epilogue::store,
                    .read_end = w.data + (std::min(last, base + w.panels) - base) * w.panel_stride,
                    .read_next = goes_on ? weights_.weight(i.outputs[part + 1].weight).data : next,
                    .read_ahead = w.panels * w.panel_stride < kLongRead ? kFarAhead : kAhead,
                };
                const auto& linear = type == Activation::bf16_groups ? kernels_.linear_bf16 : kernels_.linear;
                linear[static_cast<int>(w.format)](args, std::max(begin, base) - base,
                                                   std::min(end, base + w.panels) - base);
            }
            base += w.panels;
        }
    });
}

// -- what a step left -----------------------------------------------------------------------------------------------

const float* Plan::row(size_t index) const {
    if (result_ < 0 || index >= length(buffers_[result_].length)) throw std::out_of_range("no row of that number");
    return buffers_[result_].row(index);
}

size_t Plan::result_width() const { return result_ < 0 ? 0 : buffers_[result_].width; }
size_t Plan::result_stride() const { return result_ < 0 ? 0 : buffers_[result_].stride; }

size_t Plan::instructions() const { return instructions_.size(); }

void Plan::profile(bool on) {
    spent_.assign(on ? instructions_.size() * threads_.size() : 0, {});
    profiled_seconds_ = 0;
}

std::vector<Plan::Stage> Plan::stages() const {
    std::vector<Stage> stages(spent_.empty() ? 0 : instructions_.size());
    for (size_t i = 0; i < stages.size(); i++) {
        for (size_t t = 0; t < threads_.size(); t++) stages[i].threads.push_back(spent_[t * stages.size() + i]);
        const Verb verb = instructions_[i].verb;
        if (verb != Verb::linear && verb != Verb::gated) continue;
        for (const Output& o : instructions_[i].outputs) {
            const PackedWeight& w = weights_.weight(o.weight);
            stages[i].bytes += w.panels * w.panel_stride;
        }
    }
    return stages;
}

std::span<float> Plan::contents(int buffer) {
    const Buffer& b = checked(buffer);
    return {b.data, b.data ? length(b.length) * b.stride : 0};
}

}  // namespace qb
