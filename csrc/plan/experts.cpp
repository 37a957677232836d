// Mixtures of experts: which of them each token takes, and the weighted sum of what those make of it.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "plan/internal.h"

namespace qb {

namespace {

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument(why); }

// The number of the largest of `keys` that is not taken, the first of equals. At least one must be left.
size_t take_largest(std::span<const float> keys, std::span<uint8_t> taken) {
    size_t best = keys.size();
    for (size_t i = 0; i < keys.size(); i++)
        if (!taken[i] && (best == keys.size() || keys[i] > keys[best])) best = i;
    taken[best] = 1;
    return best;
}

template <class T> void grow(std::vector<T>& v, size_t size, size_t& growths) {
    if (v.size() >= size) return;
    v.resize(size);
    growths++;
}

}  // namespace

// -- recording ------------------------------------------------------------------------------------------------------

void Plan::route(int logits, const Router& r, int bias, int scales, int out) {
    const size_t experts = checked(logits).width, groups = r.groups, size = groups ? experts / groups : 0;
    if (r.top_k < 1 || checked(out).width != size_t{2} * r.top_k || checked(out).length != checked(logits).length ||
        experts > (size_t{1} << 24))
        refuse("route: a row of experts and weights does not fit");
    if (r.groups < 1 || experts % groups || r.top_groups < 1 || r.top_groups > r.groups || r.group_best < 1 ||
        static_cast<size_t>(r.group_best) > size || static_cast<size_t>(r.top_k) > r.top_groups * size)
        refuse("route: " + std::to_string(r.top_k) + " of " + std::to_string(experts) +
               " experts cannot be chosen from " + std::to_string(r.top_groups) + " of " + std::to_string(r.groups) +
               " groups");
    const float *added = bias_vector(bias, experts), *times = bias_vector(scales, experts);
    Instruction& i = note(Verb::route, logits, out);
    i.bias = added;
    i.scales = times;
    i.router = static_cast<int>(routers_.size());
    routers_.push_back(r);
}

void Plan::experts(int x, int routing, const std::vector<Expert>& experts, Nonlinearity nonlinearity, float limit,
                   int out) {
    if (experts.empty()) refuse("a mixture without experts");
    const Buffer &in = checked(x), &chosen = checked(routing), &result = checked(out);
    const size_t top_k = chosen.width / 2;
    if (chosen.width != 2 * top_k || top_k < 1 || top_k > experts.size() || chosen.length != in.length)
        refuse("experts: the routing does not fit");
    if (result.length != in.length || out == x || out == routing) refuse("experts: the output does not fit");
    if (nonlinearity == Nonlinearity::clamped && !(limit > 0)) refuse("a clamped gate needs a limit above 0");
    const PackedWeight &gate = weights_.weight(experts[0].gate), &down = weights_.weight(experts[0].down);
    Mixture m{experts,
              top_k,
              activation_of(gate.format, wide_),
              activation_of(down.format, wide_),
              in.width,
              gate.rows,
              result.width,
              nonlinearity,
              limit};
    for (const Expert& e : experts) {
        const PackedWeight &g = alternating(e.gate, e.up), &d = weights_.weight(e.down);
        if (g.inputs != in.width || g.rows != m.hidden || d.inputs != m.hidden || d.rows != result.width)
            refuse("experts: weights do not fit input, output and each other");
        if (activation_of(g.format, wide_) != m.input_type || activation_of(d.format, wide_) != m.hidden_type)
            refuse("experts of one mixture must round their input alike");
        bias_vector(e.gate_bias, m.hidden), bias_vector(e.up_bias, m.hidden), bias_vector(e.down_bias, d.rows);
    }
    Instruction& i = note(Verb::experts, x, out);
    i.y = routing;
    i.mixture = static_cast<int>(mixtures_.size());
    mixtures_.push_back(std::move(m));
}

void Plan::gate_rows(int x, int gate, int out) {
    same_shape("gate_rows", {x, out});
    if (checked(gate).width != 1 || checked(gate).length != checked(x).length) refuse("gate_rows needs one gate a row");
    note(Verb::gate_rows, x, out).y = gate;
}

// -- a step ---------------------------------------------------------------------------------------------------------

void Plan::prepare_mixtures() {
    size_t most_experts = 0, most_pairs = 0;
    for (const Mixture& m : mixtures_) {
        const size_t pairs = product(tokens_, m.top_k);
        const size_t bytes = std::max(packed_bytes(m.input_type, m.inputs, kernels_.pair_bytes),
                                      packed_bytes(m.hidden_type, m.hidden, kernels_.pair_bytes));
        pair_inputs_.need(product(pairs, bytes), growths_);
        pair_hidden_.need(product(pairs, padded16(m.hidden) * 4), growths_);
        pair_results_.need(product(pairs, padded16(m.outputs) * 4), growths_);
        for (Thread& thread : threads_) {
            thread.gathered.need(padded16(m.inputs) * 4 * kTile, growths_);
            thread.pair_inputs.need(product(m.top_k, bytes), growths_);
        }
        most_experts = std::max(most_experts, m.experts.size());
        most_pairs = std::max(most_pairs, pairs);
    }
    for (const Instruction& i : instructions_)
        if (i.verb == Verb::route) most_experts = std::max(most_experts, buffers_[i.x].width);
    for (Thread& thread : threads_) {
        Pairs& pairs = thread.pairs;
        grow(pairs.first, most_experts + 1, growths_);
        grow(pairs.token, most_pairs, growths_);
        grow(pairs.place, most_pairs, growths_);
        grow(thread.scores, most_experts, growths_);
        grow(thread.keys, 2 * most_experts, growths_);
        grow(thread.taken, 2 * most_experts, growths_);
        pairs.tiles.reserve(most_pairs);
        pairs.pieces.reserve(most_experts);
    }
}

// In double, so that every instruction set, and the specification, chooses the same experts.
void Plan::route_row(const Instruction& i, const float* logits, Thread& own, float* out) const {
    const Router& r = routers_[i.router];
    const size_t n = buffers_[i.x].width, groups = r.groups, size = n / groups, top_k = r.top_k;
    const float* bias = i.bias;
    double* scores = own.scores.data();

    double largest = -std::numeric_limits<double>::infinity(), total = 0;
    for (size_t e = 0; e < n; e++) largest = std::max<double>(largest, logits[e]);
    for (size_t e = 0; e < n; e++) {
        scores[e] = r.sigmoid ? 1 / (1 + std::exp(-double{logits[e]})) : std::exp(logits[e] - largest);
        total += scores[e];
    }
    if (!r.sigmoid)
        for (size_t e = 0; e < n; e++) scores[e] /= total;

    // Where only their order matters, logits are compared themselves: two of them may have the same score.
    const bool by_score = r.sigmoid || bias || r.group_best > 1;
    const std::span<float> keys(own.keys.data(), n), group_keys(own.keys.data() + n, groups);
    const std::span<uint8_t> taken(own.taken.data(), n), groups_taken(own.taken.data() + n, groups);
    for (size_t e = 0; e < n; e++)
        keys[e] = by_score ? static_cast<float>(scores[e]) + (bias ? bias[e] : 0.0f) : logits[e];
    std::fill(taken.begin(), taken.end(), uint8_t{0});
    if (r.top_groups < r.groups) {
        for (size_t g = 0; g < groups; g++) {
            group_keys[g] = 0.0f;
            for (int best = 0; best < r.group_best; best++)
                group_keys[g] +=
                    keys[g * size + take_largest(keys.subspan(g * size, size), taken.subspan(g * size, size))];
        }
        std::fill(taken.begin(), taken.end(), uint8_t{1});
        std::fill(groups_taken.begin(), groups_taken.end(), uint8_t{0});
        for (int g = 0; g < r.top_groups; g++) {
            const size_t group = take_largest(group_keys, groups_taken);
            std::fill_n(taken.begin() + group * size, size, uint8_t{0});
        }
    }
    for (size_t j = 0; j < top_k; j++) out[j] = static_cast<float>(take_largest(keys, taken));
    std::sort(out, out + top_k);
    double sum = 0;
    for (size_t j = 0; j < top_k; j++) sum += scores[static_cast<size_t>(out[j])];
    const double factor = r.renormalise ? r.scale / std::max(sum, r.least) : r.scale;
    for (size_t j = 0; j < top_k; j++) {
        const size_t e = static_cast<size_t>(out[j]);
        out[top_k + j] = static_cast<float>(scores[e] * factor * (i.scales ? i.scales[e] : 1.0f));
    }
}

// Every thread sorts for itself, which is cheaper than meeting.
void Plan::sort_pairs(const Mixture& m, const Buffer& routing, size_t tokens, Pairs& pairs) const {
    const size_t n = m.experts.size();
    const auto expert = [&](size_t token, size_t j) {
        const float number = routing.row(token)[j];
        if (!(number >= 0 && number < static_cast<float>(n))) throw std::runtime_error("experts: no such expert");
        return static_cast<size_t>(number);
    };
    std::fill_n(pairs.first.begin(), n + 1, 0u);
    for (size_t t = 0; t < tokens; t++)
        for (size_t j = 0; j < m.top_k; j++) pairs.first[expert(t, j) + 1]++;
    for (size_t e = 0; e < n; e++) pairs.first[e + 1] += pairs.first[e];
    for (size_t t = 0; t < tokens; t++)
        for (size_t j = 0; j < m.top_k; j++) {
            const uint32_t at = pairs.first[expert(t, j)]++;
            pairs.token[at] = static_cast<uint32_t>(t);
            pairs.place[t * m.top_k + j] = at;
        }
    for (size_t e = n; e > 0; e--) pairs.first[e] = pairs.first[e - 1];
    pairs.first[0] = 0;
    pairs.tiles.clear();
    for (size_t e = 0; e < n; e++)
        for (uint32_t at = pairs.first[e]; at < pairs.first[e + 1]; at += kTile)
            pairs.tiles.push_back({at, std::min<uint32_t>(kTile, pairs.first[e + 1] - at)});
}

// Panels of all pieces, one weight after the other, are claimed as if they were one weight's.
void Plan::run_pieces(const Pieces& p, size_t claims, int thread, const uint8_t* next) {
    const std::vector<Piece>& pieces = threads_[thread].pairs.pieces;
    const size_t panels = pieces[0].weight->panels, total = pieces.size() * panels;
    const size_t at_a_time = std::max<size_t>(2, total / (pool_.active() * 4) / 2 * 2);
    claim(claims, thread, total, at_a_time, [&](size_t begin, size_t end, size_t last) {
        for (size_t n = begin / panels; n * panels < end; n++) {
            const Piece& piece = pieces[n];
            const PackedWeight& w = *piece.weight;
            const size_t base = n * panels;
            const bool goes_on = last > base + panels;
            const LinearArgs args = {
                .weights = w.data,
                .panel_stride = p.gated ? w.panel_stride / 2 : w.panel_stride,
                .inputs = padded_inputs(p.type, w.inputs),
                .activations = piece.activations,
                .token_bytes = packed_bytes(p.type, w.inputs, kernels_.pair_bytes),
                .tokens = piece.tokens,
                .out = piece.out,
                .out_stride = p.out_stride,
                .bias = piece.bias,
                .up_bias = piece.up_bias,
                .residual = nullptr,
                .gated = p.gated,
                .nonlinearity = p.nonlinearity,
                .limit = p.limit,
                .read_end = w.data + (std::min(last, base + panels) - base) * w.panel_stride,
                .read_next = goes_on ? pieces[n + 1].weight->data : next,
                .read_ahead = read_ahead(total * w.panel_stride),
                .scratch = threads_[thread].linear.data(),
            };
            const auto& linear = p.type == Activation::bf16_groups ? kernels_.linear_bf16 : kernels_.linear;
            linear[static_cast<int>(w.format)](args, std::max(begin, base) - base, std::min(end, base + panels) - base);
        }
    });
}

void Plan::run_experts(const Instruction& i, size_t index, int thread) {
    const Mixture& m = mixtures_[i.mixture];
    const Buffer &x = buffers_[i.x], &out = buffers_[i.out], &routing = buffers_[i.y];
    const size_t tokens = length(x.length), hidden_stride = padded16(m.hidden), result_stride = padded16(m.outputs);
    if (tokens == 0) return;
    Thread& own = threads_[thread];
    Pairs& pairs = own.pairs;
    sort_pairs(m, routing, tokens, pairs);
    const size_t n = m.experts.size();
    float* hidden = reinterpret_cast<float*>(pair_hidden_.data());
    float* results = reinterpret_cast<float*>(pair_results_.data());

    // One token: every thread packs it, and what comes of it, for itself. More: shared out, then a meeting.
    const bool alone = tokens == 1;
    uint8_t* packed = alone ? own.pair_inputs.data() : pair_inputs_.data();
    const auto [first, last] =
        alone ? std::pair<size_t, size_t>{0, pairs.tiles.size()} : share(pairs.tiles.size(), thread, pool_.active());
    const size_t input_bytes = packed_bytes(m.input_type, m.inputs, kernels_.pair_bytes);
    if (alone) {
        kernels_.prepare(m.input_type, x.data, x.stride, x.width, 1, nullptr, nullptr, packed);
    } else {
        float* rows = reinterpret_cast<float*>(own.gathered.data());
        for (size_t t = first; t < last; t++) {
            const auto [at, count] = pairs.tiles[t];
            for (size_t row = 0; row < count; row++)
                std::memcpy(rows + row * x.stride, x.row(pairs.token[at + row]), x.stride * 4);
            kernels_.prepare(m.input_type, rows, x.stride, x.width, static_cast<int>(count), nullptr, nullptr,
                             packed + at * input_bytes);
        }
        pool_.barrier();
    }

    const auto vector = [&](int bias) { return bias < 0 ? nullptr : weights_.vector(bias).data(); };
    pairs.pieces.clear();
    for (size_t e = 0; e < n; e++)
        if (const size_t at = pairs.first[e], count = pairs.first[e + 1] - at; count)
            pairs.pieces.push_back({&weights_.weight(m.experts[e].gate), alone ? packed : packed + at * input_bytes,
                                    count, hidden + at * hidden_stride, vector(m.experts[e].gate_bias),
                                    vector(m.experts[e].up_bias), e});
    const size_t panels = weights_.weight(m.experts[0].down).panels;
    const size_t item = range(pairs.pieces.size() * panels, thread, pool_.active()).first;
    const PackedWeight& down =
        weights_.weight(m.experts[pairs.pieces[item / panels % pairs.pieces.size()].expert].down);
    run_pieces({m.input_type, hidden_stride, true, m.nonlinearity, m.limit}, index, thread,
               down.data + item % panels * down.panel_stride);
    pool_.barrier();

    const size_t hidden_bytes = packed_bytes(m.hidden_type, m.hidden, kernels_.pair_bytes);
    for (size_t t = first; t < last; t++) {
        const auto [at, count] = pairs.tiles[t];
        kernels_.prepare(m.hidden_type, hidden + at * hidden_stride, hidden_stride, m.hidden, static_cast<int>(count),
                         nullptr, nullptr, packed + at * hidden_bytes);
    }
    if (!alone) pool_.barrier();
    for (Piece& piece : pairs.pieces) {
        const Expert& expert = m.experts[piece.expert];
        const size_t at = pairs.first[piece.expert];
        piece.weight = &weights_.weight(expert.down);
        piece.activations = packed + at * hidden_bytes;
        piece.out = results + at * result_stride;
        piece.bias = vector(expert.down_bias);
        piece.up_bias = nullptr;
    }
    run_pieces({m.hidden_type, result_stride, false, m.nonlinearity, m.limit}, index + instructions_.size(), thread,
               next_read(index, thread));
    pool_.barrier();

    const auto [begin, end] = share(tokens, thread, pool_.active());
    for (size_t t = begin; t < end; t++)
        for (size_t j = 0; j < m.top_k; j++) {
            const float* result = results + pairs.place[t * m.top_k + j] * result_stride;
            const float weight = routing.row(t)[m.top_k + j];
            if (j == 0)
                kernels_.scale(result, weight, result_stride, out.row(t));
            else
                kernels_.add_scaled(result, weight, out.row(t), result_stride, out.row(t));
        }
}

size_t Plan::bytes_of_token(const Instruction& i) const {
    const Mixture& m = mixtures_[i.mixture];
    size_t all = 0;
    for (const Expert& e : m.experts)
        for (size_t index : {e.gate, e.down})  // the stride of a gate is that of up too
            all += weights_.weight(index).panels * weights_.weight(index).panel_stride;
    return all / m.experts.size() * m.top_k;
}

}  // namespace qb
