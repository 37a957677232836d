#include "plan/plan.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "core/denormals.h"
#include "plan/internal.h"

namespace qb {

namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::time_point start, Clock::time_point end) {
    return std::chrono::duration<double>(end - start).count();
}

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument(why); }

void check_limit(Nonlinearity nonlinearity, float limit) {
    if (nonlinearity == Nonlinearity::clamped && !(limit > 0)) refuse("a clamped gate needs a limit above 0");
}

}  // namespace

Plan::Plan(Pool& pool, const Weights& weights, KvMemory& kv, const Kernels& kernels, bool wide, StateMemory* states)
    : pool_(pool),
      weights_(weights),
      kv_(kv),
      kernels_(kernels),
      wide_(wide),
      states_(states),
      threads_(pool.threads()) {}
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

Plan::Instruction& Plan::note(Verb verb, int x, int out) {
    Instruction& i = instructions_.emplace_back(Instruction{verb});
    i.x = x;
    i.out = out;
    return i;
}

void Plan::same_shape(const char* verb, std::initializer_list<int> buffers) {
    const Buffer& first = checked(*buffers.begin());
    for (int i : buffers)
        if (checked(i).width != first.width || checked(i).length != first.length)
            refuse(std::string(verb) + " changes no shape");
}

const float* Plan::bias_vector(int bias, size_t width) const {
    if (bias < 0) return nullptr;
    const std::span<const float> vector = weights_.vector(bias);
    if (vector.size() != width) refuse("a bias does not fit its output");
    return vector.data();
}

int Plan::norm(int weight, int bias, float eps, bool centred) {
    if (weight < 0) refuse("a norm without a weight");
    if (bias >= 0 && !centred) refuse("only a centred norm has a bias");
    const std::span<const float> vector = weights_.vector(weight);
    if (bias >= 0 && weights_.vector(bias).size() != vector.size()) refuse("a norm's bias does not fit its weight");
    norms_.push_back({{vector.data(), bias < 0 ? nullptr : weights_.vector(bias).data(), eps, centred}, vector.size()});
    return static_cast<int>(norms_.size()) - 1;
}

Plan::Applied Plan::applied(int norm, size_t width, size_t heads) const {
    if (norm < 0) return {};
    if (static_cast<size_t>(norm) >= norms_.size()) refuse("no norm of that number");
    const Normed& n = norms_[norm];
    if (n.width == width) return {n.norm, 0};
    if (heads < 2 || n.width != width * heads) refuse("a norm's weight does not fit its input");
    if (width % kLanes) refuse("a norm with a weight for each head needs heads of a multiple of 16 values");
    return {n.norm, width};
}

int Plan::rotation(std::span<const double> frequencies, std::span<const double> factors, size_t start,
                   bool interleaved) {
    if (factors.empty() || frequencies.empty() || frequencies.size() % factors.size())
        refuse("a rotation needs frequencies and a factor for each of its variants");
    ropes_.push_back(
        {{frequencies.begin(), frequencies.end()}, {factors.begin(), factors.end()}, start, interleaved, {}, nullptr});
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
    note(Verb::embed, -1, out).outputs = {{weight, out}};
}

void Plan::positions(size_t weight, size_t offset, int out) {
    const PackedWeight& table = weights_.weight(weight);
    if (checked(out).width != table.inputs || checked(out).length != Length::tokens)
        refuse("the table of positions does not fit its buffer");
    if (offset >= table.rows) refuse("the table of positions has no row of its offset");
    Instruction& i = note(Verb::positions, -1, out);
    i.outputs = {{weight, out}};
    i.begin = offset;
    i.end = table.rows;
}

void Plan::linear(int x, const std::vector<Output>& outputs, int norm, int residual) {
    if (outputs.empty()) refuse("a linear without outputs");
    const Activation type = activation_of(weights_.weight(outputs[0].weight).format, wide_);
    for (const Output& o : outputs) {
        const PackedWeight& w = weights_.weight(o.weight);
        const Buffer& out = checked(o.buffer);
        if (w.inputs != checked(x).width || w.rows != out.width || out.length != checked(x).length)
            refuse("a linear's weight does not fit its input and output");
        if (activation_of(w.format, wide_) != type) refuse("weights of one linear must round their input alike");
        if (o.buffer == x) refuse("a linear cannot overwrite its input");
        bias_vector(o.bias, w.rows);
    }
    if (residual >= 0 && (outputs.size() != 1 || checked(residual).width != checked(outputs[0].buffer).width ||
                          checked(residual).length != checked(outputs[0].buffer).length))
        refuse("a residual does not fit the output");
    const Applied applied_norm = applied(norm, checked(x).width);
    Instruction& i = note(Verb::linear, x, -1);
    i.outputs = outputs;
    i.norm = applied_norm;
    i.residual = residual;
    token_bytes_ = std::max(token_bytes_, packed_bytes(type, checked(x).width, kernels_.pair_bytes));
}

const PackedWeight& Plan::alternating(size_t gate, size_t up) const {
    const PackedWeight &g = weights_.weight(gate), &u = weights_.weight(up);
    if (g.format != u.format || g.rows != u.rows || g.inputs != u.inputs || g.panel_stride != u.panel_stride ||
        u.data != g.data + g.panel_stride / 2)
        refuse("the panels of gate and up must alternate");
    return g;
}

void Plan::gated_linear(int x, const Gate& gate, int out) {
    const PackedWeight& g = alternating(gate.gate, gate.up);
    if (g.inputs != checked(x).width || g.rows != checked(out).width || checked(out).length != checked(x).length ||
        out == x)
        refuse("gate and up do not fit their input and output");
    bias_vector(gate.gate_bias, g.rows), bias_vector(gate.up_bias, g.rows);
    check_limit(gate.nonlinearity, gate.limit);
    const Applied applied_norm = applied(gate.norm, checked(x).width);
    Instruction& i = note(Verb::gated_linear, x, out);
    i.outputs = {{gate.gate, out, gate.gate_bias}, {gate.up, out, gate.up_bias}};
    i.norm = applied_norm;
    i.nonlinearity = gate.nonlinearity;
    i.factor = gate.limit;
    token_bytes_ =
        std::max(token_bytes_, packed_bytes(activation_of(g.format, wide_), checked(x).width, kernels_.pair_bytes));
}

void Plan::normalise(int x, int norm, int out, int heads) {
    if (norm < 0) refuse("a norm without a weight");
    if (heads < 1 || checked(x).width % heads) refuse("a norm of heads needs equal parts");
    same_shape("a norm", {x, out});
    const Applied applied_norm = applied(norm, checked(x).width / heads, heads);
    Instruction& i = note(Verb::normalise, x, out);
    i.norm = applied_norm;
    i.heads = heads;
}

void Plan::rope(int x, int rotation, int heads, int out) {
    const Rope& rope = checked_rotation(rotation);
    if (heads < 1 || checked(x).width % heads || rope.end() > checked(x).width / heads ||
        checked(out).width != checked(x).width || checked(x).length != Length::tokens ||
        checked(out).length != Length::tokens || x == out)
        refuse("rope: heads and frequencies do not fit the input");
    Instruction& i = note(Verb::rope, x, out);
    i.rope = rotation;
    i.heads = heads;
}

void Plan::attention(const Attention& asked) {
    const auto& [layer, q, k, v, out, heads, scale, rotation, window, q_norm, k_norm, softcap, sinks, slopes] = asked;
    if (layer >= kv_.layers()) refuse("attention: no layer of that number");
    const auto& [kv_heads, d, dv] = kv_.layer(layer);
    if (heads < 1 || heads % kv_heads || heads / kv_heads > kAttendRows)
        refuse("attention: the query heads must be a multiple of the key heads, at most 96 times");
    const bool stores = k >= 0;
    if (stores != (v >= 0)) refuse("attention: keys and values are stored both or not at all");
    if (checked(q).width != heads * d || checked(out).width != heads * dv ||
        (stores && (checked(k).width != kv_heads * d || checked(v).width != kv_heads * dv)))
        refuse("attention: inputs do not fit the heads");
    for (int b : {q, k, v, out})
        if ((b >= 0 || stores) && checked(b).length != Length::tokens) refuse("attention works on tokens");
    if (out == q || out == k || out == v) refuse("attention cannot overwrite its input");
    if (rotation >= 0 && checked_rotation(rotation).end() > d) refuse("attention: frequencies do not fit the heads");
    if (window < 0) refuse("attention: a window cannot be negative");
    if (stores ? (q_norm < 0) != (k_norm < 0) : k_norm >= 0)
        refuse("attention: queries and keys are normalised both or not at all");
    if (!(softcap >= 0)) refuse("attention: a soft cap cannot be negative");
    if (sinks >= 0 && weights_.vector(sinks).size() != static_cast<size_t>(heads))
        refuse("attention: there must be a sink for each head");
    if (!slopes.empty() && slopes.size() != static_cast<size_t>(heads))
        refuse("attention: there must be a slope for each head");
    const Applied applied_q = applied(q_norm, d, heads), applied_k = applied(k_norm, d, kv_heads);
    Instruction& i = note(Verb::attention, q, out);
    i.y = k;
    i.z = v;
    i.layer = layer;
    i.heads = heads;
    i.rope = rotation;
    i.q_norm = applied_q;
    i.k_norm = applied_k;
    i.factor = softcap;
    i.sinks = sinks < 0 ? nullptr : weights_.vector(sinks).data();
    i.slopes = slopes;
    const size_t value_width = kv_.layer(layer).value_width();
    for (size_t a = 0; a < attends_.size() && i.attend < 0; a++) {
        const Attend& it = attends_[a];
        if (it.heads == heads && it.kv_heads == kv_heads && it.value_width == value_width && it.scale == scale &&
            it.window == window)
            i.attend = static_cast<int>(a);
    }
    if (i.attend < 0) {
        Attend a{};
        a.heads = heads;
        a.kv_heads = kv_heads;
        a.value_width = value_width;
        a.scale = scale;
        a.window = window;
        attends_.push_back(std::move(a));
        i.attend = static_cast<int>(attends_.size()) - 1;
    }
    i.use = attends_[i.attend].uses++;
}

void Plan::add(int a, int b, int out) {
    same_shape("add", {a, b, out});
    note(Verb::add, a, out).y = b;
}

void Plan::multiply(int a, int b, int out) {
    same_shape("multiply", {a, b, out});
    note(Verb::multiply, a, out).y = b;
}

void Plan::scale(int x, float factor, int out) {
    same_shape("scale", {x, out});
    note(Verb::scale, x, out).factor = factor;
}

void Plan::softcap(int x, float cap, int out) {
    same_shape("softcap", {x, out});
    if (!(cap > 0)) refuse("a soft cap must be above 0");
    note(Verb::softcap, x, out).factor = cap;
}

void Plan::activate(int x, Nonlinearity nonlinearity, int out) {
    same_shape("activate", {x, out});
    if (nonlinearity == Nonlinearity::clamped) refuse("activate: 'clamped' takes a gate and its partner");
    note(Verb::activate, x, out).nonlinearity = nonlinearity;
}

void Plan::gated(int gate, int up, Nonlinearity nonlinearity, float limit, int out) {
    same_shape("gated", {gate, up, out});
    check_limit(nonlinearity, limit);
    Instruction& i = note(Verb::gated, gate, out);
    i.y = up;
    i.nonlinearity = nonlinearity;
    i.factor = limit;
}

void Plan::part(int x, int heads, size_t begin, size_t end, int out) {
    if (heads < 1 || checked(x).width % heads || begin >= end || end > checked(x).width / heads)
        refuse("part: heads have no such values");
    if (checked(out).width != heads * (end - begin) || checked(out).length != checked(x).length || out == x)
        refuse("part: the values do not fit their buffer");
    Instruction& i = note(Verb::part, x, out);
    i.heads = heads;
    i.begin = begin;
    i.end = end;
}

void Plan::join(int a, int b, int heads, int out) {
    const size_t first = checked(a).width, second = checked(b).width, both = checked(out).width;
    if (heads < 1 || first % heads || (both != first + second && both != first + heads * second) ||
        (both == first + second && second % heads))
        refuse("join: the heads do not fit");
    if (checked(a).length != checked(b).length || checked(out).length != checked(a).length || out == a || out == b)
        refuse("join: the values do not fit their buffer");
    Instruction& i = note(Verb::join, a, out);
    i.y = b;
    i.heads = heads;
}

void Plan::columns(int x, std::span<const int64_t> order, int out) {
    if (checked(x).width != order.size() || checked(out).width != order.size() ||
        checked(x).length != checked(out).length || x == out)
        refuse("an order of columns does not fit its input and output");
    for (int64_t column : order)
        if (column < 0 || static_cast<size_t>(column) >= order.size()) refuse("no column of that number");
    note(Verb::columns, x, out).order.assign(order.begin(), order.end());
}

void Plan::rows(int x, int out) {
    if (checked(x).width != checked(out).width || checked(x).length != Length::tokens ||
        checked(out).length != Length::rows)
        refuse("rows takes tokens to rows of the same width");
    note(Verb::rows, x, out);
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
    size_t vocabulary = std::numeric_limits<size_t>::max();
    int64_t known = std::numeric_limits<int64_t>::max();  // positions
    for (const Instruction& i : instructions_) {
        if (i.verb == Verb::embed) vocabulary = std::min(vocabulary, weights_.weight(i.outputs[0].weight).rows);
        if (i.verb == Verb::positions) known = std::min(known, static_cast<int64_t>(i.end - i.begin));
    }
    for (int32_t token : b.tokens)
        if (token < 0 || static_cast<size_t>(token) >= vocabulary)
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
        if (int64_t{first} + (b.starts[i + 1] - b.starts[i]) > known)
            refuse("batch: the model knows " + std::to_string(known) + " positions, and a sequence has more");
        for (int32_t j = b.starts[i]; j < b.starts[i + 1]; j++)
            if (b.positions[j] != first + (j - b.starts[i]))
                refuse("batch: positions of a sequence must ascend by one");
    }
    check_states(b);
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
    const size_t d = kv_.widest_key(), dv = kv_.widest_value();
    no_value_.resize(dv);
    for (Thread& thread : threads_) {
        thread.activations.need(kTile * token_bytes_, growths_);
        // attention uses three heads of it, linears a tile of rows
        thread.row.need((kTile * widest_ + 2 * d + dv + kLanes) * 4, growths_);
        thread.linear.need(kernels_.linear_scratch_bytes(), growths_);
        thread.attend.need(kernels_.attend_scratch_bytes(), growths_);
        thread.queries.need(kAttendRows * query_bytes(kv_.type(), d, kernels_.pair_bytes), growths_);
        thread.results.need(2 * kAttendRows * (dv + 2 + kLanes) * 4, growths_);
    }
    for (Attend& attend : attends_) plan_attention(attend);
    prepare_mixtures();
    const size_t claims = 2 * instructions_.size();  // experts claim twice
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
        const NoDenormals none;
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
    const auto each = [&](const auto& row) {  // of this thread's rows
        const auto [begin, end] = share(length(buffers_[i.out].length), thread, threads);
        for (size_t t = begin; t < end; t++) row(t, buffers_[i.out].row(t));
    };
    const auto x = [&](size_t t) { return buffers_[i.x].row(t); };
    const auto y = [&](size_t t) { return buffers_[i.y].row(t); };
    const size_t stride = i.out < 0 ? 0 : buffers_[i.out].stride;
    switch (i.verb) {
        case Verb::linear:
        case Verb::gated_linear: return run_linear(i, index, thread);
        case Verb::attention: return run_attention(i, index, thread);
        case Verb::experts: return run_experts(i, index, thread);
        case Verb::route: return each([&](size_t t, float* out) { route_row(i, x(t), threads_[thread], out); });
        case Verb::gate_rows:
            return each([&](size_t t, float* out) {
                kernels_.scale(x(t), static_cast<float>(1 / (1 + std::exp(-double{*y(t)}))), stride, out);
            });
        case Verb::embed: {
            const PackedWeight& table = weights_.weight(i.outputs[0].weight);
            return each([&](size_t t, float* out) { decode_row(table, batch_.tokens[t], out); });
        }
        case Verb::positions: {
            const PackedWeight& table = weights_.weight(i.outputs[0].weight);
            return each([&](size_t t, float* out) { decode_row(table, i.begin + batch_.positions[t], out); });
        }
        case Verb::normalise: {
            const size_t part = buffers_[i.x].width / i.heads;
            float* padded = reinterpret_cast<float*>(threads_[thread].row.data());
            return each([&](size_t t, float* out) {
                for (int h = 0; h < i.heads; h++) {
                    const Norm norm = i.norm.of_head(h);
                    if (i.heads == 1 || part % kLanes == 0) {
                        kernels_.normalise(norm, x(t) + h * part, part, out + h * part);
                        continue;
                    }
                    std::copy_n(x(t) + h * part, part, padded);
                    std::fill(padded + part, padded + padded16(part), 0.0f);
                    kernels_.normalise(norm, padded, part, padded);
                    std::copy_n(padded, part, out + h * part);
                }
            });
        }
        case Verb::rope: {
            const size_t d = buffers_[i.x].width / i.heads;
            return each([&](size_t t, float* out) {
                for (int h = 0; h < i.heads; h++) rotate(ropes_[i.rope], x(t) + h * d, t, d, out + h * d);
            });
        }
        case Verb::add: return each([&](size_t t, float* out) { kernels_.add(x(t), y(t), stride, out); });
        case Verb::multiply: return each([&](size_t t, float* out) { kernels_.multiply(x(t), y(t), stride, out); });
        case Verb::scale: return each([&](size_t t, float* out) { kernels_.scale(x(t), i.factor, stride, out); });
        case Verb::softcap: return each([&](size_t t, float* out) { kernels_.softcap(x(t), i.factor, stride, out); });
        case Verb::activate: {
            const size_t width = buffers_[i.out].width;
            return each([&](size_t t, float* out) {
                kernels_.activate(i.nonlinearity, x(t), stride, out);
                std::fill(out + width, out + stride, 0.0f);  // a sigmoid's zeros become halves
            });
        }
        case Verb::columns:
            return each([&](size_t t, float* out) {
                for (size_t k = 0; k < i.order.size(); k++) out[k] = x(t)[i.order[k]];
            });
        case Verb::gated:
            return each(
                [&](size_t t, float* out) { kernels_.gate(i.nonlinearity, i.factor, x(t), y(t), stride, out); });
        case Verb::part: {
            const size_t d = buffers_[i.x].width / i.heads, n = i.end - i.begin;
            return each([&](size_t t, float* out) {
                for (int h = 0; h < i.heads; h++) std::copy_n(x(t) + h * d + i.begin, n, out + h * n);
            });
        }
        case Verb::join: {
            const size_t first = buffers_[i.x].width / i.heads, d = buffers_[i.out].width / i.heads, n = d - first;
            const size_t step = buffers_[i.y].width == n ? 0 : n;
            return each([&](size_t t, float* out) {
                for (int h = 0; h < i.heads; h++) {
                    std::copy_n(x(t) + h * first, first, out + h * d);
                    std::copy_n(y(t) + h * step, n, out + h * d + first);
                }
            });
        }
        case Verb::short_conv: return run_short_conv(i, index, thread);
        case Verb::recurrence: return run_recurrence(i, index, thread);
        case Verb::decay: return each([&](size_t t, float* out) { decay_row(i, x(t), buffers_[i.x].width, out); });
        case Verb::softplus: return each([&](size_t t, float* out) { softplus_row(x(t), buffers_[i.x].width, out); });
        case Verb::rows: return each([&](size_t r, float* out) { std::copy_n(x(batch_.logit_rows[r]), stride, out); });
    }
}

size_t Plan::panels(const Instruction& i) const {
    if (i.verb == Verb::gated_linear) return weights_.weight(i.outputs[0].weight).panels;  // of up as many
    size_t total = 0;
    for (const Output& o : i.outputs) total += weights_.weight(o.weight).panels;
    return total;
}

// Where the thread's own weights of the next linear begin, in this step or the next.
const uint8_t* Plan::next_read(size_t index, int thread) const {
    const size_t start = index;
    do index = (index + 1) % instructions_.size();
    while (!is_linear(instructions_[index].verb) && index != start);
    if (!is_linear(instructions_[index].verb)) return weights_.weight(0).data;  // there is none
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
    const size_t token_bytes = packed_bytes(type, x.width, kernels_.pair_bytes);

    // Few tokens: every thread packs them for itself, which is cheaper than meeting. Many: shared out, then a meeting.
    const bool alone = tokens <= kTile;
    uint8_t* packed = alone ? own.activations.data() : activations_.data();
    const size_t tiles = (tokens + kTile - 1) / kTile;
    const auto [first, last] = alone ? std::pair<size_t, size_t>{0, tiles} : share(tiles, thread, pool_.active());
    for (size_t tile = first; tile < last; tile++) {
        const size_t token = tile * kTile;
        kernels_.prepare(type, x.row(token), x.stride, x.width,
                         static_cast<int>(std::min<size_t>(kTile, tokens - token)), i.norm.whole(),
                         reinterpret_cast<float*>(own.row.data()), packed + token * token_bytes);
    }
    if (!alone) pool_.barrier();

    const size_t total = panels(i);
    // An even number of panels at a time: kernels work on pairs.
    const size_t at_a_time = std::max<size_t>(2, total / (pool_.active() * 4) / 2 * 2);
    const uint8_t* next = next_read(index, thread);
    const auto bias = [&](const Output& o) { return o.bias < 0 ? nullptr : weights_.vector(o.bias).data(); };
    const size_t parts = i.verb == Verb::gated_linear ? 1 : i.outputs.size();
    claim(index, thread, total, at_a_time, [&](size_t begin, size_t end, size_t last) {
        size_t base = 0;
        for (size_t part = 0; part < parts; part++) {
            const Output& o = i.outputs[part];
            const PackedWeight& w = weights_.weight(o.weight);
            if (begin < base + w.panels && end > base) {
                const bool goes_on = last > base + w.panels;  // to the next weight
                const Buffer& out = buffers_[o.buffer];
                const bool gated = i.verb == Verb::gated_linear;
                const LinearArgs args = {
                    .weights = w.data,
                    .panel_stride = gated ? w.panel_stride / 2 : w.panel_stride,
                    .inputs = padded_inputs(type, x.width),
                    .activations = packed,
                    .token_bytes = token_bytes,
                    .tokens = tokens,
                    .out = out.data,
                    .out_stride = out.stride,
                    .bias = bias(o),
                    .up_bias = gated ? bias(i.outputs[1]) : nullptr,
                    .residual = i.residual >= 0 ? buffers_[i.residual].data : nullptr,
                    .gated = gated,
                    .nonlinearity = i.nonlinearity,
                    .limit = i.factor,
                    .read_end = w.data + (std::min(last, base + w.panels) - base) * w.panel_stride,
                    .read_next = goes_on ? weights_.weight(i.outputs[part + 1].weight).data : next,
                    .read_ahead = read_ahead(w.panels * w.panel_stride),
                    .scratch = own.linear.data(),
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
        if (verb == Verb::experts) stages[i].bytes = bytes_of_token(instructions_[i]);
        if (!is_linear(verb)) continue;
        for (const Output& o : instructions_[i].outputs) {
            const PackedWeight& w = weights_.weight(o.weight);
            stages[i].bytes += w.panels * w.panel_stride;
            if (verb == Verb::gated_linear) break;  // its stride is that of both
        }
    }
    return stages;
}

std::span<float> Plan::contents(int buffer) {
    const Buffer& b = checked(buffer);
    return {b.data, b.data ? length(b.length) * b.stride : 0};
}

}  // namespace qb
