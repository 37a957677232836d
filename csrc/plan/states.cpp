// Verbs with a state: convolutions over the last few tokens, and recurrences.
//
// The work is divided over sequences, and heads or channels; the tokens of a sequence run one after the other.
#include <cmath>
#include <string>

#include "plan/internal.h"

namespace qb {

namespace {

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument(why); }

constexpr size_t kChannels = 64;  // of a convolution, that one thread takes at a time

}  // namespace

// -- recording ------------------------------------------------------------------------------------------------------

void Plan::keep(Instruction& i, size_t offset, size_t floats) const {
    if (!states_ || offset % kLanes || offset > states_->floats() || floats > states_->floats() - offset)
        refuse("a verb's state does not fit its place");
    i.state = offset;
}

void Plan::short_conv(int x, int filter, int bias, size_t state, int out) {
    same_shape("short_conv", {x, out});
    const Buffer& in = checked(x);
    if (in.length != Length::tokens || x == out) refuse("short_conv takes tokens and overwrites none");
    if (filter < 0) refuse("short_conv: no filter");
    const std::span<const float> values = weights_.vector(filter);
    const size_t length = values.size() / in.width;
    if (length < 2 || values.size() != length * in.width) refuse("short_conv: the filter does not fit its input");
    const float* vector = bias_vector(bias, in.width);
    Instruction made{Verb::short_conv};
    keep(made, state, product(length - 1, in.stride));
    made.taps.assign(product(length, in.stride), 0.0f);  // by tap, so that channels lie side by side
    for (size_t c = 0; c < in.width; c++)
        for (size_t j = 0; j < length; j++) made.taps[j * in.stride + c] = values[c * length + j];
    made.x = x;
    made.out = out;
    made.bias = vector;
    instructions_.push_back(std::move(made));
}

void Plan::recurrence(const Recurrence& r) {
    const Buffer &q = checked(r.q), &k = checked(r.k), &v = checked(r.v), &out = checked(r.out);
    if (r.heads < 1 || r.key_heads < 1 || r.heads % r.key_heads || k.width % r.key_heads || v.width % r.heads)
        refuse("recurrence: inputs do not fit the heads");
    if (q.width != k.width || out.width != v.width) refuse("recurrence: inputs do not fit each other");
    if (v.width / r.heads % kLanes) refuse("recurrence: heads must have a multiple of 16 values");
    for (int scalars : {r.beta, r.decay})
        if (checked(scalars).width != static_cast<size_t>(r.heads)) refuse("recurrence: one number a head is needed");
    for (int b : {r.q, r.k, r.v, r.beta, r.decay, r.out})
        if (checked(b).length != Length::tokens) refuse("recurrence works on tokens");
    for (int b : {r.q, r.k, r.v, r.beta, r.decay})
        if (b == r.out) refuse("recurrence cannot overwrite its input");
    const float* skip = bias_vector(r.skip, r.heads);
    Instruction made{Verb::recurrence};
    keep(made, r.state, product(k.width / r.key_heads, v.width));
    made.x = r.q;
    made.y = r.k;
    made.z = r.v;
    made.out = r.out;
    made.heads = r.heads;
    made.key_heads = r.key_heads;
    made.beta = r.beta;
    made.decay = r.decay;
    made.delta = r.delta;
    made.bias = skip;
    instructions_.push_back(std::move(made));
}

void Plan::decay(int x, int log_rate, int out) {
    same_shape("decay", {x, out});
    if (log_rate < 0) refuse("decay: no rates");
    const float* rates = bias_vector(log_rate, checked(x).width);
    note(Verb::decay, x, out).bias = rates;
}

void Plan::softplus(int x, int out) {
    same_shape("softplus", {x, out});
    note(Verb::softplus, x, out);
}

// -- a step ---------------------------------------------------------------------------------------------------------

void Plan::check_states(const BatchView& b) const {
    const size_t sequences = b.starts.size() - 1, places = states_ && states_->floats() ? states_->places() : 0;
    if (!places && b.reads.empty() && b.writes.empty()) return;
    if (b.reads.size() != sequences || b.writes.size() != sequences)
        refuse("batch: each sequence must read its states from a place and write them to one");
    for (int32_t place : b.reads)
        if (place < -1 || (place >= 0 && static_cast<size_t>(place) >= places))
            refuse("batch: no place of that number");
    for (size_t i = 0; i < sequences; i++) {
        const int32_t place = b.writes[i];
        if (place < 0 || static_cast<size_t>(place) >= places) refuse("batch: no place of that number");
        for (size_t j = 0; j < sequences; j++)
            if (b.reads[j] == place || (j != i && b.writes[j] == place))
                refuse("batch: a place that is written to is nobody else's in this step");
    }
}

const float* Plan::read_state(const Instruction& i, size_t sequence) const {
    const int32_t place = batch_.reads[sequence];
    return place < 0 ? nullptr : states_->at(place, i.state);
}

float* Plan::written_state(const Instruction& i, size_t sequence) const {
    return states_->at(batch_.writes[sequence], i.state);
}

void Plan::run_short_conv(const Instruction& i, size_t index, int thread) {
    const Buffer &x = buffers_[i.x], &out = buffers_[i.out];
    const size_t parts = (x.stride + kChannels - 1) / kChannels, length = i.taps.size() / x.stride;
    claim(index, thread, sequences_ * parts, 1, [&](size_t begin, size_t end, size_t) {
        for (size_t item = begin; item < end; item++) {
            const size_t s = item / parts, c = item % parts * kChannels, first = batch_.starts[s];
            const float* read = read_state(i, s);
            kernels_.short_conv({
                .x = x.row(first) + c,
                .out = out.row(first) + c,
                .stride = x.stride,
                .tokens = static_cast<size_t>(batch_.starts[s + 1]) - first,
                .channels = std::min(kChannels, x.stride - c),
                .filter = i.taps.data() + c,
                .filter_stride = x.stride,
                .length = length,
                .bias = i.bias ? i.bias + c : nullptr,
                .read = read ? read + c : nullptr,
                .write = written_state(i, s) + c,
                .state_stride = x.stride,
            });
        }
    });
}

void Plan::run_recurrence(const Instruction& i, size_t index, int thread) {
    const Buffer &q = buffers_[i.x], &k = buffers_[i.y], &v = buffers_[i.z], &out = buffers_[i.out],
                 &beta = buffers_[i.beta], &decay = buffers_[i.decay];
    const size_t heads = i.heads, keys = k.width / i.key_heads, values = v.width / heads, panels = values / kLanes;
    // What is kept of a head lies in panels of 16 columns: (V / 16, K, 16).
    claim(index, thread, sequences_ * heads * panels, panels, [&](size_t begin, size_t end, size_t) {
        for (size_t item = begin; item < end; item++) {
            const size_t s = item / (heads * panels), column = item % (heads * panels) * kLanes, head = column / values,
                         first = batch_.starts[s], key_head = head / (heads / i.key_heads), at = column * keys;
            const float* read = read_state(i, s);
            kernels_.recurrence({
                .q = q.row(first) + key_head * keys,
                .k = k.row(first) + key_head * keys,
                .key_stride = k.stride,
                .v = v.row(first) + column,
                .out = out.row(first) + column,
                .value_stride = v.stride,
                .beta = beta.row(first) + head,
                .decay = decay.row(first) + head,
                .head_stride = beta.stride,
                .tokens = static_cast<size_t>(batch_.starts[s + 1]) - first,
                .keys = keys,
                .delta = i.delta,
                .skips = i.bias != nullptr,
                .skip = i.bias ? i.bias[head] : 0.0f,
                .read = read ? read + at : nullptr,
                .write = written_state(i, s) + at,
            });
        }
    });
}

// In double, so that every instruction set makes the same of it: a few numbers a token, on which much depends.
void Plan::decay_row(const Instruction& i, const float* x, size_t width, float* out) {
    for (size_t h = 0; h < width; h++)
        out[h] = static_cast<float>(std::exp(-std::exp(double{i.bias[h]}) * double{x[h]}));
}

void Plan::softplus_row(const float* x, size_t width, float* out) {
    for (size_t h = 0; h < width; h++)
        out[h] = static_cast<float>(std::max(double{x[h]}, 0.0) + std::log1p(std::exp(-std::abs(double{x[h]}))));
}

}  // namespace qb
