// Weights, keys and values, plans and draws. No logic: arrays become spans, exceptions become Python's.
#include "plan/plan.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <string>

#include "bind/module.h"
#include "core/kv.h"
#include "core/quantize.h"
#include "core/weights.h"
#include "sample/edits.h"
#include "sample/sampler.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace qb {

namespace {

template <class T> using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T> using Matrix = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class A> auto view(const A& a) { return std::span(a.data(), a.size()); }

Format format_of(const std::string& name) {
    static const char* const names[kFormats] = {"f32",  "f16",  "bf16", "q8_0", "q4_0", "q4_1",   "nf4",   "fp4",
                                                "q4_k", "q6_k", "q5_0", "q5_1", "q5_k", "iq4_nl", "mxfp4", "u4z",
                                                "u8z",  "e4m3", "s8_k", "q2_k", "q3_k", "iq4_xs"};
    for (int i = 0; i < kFormats; i++)
        if (name == names[i]) return static_cast<Format>(i);
    throw std::invalid_argument("no packed kernel for weights of format '" + name + "'");
}

Nonlinearity nonlinearity_of(const std::string& name) {
    static const char* const names[kNonlinearities] = {"silu",  "gelu",    "gelu_tanh", "relu",
                                                       "relu2", "sigmoid", "tanh",      "clamped"};
    for (int i = 0; i < kNonlinearities; i++)
        if (name == names[i]) return static_cast<Nonlinearity>(i);
    throw std::invalid_argument("there is no nonlinearity '" + name + "'");
}

using Ints = Vector<int32_t>;
using Floats = Vector<float>;
using List = std::vector<int32_t>;  // from a Python list: far cheaper to make and to read than a small array
using FloatList = std::vector<float>;

using PlainEdit = std::tuple<int, Ints, Floats>;             // types.Edit
using EditList = std::vector<std::pair<size_t, PlainEdit>>;  // by the index of a draw

Edit edit_of(const PlainEdit& plain, size_t width) {
    const auto& [kind, ids, values] = plain;
    if (kind < 0 || kind >= kEditKinds) throw std::invalid_argument("edits: there is no such kind");
    const Edit edit{static_cast<EditKind>(kind), view(ids), view(values)};
    check(edit, width);
    return edit;
}

// Which tokens to draw from which rows, as engine.batch.Draws describes it, and what was drawn.
struct Wanted {
    std::span<const int32_t> rows;
    std::vector<Draw> draws;
    std::vector<std::pair<int32_t, float>> drawn;  // tokens and log-probabilities

    Wanted(std::span<const int32_t> rows, std::span<const uint64_t> seeds, std::span<const int64_t> positions,
           std::span<const float> temperatures, std::span<const int32_t> top_k, std::span<const float> top_p,
           std::span<const float> min_p, bool logprobs)
        : rows(rows), draws(rows.size()), drawn(rows.size()) {
        const size_t n = rows.size();
        if (seeds.size() != n || positions.size() != n || temperatures.size() != n || top_k.size() != n ||
            top_p.size() != n || min_p.size() != n)
            throw std::invalid_argument("draws: arrays of different lengths");
        for (size_t i = 0; i < n; i++)
            draws[i] = {seeds[i], positions[i], temperatures[i], top_k[i], top_p[i], min_p[i], logprobs};
    }

    // What edits the rows of that width of some draws, by their index; the arrays outlive this.
    void edit(const EditList& list, size_t width) {
        edits.resize(list.empty() ? 0 : draws.size());
        for (const auto& [draw, plain] : list) {
            if (draw >= draws.size()) throw std::invalid_argument("edits: no draw of that number");
            edits[draw].push_back(edit_of(plain, width));
        }
        if (!edits.empty() && !std::is_sorted(rows.begin(), rows.end()))
            throw std::invalid_argument("edits: the rows of the draws must ascend");  // one thread a row: it is changed
    }

    std::vector<std::vector<Edit>> edits;  // of each draw, or empty
};

// Draws for rows of a plan's result, each on its own thread.
class Draws {
public:
    explicit Draws(Plan& plan) : plan_(plan) {
        for (int t = 0; t < plan.pool().threads(); t++) samplers_.emplace_back(plan.kernel_table());
    }

    Plan& plan() { return plan_; }

    // processed: a row for each draw to take its token from; nullptr: from the plan's own rows.
    void sample(Wanted& wanted, const float* processed = nullptr) {
        const std::span<const int32_t> rows = wanted.rows;
        for (int32_t row : rows)
            if (row < 0 || static_cast<size_t>(row) >= plan_.rows_run())
                throw std::out_of_range("no row of that number");
        const size_t width = plan_.result_width();
        const auto one = [&](size_t i, int thread) {
            const float* row = plan_.row(rows[i]);
            const Draw& draw = wanted.draws[i];
            Sampler& sampler = samplers_[thread];
            const Drawn drawn = wanted.edits.empty() || wanted.edits[i].empty()
                                    ? sampler.redraw(processed ? processed + i * width : row, row, width, draw)
                                    : sampler.draw_edited(const_cast<float*>(row), width, wanted.edits[i], draw);
            wanted.drawn[i] = {drawn.token, drawn.logprob};
        };
        if (rows.size() <= 1) {
            if (!rows.empty()) one(0, 0);
            return;
        }
        // Where the share of a thread begins; an edited row is changed for a while, so all its draws are one thread's.
        const auto share = [&](size_t thread, size_t threads) {
            size_t i = rows.size() * thread / threads;
            while (!wanted.edits.empty() && i > 0 && i < rows.size() && rows[i] == rows[i - 1]) i++;
            return i;
        };
        plan_.pool().run([&](size_t thread, size_t threads) {
            for (size_t i = share(thread, threads); i < share(thread + 1, threads); i++)
                one(i, static_cast<int>(thread));
        });
    }

private:
    Plan& plan_;
    std::vector<Sampler> samplers_;
};

}  // namespace

void bind_plan(nb::module_& m) {
    m.def(
        "activation",
        [](const std::string& format, bool wide) {
            static const char* const names[] = {"f32", "bf16", "int8", "bf16_groups"};
            return std::string(names[static_cast<int>(activation_of(format_of(format), wide))]);
        },
        "format"_a, "wide"_a = false,
        "What the input of a linear with weights of this format is rounded to: 'f32', 'bf16' or 'int8', or if wide "
        "'bf16_groups' in the place of that.");
    m.def(
        "packed_size",
        [](const std::string& format, size_t rows, size_t inputs) {
            return Weights::packed_size(format_of(format), rows, inputs);
        },
        "format"_a, "rows"_a, "inputs"_a, "Bytes of one packed weight.");
    m.def(
        "quantize",
        [](const std::string& format, Matrix<float> rows, Pool& pool) {
            const Format f = format_of(format);
            const size_t bytes = rows.shape(1) ? source_row_bytes(f, rows.shape(1)) : 0;
            auto out = std::make_unique<uint8_t[]>(product(rows.shape(0), bytes));
            if (bytes) {
                nb::gil_scoped_release release;
                quantize(f, view(rows), rows.shape(1), pool, kernels(), {out.get(), rows.shape(0) * bytes});
            }
            const nb::capsule owner(out.get(), [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
            return nb::ndarray<nb::numpy, uint8_t>(out.release(), {rows.shape(0), bytes}, owner);
        },
        "format"_a, "rows"_a.noconvert(), "pool"_a,
        "Encode rows (float32, (rows, inputs)) in a format: (rows, row bytes) uint8, as quant.quantize does it, q4_1 "
        "with "
        "a search. ValueError for values that are not finite or do not fit.");
    m.def("vector_size", &Weights::vector_size, "length"_a, "Bytes of one packed vector.");

    nb::class_<Weights>(m, "Weights", "Packed weights in one arena, in the order added.")
        .def(nb::init<size_t, Pool&>(), "capacity"_a, "pool"_a, nb::keep_alive<1, 3>())
        .def(
            "__init__",
            [](Weights* self, Vector<uint8_t> packed, Pool& pool) { new (self) Weights(view(packed), pool); },
            "packed"_a.noconvert(), "pool"_a, nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(),
            "On what `packed` of others was, at a multiple of 64: the same calls of reserve, and nothing can be "
            "filled.")
        .def(
            "add",
            [](Weights& w, const std::string& format, size_t inputs, const std::vector<Matrix<uint8_t>>& sources) {
                std::vector<Weights::Source> parts;
                for (const Matrix<uint8_t>& s : sources) parts.push_back({s.shape(0), {s.data(), s.size()}});
                nb::gil_scoped_release release;
                return w.add(format_of(format), inputs, parts);
            },
            "format"_a, "inputs"_a, "sources"_a.noconvert(),
            "Pack encoded rows (uint8, (rows, row bytes)); panels of several sources alternate. Index of the first.")
        .def(
            "reserve",
            [](Weights& w, const std::string& format, size_t rows, size_t inputs, size_t parts) {
                return w.reserve(format_of(format), rows, inputs, parts);
            },
            "format"_a, "rows"_a, "inputs"_a, "parts"_a,
            "Room for weights of one shape whose panels alternate. Index of the first.")
        .def(
            "fill",
            [](Weights& w, size_t index, size_t first_row, Matrix<uint8_t> rows) {
                nb::gil_scoped_release release;
                w.fill(index, first_row, {rows.data(), rows.size()});
            },
            "index"_a, "first_row"_a, "rows"_a.noconvert(),
            "Pack encoded rows (uint8, (rows, row bytes)), whole panels of 16, from first_row on.")
        .def("reserve_vector", &Weights::reserve_vector, "length"_a, "Room for a vector. Its index.")
        .def(
            "fill_vector", [](Weights& w, size_t index, Vector<float> values) { w.fill_vector(index, view(values)); },
            "index"_a, "values"_a.noconvert())
        .def(
            "add_vector", [](Weights& w, Vector<float> values) { return w.add_vector(view(values)); },
            "values"_a.noconvert())
        .def_prop_ro("bytes", &Weights::bytes)
        .def(
            "packed",
            [](nb::handle self) {
                const std::span<const uint8_t> bytes = nb::cast<Weights&>(self).packed();
                return nb::ndarray<nb::numpy, const uint8_t>(bytes.data(), {bytes.size()}, self);
            },
            "All that was packed, (bytes,) uint8: a view, which later weights are not in.");

    nb::class_<KvMemory>(m, "KvMemory",
                         "Paged keys and values: blocks of 64 tokens, taken from the system when touched.")
        .def(
            "__init__",
            [](KvMemory* self, const std::string& type, size_t blocks,
               const std::vector<std::tuple<size_t, size_t, size_t>>& layers) {
                const std::string names[kKvTypes] = {"bf16", "f32", "int8"};
                const auto found = std::find(std::begin(names), std::end(names), type);
                if (found == std::end(names)) throw std::invalid_argument("keys and values are bf16, f32 or int8");
                std::vector<KvLayer> shapes;
                for (const auto& [kv_heads, head_dim, value_dim] : layers)
                    shapes.push_back({kv_heads, head_dim, value_dim});
                new (self) KvMemory(static_cast<KvType>(found - std::begin(names)), blocks, shapes);
            },
            "type"_a, "blocks"_a, "layers"_a, "layers are (kv_heads, head_dim, value_dim).")
        .def_prop_ro("blocks", &KvMemory::blocks)
        .def_prop_ro("block_bytes", &KvMemory::block_bytes)
        .def("copy", &KvMemory::copy, "source"_a, "target"_a);
    m.attr("BLOCK") = kBlock;

    nb::class_<StateMemory>(
        m, "StateMemory", "Places for the states of texts, of so many floats each, taken from the system when touched.")
        .def(nb::init<size_t, size_t>(), "places"_a, "floats"_a)
        .def_prop_ro("places", &StateMemory::places)
        .def_prop_ro("floats", &StateMemory::floats);

    nb::class_<Plan>(m, "Plan", "A recorded list of verbs, replayed in one call a step.")
        .def(
            "__init__",
            [](Plan* self, Pool& pool, const Weights& weights, KvMemory& kv, bool wide, StateMemory* states) {
                new (self) Plan(pool, weights, kv, kernels(), wide, states);
            },
            "pool"_a, "weights"_a, "kv"_a, "wide"_a = false, "states"_a = nb::none(), nb::keep_alive<1, 2>(),
            nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(), nb::keep_alive<1, 6>())
        .def(
            "buffer",
            [](Plan& p, size_t width, bool rows) { return p.buffer(width, rows ? Length::rows : Length::tokens); },
            "width"_a, "rows"_a = false)
        .def("embed", &Plan::embed, "weight"_a, "out"_a)
        .def(
            "linear",
            [](Plan& p, int x, const std::vector<std::tuple<size_t, int, int>>& outputs, int norm, int residual) {
                std::vector<Plan::Output> list;
                for (const auto& [weight, buffer, bias] : outputs) list.push_back({weight, buffer, bias});
                p.linear(x, list, norm, residual);
            },
            "x"_a, "outputs"_a, "norm"_a = -1, "residual"_a = -1,
            "Outputs are (weight, buffer, bias), a bias of -1 is none.")
        .def("positions", &Plan::positions, "weight"_a, "offset"_a, "out"_a)
        .def("norm", &Plan::norm, "weight"_a, "bias"_a = -1, "eps"_a = 0.0f, "centred"_a = false,
             "A norm, by its number.")
        .def(
            "gated_linear",
            [](Plan& p, int x, size_t gate, size_t up, int out, const std::string& kind, float limit, int norm,
               int gate_bias, int up_bias) {
                p.gated_linear(x, {gate, up, nonlinearity_of(kind), limit, norm, gate_bias, up_bias}, out);
            },
            "x"_a, "gate"_a, "up"_a, "out"_a, "kind"_a = "silu", "limit"_a = 0.0f, "norm"_a = -1, "gate_bias"_a = -1,
            "up_bias"_a = -1)
        .def("normalise", &Plan::normalise, "x"_a, "norm"_a, "out"_a, "heads"_a = 1)
        .def(
            "rotation",
            [](Plan& p, Matrix<double> frequencies, Vector<double> factors, size_t start, bool interleaved) {
                return p.rotation(view(frequencies), view(factors), start, interleaved);
            },
            "frequencies"_a.noconvert(), "factors"_a.noconvert(), "start"_a = 0, "interleaved"_a = false,
            "A rotation, by its number: frequencies (variants, dims / 2), radians a position, and a factor on cos and "
            "sin of each variant. dims values of a head turn, from `start` on; pairs are adjacent if interleaved, or "
            "in two halves. All rotations of a plan have as many variants.")
        .def(
            "turn",
            [](Plan& p, int rotation, Matrix<double> frequencies, Vector<double> factors) {
                p.turn(rotation, view(frequencies), view(factors));
            },
            "rotation"_a, "frequencies"_a.noconvert(), "factors"_a.noconvert(),
            "Other variants of a rotation, from the next step on.")
        .def("rope", &Plan::rope, "x"_a, "rotation"_a, "heads"_a, "out"_a)
        .def(
            "attention",
            [](Plan& p, size_t layer, int q, int k, int v, int out, int heads, float scale, int rotation,
               int32_t window, int q_norm, int k_norm, float softcap, int sinks, const FloatList& slopes) {
                p.attention(
                    {layer, q, k, v, out, heads, scale, rotation, window, q_norm, k_norm, softcap, sinks, slopes});
            },
            "layer"_a, "q"_a, "k"_a, "v"_a, "out"_a, "heads"_a, "scale"_a, "rotation"_a = -1, "window"_a = 0,
            "q_norm"_a = -1, "k_norm"_a = -1, "softcap"_a = 0.0f, "sinks"_a = -1, "slopes"_a = FloatList())
        .def("add", &Plan::add, "a"_a, "b"_a, "out"_a)
        .def("multiply", &Plan::multiply, "a"_a, "b"_a, "out"_a)
        .def("scale", &Plan::scale, "x"_a, "factor"_a, "out"_a)
        .def("softcap", &Plan::softcap, "x"_a, "cap"_a, "out"_a)
        .def(
            "activate",
            [](Plan& p, int x, const std::string& kind, int out) { p.activate(x, nonlinearity_of(kind), out); }, "x"_a,
            "kind"_a, "out"_a)
        .def(
            "gated",
            [](Plan& p, int gate, int up, const std::string& kind, float limit, int out) {
                p.gated(gate, up, nonlinearity_of(kind), limit, out);
            },
            "gate"_a, "up"_a, "kind"_a, "limit"_a, "out"_a)
        .def("part", &Plan::part, "x"_a, "heads"_a, "begin"_a, "end"_a, "out"_a)
        .def("join", &Plan::join, "a"_a, "b"_a, "heads"_a, "out"_a)
        .def(
            "columns", [](Plan& p, int x, Vector<int64_t> order, int out) { p.columns(x, view(order), out); }, "x"_a,
            "order"_a.noconvert(), "out"_a, "out[:, i] = x[:, order[i]]")
        .def("rows", &Plan::rows, "x"_a, "out"_a)
        .def(
            "route",
            [](Plan& p, int logits, int top_k, bool sigmoid, bool renormalise, double scale, double least, int groups,
               int top_groups, int group_best, int bias, int scales, int out) {
                p.route(logits, {top_k, sigmoid, renormalise, scale, least, groups, top_groups, group_best}, bias,
                        scales, out);
            },
            "logits"_a, "top_k"_a, "sigmoid"_a, "renormalise"_a, "scale"_a, "least"_a, "groups"_a, "top_groups"_a,
            "group_best"_a, "bias"_a, "scales"_a, "out"_a)
        .def(
            "experts",
            [](Plan& p, int x, int routing, const std::vector<std::tuple<size_t, int>>& parts, const std::string& kind,
               float limit, int out) {
                if (parts.size() % 3) throw std::invalid_argument("experts have a gate, an up and a down each");
                std::vector<Plan::Expert> list;
                for (size_t i = 0; i < parts.size(); i += 3) {
                    const auto [gate, gate_bias] = parts[i];
                    const auto [up, up_bias] = parts[i + 1];
                    const auto [down, down_bias] = parts[i + 2];
                    list.push_back({gate, up, down, gate_bias, up_bias, down_bias});
                }
                p.experts(x, routing, list, nonlinearity_of(kind), limit, out);
            },
            "x"_a, "routing"_a, "parts"_a, "kind"_a, "limit"_a, "out"_a,
            "parts are (weight, bias), a bias of -1 is none: gate, up and down of each expert.")
        .def("gate_rows", &Plan::gate_rows, "x"_a, "gate"_a, "out"_a)
        .def("short_conv", &Plan::short_conv, "x"_a, "filter"_a, "bias"_a, "state"_a, "out"_a)
        .def(
            "recurrence",
            [](Plan& p, int q, int k, int v, int beta, int decay, int out, int heads, int key_heads, bool delta,
               int skip,
               size_t state) { p.recurrence({q, k, v, beta, decay, out, heads, key_heads, delta, skip, state}); },
            "q"_a, "k"_a, "v"_a, "beta"_a, "decay"_a, "out"_a, "heads"_a, "key_heads"_a, "delta"_a, "skip"_a, "state"_a)
        .def("decay", &Plan::decay, "x"_a, "log_rate"_a, "out"_a)
        .def("softplus", &Plan::softplus, "x"_a, "out"_a)
        .def("result", &Plan::result, "buffer"_a)
        .def(
            "run",
            [](Plan& p, const List& tokens, const List& positions, const List& starts, const List& blocks,
               const List& block_starts, const List& logit_rows, const List& fresh, const List& turns,
               const List& reads, const List& writes) {
                nb::gil_scoped_release release;
                p.run({tokens, positions, starts, blocks, block_starts, logit_rows, fresh, turns, reads, writes});
            },
            "tokens"_a, "positions"_a, "starts"_a, "blocks"_a, "block_starts"_a, "logit_rows"_a, "fresh"_a,
            "turns"_a = List(), "reads"_a = List(), "writes"_a = List(),
            "One step, as engine.batch.Batch describes it. turns: which variant of its rotations each sequence uses; "
            "empty: "
            "all the first.")
        .def(
            "logits",
            [](nb::handle self) {
                Plan& p = nb::cast<Plan&>(self);
                const size_t rows = p.rows_run();
                float* data = rows ? const_cast<float*>(p.row(0)) : nullptr;
                return nb::ndarray<nb::numpy, const float>(data, {rows, p.result_width()}, self,
                                                           {static_cast<int64_t>(p.result_stride()), 1});
            },
            "The logits of the last step, (rows, width) float32: a view, valid until the next run.")
        .def(
            "contents",
            [](nb::handle self, int buffer, size_t width) {
                Plan& p = nb::cast<Plan&>(self);
                const std::span<float> values = p.contents(buffer);
                if (width == 0 || values.size() % width)
                    throw std::invalid_argument("contents: not a width of this buffer");
                return nb::ndarray<nb::numpy, float>(values.data(), {values.size() / width, width}, self);
            },
            "buffer"_a, "stride"_a, "A buffer of the last step, (length, padded width) float32: for tests.")
        .def("profile", &Plan::profile, "on"_a,
             "From the next step on, time every instruction on every thread, or stop it.")
        .def(
            "stages",
            [](const Plan& p) {
                std::vector<std::tuple<size_t, std::vector<double>, std::vector<double>>> stages;
                for (const Plan::Stage& stage : p.stages()) {
                    auto& [bytes, work, wait] =
                        stages.emplace_back(stage.bytes, std::vector<double>{}, std::vector<double>{});
                    for (const Plan::Spent& spent : stage.threads)
                        work.push_back(spent.work), wait.push_back(spent.wait);
                }
                return stages;
            },
            "Of each instruction: bytes of weights that a step reads; seconds of each thread in it, and then waiting, "
            "in all steps since profile(True).")
        .def_prop_ro("profiled_seconds", &Plan::profiled_seconds, "Of all steps since profile(True), in `run`.")
        .def_prop_ro("instructions", &Plan::instructions)
        .def_prop_ro("growths", &Plan::growths, "How often scratch memory grew: constant after warm-up.");

    nb::class_<Draws>(m, "Draws", "Draws tokens from the logits a plan left behind.")
        .def(nb::init<Plan&>(), "plan"_a, nb::keep_alive<1, 2>())
        .def(
            "sample",
            [](Draws& d, Ints rows, Vector<uint64_t> seeds, Vector<int64_t> positions, Floats temperatures, Ints top_k,
               Floats top_p, Floats min_p, bool logprobs, const EditList& edits) {
                Wanted wanted(view(rows), view(seeds), view(positions), view(temperatures), view(top_k), view(top_p),
                              view(min_p), logprobs);
                wanted.edit(edits, d.plan().result_width());
                nb::gil_scoped_release release;
                d.sample(wanted);
                return wanted.drawn;
            },
            "rows"_a.noconvert(), "seeds"_a.noconvert(), "positions"_a.noconvert(), "temperatures"_a.noconvert(),
            "top_k"_a.noconvert(), "top_p"_a.noconvert(), "min_p"_a.noconvert(), "logprobs"_a, "edits"_a = EditList(),
            "Draw from rows of the last step; arrays as engine.batch.Draws describes them. A list of (token, "
            "log-probability or nan).")
        .def(
            "run",
            [](Draws& d, const List& tokens, const List& positions, const List& starts, const List& blocks,
               const List& block_starts, const List& logit_rows, const List& fresh, const List& rows,
               const std::vector<uint64_t>& seeds, const std::vector<int64_t>& draw_positions,
               const FloatList& temperatures, const List& top_k, const FloatList& top_p, const FloatList& min_p,
               bool logprobs, const List& turns, const EditList& edits, const List& reads, const List& writes) {
                Wanted wanted(rows, seeds, draw_positions, temperatures, top_k, top_p, min_p, logprobs);
                wanted.edit(edits, d.plan().result_width());
                nb::gil_scoped_release release;
                d.plan().run(
                    {tokens, positions, starts, blocks, block_starts, logit_rows, fresh, turns, reads, writes});
                d.sample(wanted);
                return wanted.drawn;
            },
            "tokens"_a, "positions"_a, "starts"_a, "blocks"_a, "block_starts"_a, "logit_rows"_a, "fresh"_a, "rows"_a,
            "seeds"_a, "draw_positions"_a, "temperatures"_a, "top_k"_a, "top_p"_a, "min_p"_a, "logprobs"_a,
            "turns"_a = List(), "edits"_a = EditList(), "reads"_a = List(), "writes"_a = List(),
            "A step of the plan and its draws, as `Plan.run` and `sample`.")
        .def(
            "redraw",
            [](Draws& d, const List& rows, const std::vector<uint64_t>& seeds, const std::vector<int64_t>& positions,
               const FloatList& temperatures, const List& top_k, const FloatList& top_p, const FloatList& min_p,
               bool logprobs, Matrix<float> processed) {
                Wanted wanted(rows, seeds, positions, temperatures, top_k, top_p, min_p, logprobs);
                if (processed.shape(0) != rows.size() || processed.shape(1) != d.plan().result_width())
                    throw std::invalid_argument("redraw: one processed row a draw, as wide as the logits");
                nb::gil_scoped_release release;
                d.sample(wanted, processed.data());
                return wanted.drawn;
            },
            "rows"_a, "seeds"_a, "positions"_a, "temperatures"_a, "top_k"_a, "top_p"_a, "min_p"_a, "logprobs"_a,
            "processed"_a.noconvert(),
            "Draw i takes its token from processed[i], (draws, width) float32, and its log-probability from rows[i] of "
            "the "
            "last step.");
    m.def(
        "edited",
        [](Floats row, const std::vector<PlainEdit>& edits) {
            std::vector<float> copy(row.data(), row.data() + row.size());
            std::vector<Edit> list;
            for (const PlainEdit& plain : edits) list.push_back(edit_of(plain, copy.size()));
            Edited::Memory memory;
            const Edited edited(kernels(), copy.data(), copy.size(), list, memory);
            return std::vector<float>(edited.data(), edited.data() + copy.size());
        },
        "row"_a.noconvert(), "edits"_a, "A row, (V,) float32, as edits make it, as a list: for tests.");
    m.def("uniform", &uniform, "seed"_a, "position"_a, "The noise of a draw, in [0, 1).");
}

}  // namespace qb
