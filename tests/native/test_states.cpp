// Verbs with a state have one arithmetic: the tokens of a text leave the same bytes one at a time, in any chunks,
// beside another text, on any number of threads. Places hold garbage, no number, until a step has written them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "plan/plan.h"

using namespace qb;

namespace {

constexpr size_t kTokens = 23, kPlaces = 6;

struct Shape {
    size_t heads, key_heads, keys, values, length;
    bool delta;
};

std::span<const uint8_t> bytes(const std::vector<float>& x) {
    return {reinterpret_cast<const uint8_t*>(x.data()), x.size() * 4};
}

struct Inputs {
    std::vector<float> q, k, v, beta, decay, filter, skip;

    explicit Inputs(const Shape& s) {
        std::mt19937 random(11);
        std::normal_distribution<float> normal;
        std::uniform_real_distribution<float> part(0.0f, 1.0f);
        const auto fill = [&](std::vector<float>& x, size_t size, const auto& draw) {
            x.resize(size);
            for (float& value : x) value = draw();
        };
        const auto any = [&] { return normal(random); };
        const auto share = [&] { return part(random); };
        fill(q, kTokens * s.key_heads * s.keys, any);
        fill(k, kTokens * s.key_heads * s.keys, any);
        fill(v, kTokens * s.heads * s.values, any);
        fill(beta, kTokens * s.heads, share);
        fill(decay, kTokens * s.heads, share);
        fill(filter, s.heads * s.values * s.length, any);
        fill(skip, s.heads, any);
        for (size_t i = 0; i < k.size(); i += s.keys) {  // of length 1
            double size = 0;
            for (size_t j = 0; j < s.keys; j++) size += double{k[i + j]} * k[i + j];
            for (size_t j = 0; j < s.keys; j++) k[i + j] = static_cast<float>(k[i + j] / std::sqrt(size));
        }
    }
};

// v through a convolution and a recurrence; every token's inputs are looked up by its id.
class Machine {
public:
    Machine(const Kernels& kernels, const Shape& s, const Inputs& in, int threads)
        : s_(s),
          pool_(threads),
          weights_(size_t{1} << 21, pool_),
          kv_(KvType::f32, 8, std::vector<KvLayer>{}),
          states_(kPlaces, (s.length - 1) * width() + s.keys * width()),
          plan_(pool_, weights_, kv_, kernels, false, &states_) {
        for (size_t p = 0; p < kPlaces; p++)
            std::fill_n(states_.at(p, 0), states_.floats(), std::numeric_limits<float>::quiet_NaN());
        const int q = input(in.q), k = input(in.k), v = input(in.v), beta = input(in.beta), decay = input(in.decay);
        const int mixed = plan_.buffer(width(), Length::tokens);
        out_ = plan_.buffer(width(), Length::tokens);
        plan_.short_conv(v, static_cast<int>(weights_.add_vector(in.filter)), -1, 0, mixed);
        const int skip = static_cast<int>(weights_.add_vector(in.skip)), heads = static_cast<int>(s.heads);
        plan_.recurrence({q, k, mixed, beta, decay, out_, heads, static_cast<int>(s.key_heads), s.delta, skip,
                          (s.length - 1) * width()});
        plan_.result(out_);
    }

    // Tokens first .. first + count of the text, which go on from `read`; beside them those of another, if `beside`.
    void run(int32_t first, int32_t count, int32_t read, int32_t write, bool beside, float* out) {
        std::vector<int32_t> tokens, positions, starts = {0}, blocks, block_starts = {0}, reads, writes;
        const auto add = [&](int32_t from, int32_t many, int32_t of, int32_t to) {
            for (int32_t t = 0; t < many; t++) tokens.push_back(from + t), positions.push_back(from + t);
            starts.push_back(static_cast<int32_t>(tokens.size()));
            blocks.push_back(static_cast<int32_t>(blocks.size()));
            block_starts.push_back(static_cast<int32_t>(blocks.size()));
            reads.push_back(of), writes.push_back(to);
        };
        if (beside) add(0, 7, -1, 4);
        add(first, count, read, write);
        if (beside) add(0, 1, -1, 5);
        plan_.run({tokens, positions, starts, blocks, block_starts, {}, {}, {}, reads, writes});
        const std::span<float> all = plan_.contents(out_);
        std::copy_n(all.data() + (beside ? 7 : 0) * width(), count * width(), out);
    }

    size_t width() const { return s_.heads * s_.values; }

private:
    int input(const std::vector<float>& rows) {
        const size_t columns = rows.size() / kTokens;
        const int buffer = plan_.buffer(columns, Length::tokens);
        plan_.embed(weights_.add(Format::f32, columns, {{kTokens, bytes(rows)}}), buffer);
        return buffer;
    }

    Shape s_;
    Pool pool_;
    Weights weights_;
    KvMemory kv_;
    StateMemory states_;
    Plan plan_;
    int out_ = -1;
};

std::vector<float> in_steps(Machine& machine, int32_t step, bool beside) {
    std::vector<float> out(kTokens * machine.width());
    int32_t at = -1;
    for (int32_t first = 0, place = 0; first < static_cast<int32_t>(kTokens); first += step, place ^= 1) {
        const int32_t count = std::min(step, static_cast<int32_t>(kTokens) - first);
        machine.run(first, count, at, place, beside, out.data() + first * machine.width());
        at = place;
    }
    return out;
}

// The same in double, token by token.
std::vector<double> plainly(const Shape& s, const Inputs& in) {
    const size_t width = s.heads * s.values;
    std::vector<double> mixed(kTokens * width), out(kTokens * width), state(s.keys * s.values);
    for (size_t t = 0; t < kTokens; t++)
        for (size_t c = 0; c < width; c++)
            for (size_t j = 0; j < s.length; j++)
                if (t + j + 1 >= s.length)
                    mixed[t * width + c] +=
                        double{in.filter[c * s.length + j]} * in.v[(t + j + 1 - s.length) * width + c];
    for (size_t h = 0; h < s.heads; h++) {
        std::fill(state.begin(), state.end(), 0.0);
        for (size_t t = 0; t < kTokens; t++) {
            const size_t head = (t * s.key_heads + h / (s.heads / s.key_heads)) * s.keys;
            for (size_t c = 0; c < s.values; c++) {
                const double v = mixed[t * width + h * s.values + c];
                double held = 0, result = 0;
                for (size_t i = 0; i < s.keys; i++) {
                    double& cell = state[i * s.values + c];
                    cell *= in.decay[t * s.heads + h];
                    held += cell * in.k[head + i];
                }
                const double u = in.beta[t * s.heads + h] * (v - (s.delta ? held : 0.0));
                for (size_t i = 0; i < s.keys; i++) {
                    state[i * s.values + c] += in.k[head + i] * u;
                    result += state[i * s.values + c] * in.q[head + i];
                }
                out[t * width + h * s.values + c] = result + in.skip[h] * v;
            }
        }
    }
    return out;
}

}  // namespace

void test_states() {
    const Shape shapes[] = {{1, 1, 1, 16, 2, true},
                            {2, 1, 5, 16, 3, false},
                            {4, 2, 16, 32, 4, true},
                            {3, 3, 24, 48, 4, true},
                            {6, 2, 64, 16, 9, false}};
    for (const Kernels* kernels : variants())
        for (const Shape& s : shapes) {
            const Inputs in(s);
            Machine machine(*kernels, s, in, 1);
            const std::vector<float> whole = in_steps(machine, kTokens, false);
            const std::vector<double> want = plainly(s, in);
            double largest = 0, gap = 0;
            for (size_t i = 0; i < whole.size(); i++) {
                largest = std::max(largest, std::abs(want[i]));
                gap = std::max(gap, std::abs(want[i] - whole[i]));
                CHECK(std::isfinite(whole[i]), "%s: value %zu is %g", kernels->name, i, whole[i]);
            }
            // some 100 roundings of 2^-24 a token, of states that tokens before have left
            CHECK(gap < largest * 1e-4, "%s, %zu heads: off by %g of %g", kernels->name, s.heads, gap, largest);
            for (int threads : {1, 3})
                for (int32_t step : {1, 2, 5, 16, static_cast<int32_t>(kTokens)})
                    for (bool beside : {false, true}) {
                        Machine other(*kernels, s, in, threads);
                        const std::vector<float> got = in_steps(other, step, beside);
                        CHECK(!std::memcmp(got.data(), whole.data(), whole.size() * 4),
                              "%s, %zu heads, steps of %d, %d threads, beside others: %d", kernels->name, s.heads, step,
                              threads, beside);
                    }
        }
}
