// Attention has one arithmetic: a token decoded alone, verified in fours, or read in a prompt of any chunking by any
// number of threads leaves the same bytes. Slots not yet written hold finite garbage, and the data is adversarial too.
#include <algorithm>
#include <cmath>

#include "check.h"
#include "plan/plan.h"

using namespace qb;

namespace {

struct Shape {
    size_t heads, kv_heads, head_dim, tokens;
    int window = 0;
    size_t value_dim = head_dim;
    float softcap = 0;
    bool sinks = false, slopes = false;
    size_t turning = head_dim;  // values of a head
    bool interleaved = false;

    float sink(size_t head) const { return static_cast<float>(head) - 1.5f; }
    float slope(size_t head) const {
        return std::exp2(-8.0f * static_cast<float>(head + 1) / static_cast<float>(heads));
    }
};

struct Inputs {
    std::vector<float> q, k, v;
};

Inputs inputs(const Shape& s, bool adversarial) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    Inputs in;
    in.q.resize(s.tokens * s.heads * s.head_dim);
    in.k.resize(s.tokens * s.kv_heads * s.head_dim);
    in.v.resize(s.tokens * s.kv_heads * s.value_dim);
    for (float& x : in.q) x = normal(random) * (adversarial ? 12.f : 2.5f);
    for (float& x : in.k) x = adversarial && random() % 4 == 0 ? -0.0f : normal(random);
    for (float& x : in.v)  // around the smallest normal number, zeros of both signs
        x = !adversarial        ? normal(random)
            : random() % 3 == 0 ? -0.0f
            : random() % 3 == 0 ? 0.0f
                                : normal(random) * (random() % 2 ? 1e-37f : 1e-30f);
    return in;
}

const char* name_of(KvType type) { return type == KvType::bf16 ? "bf16" : type == KvType::f32 ? "f32" : "int8"; }

std::span<const uint8_t> bytes(const std::vector<float>& x) {
    return {reinterpret_cast<const uint8_t*>(x.data()), x.size() * 4};
}

// One layer of attention over a sequence whose blocks lie scattered; every token's q, k, v is looked up by its id.
class Machine {
public:
    Machine(const Kernels& kernels, const Shape& s, const Inputs& in, KvType type, int threads)
        : s_(s),
          pool_(threads),
          weights_(room(s), pool_),
          kv_(type, blocks(s) + 3, {{1, 8, 24}, {s.kv_heads, s.head_dim, s.value_dim}}),
          plan_(pool_, weights_, kv_, kernels) {
        const int x = plan_.buffer(s.heads * s.head_dim, Length::tokens),
                  k = plan_.buffer(s.kv_heads * s.head_dim, Length::tokens),
                  v = plan_.buffer(s.kv_heads * s.value_dim, Length::tokens);
        out_ = plan_.buffer(s.heads * s.value_dim, Length::tokens);
        plan_.embed(weights_.add(Format::f32, s.heads * s.head_dim, {{s.tokens, bytes(in.q)}}), x);
        plan_.embed(weights_.add(Format::f32, s.kv_heads * s.head_dim, {{s.tokens, bytes(in.k)}}), k);
        plan_.embed(weights_.add(Format::f32, s.kv_heads * s.value_dim, {{s.tokens, bytes(in.v)}}), v);
        std::vector<double> turn(s.turning / 2);
        for (size_t i = 0; i < turn.size(); i++)
            turn[i] = std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(s.turning));
        std::vector<float> sinks, slopes;
        for (size_t h = 0; h < s.heads; h++) sinks.push_back(s.sink(h)), slopes.push_back(s.slope(h));
        const int sink_vector = static_cast<int>(weights_.add_vector(sinks));
        plan_.attention({.layer = 1,
                         .q = x,
                         .k = k,
                         .v = v,
                         .out = out_,
                         .heads = static_cast<int>(s.heads),
                         .scale = 1 / std::sqrt(static_cast<float>(s.head_dim)),
                         .rotation = plan_.rotation(turn, std::vector{1.0}, 0, s.interleaved),
                         .window = s.window,
                         .softcap = s.softcap,
                         .sinks = s.sinks ? sink_vector : -1,
                         .slopes = s.slopes ? slopes : std::vector<float>{}});
        plan_.result(out_);
        for (size_t b = 0; b < blocks(s); b++) table_.push_back(static_cast<int32_t>((b * 7 + 3) % (blocks(s) + 3)));
        for (size_t i = 0; i < table_.size(); i++)  // a permutation
            while (std::count(table_.begin(), table_.begin() + static_cast<long>(i), table_[i]))
                table_[i] = static_cast<int32_t>((static_cast<size_t>(table_[i]) + 1) % (blocks(s) + 3));
        garbage();
    }

    // Tokens first .. first + count in one step, appended to `all`.
    void step(size_t first, size_t count, std::vector<float>& all) {
        std::vector<int32_t> tokens(count);
        for (size_t i = 0; i < count; i++) tokens[i] = static_cast<int32_t>(first + i);
        const std::vector<int32_t> starts = {0, static_cast<int32_t>(count)},
                                   ends = {0, static_cast<int32_t>(table_.size())};
        plan_.run({tokens, tokens, starts, table_, ends, {}, {}});
        const std::span<float> out = plan_.contents(out_);
        const size_t width = s_.heads * s_.value_dim, stride = out.size() / count;
        for (size_t i = 0; i < count; i++)
            all.insert(all.end(), out.begin() + static_cast<long>(i * stride),
                       out.begin() + static_cast<long>(i * stride + width));
    }

private:
    static size_t blocks(const Shape& s) { return (s.tokens + kBlock - 1) / kBlock; }
    static size_t room(const Shape& s) {
        return Weights::packed_size(Format::f32, s.tokens, s.heads * s.head_dim) +
               Weights::packed_size(Format::f32, s.tokens, s.kv_heads * s.head_dim) +
               Weights::packed_size(Format::f32, s.tokens, s.kv_heads * s.value_dim) + Weights::vector_size(s.heads);
    }
    // Every slot of the sequence holds values that nothing may notice.
    void garbage() {
        std::mt19937 random(3);
        std::vector<int32_t> positions(table_.size() * kBlock), tokens(positions.size());
        for (size_t i = 0; i < positions.size(); i++) {
            positions[i] = static_cast<int32_t>(i);
            tokens[i] = static_cast<int32_t>(random() % s_.tokens);
        }
        const std::vector<int32_t> starts = {0, static_cast<int32_t>(positions.size())},
                                   ends = {0, static_cast<int32_t>(table_.size())};
        plan_.run({tokens, positions, starts, table_, ends, {}, {}});
    }

    Shape s_;
    Pool pool_;
    Weights weights_;
    KvMemory kv_;
    Plan plan_;
    int out_;
    std::vector<int32_t> table_;
};

void equal(const Kernels& kernels, const Shape& s, KvType type, bool adversarial) {
    const Inputs in = inputs(s, adversarial);
    std::vector<float> one_by_one;
    {
        Machine machine(kernels, s, in, type, 1);
        for (size_t t = 0; t < s.tokens; t++) machine.step(t, 1, one_by_one);
    }
    std::mt19937 random(11);
    for (int threads : {1, 2, 3})
        for (size_t chunk : {size_t{4}, size_t{48}, size_t{512}, s.tokens, size_t{0}}) {
            if (threads != 2 && (kEmulated || (chunk != 4 && chunk != s.tokens))) continue;
            Machine machine(kernels, s, in, type, threads);
            std::vector<float> out;
            for (size_t t = 0; t < s.tokens;) {
                const size_t count = std::min(chunk ? chunk : 1 + random() % 200, s.tokens - t);  // 0: any chunking
                machine.step(t, count, out);
                t += count;
            }
            CHECK(out.size() == one_by_one.size() && !std::memcmp(out.data(), one_by_one.data(), out.size() * 4),
                  "%s %zu/%zu heads of %zu and %zu, window %d, cap %g, sinks %d, slopes %d, %s%s: chunks of %zu on %d "
                  "threads "
                  "differ from one token at a time",
                  kernels.name, s.heads, s.kv_heads, s.head_dim, s.value_dim, s.window, s.softcap, s.sinks, s.slopes,
                  name_of(type), adversarial ? ", adversarial" : "", chunk, threads);
        }

    // Against plain sums in double on the rounded inputs. bf16: p carries 2^-9; f32: chains of up to 1,500 terms; int8:
    // a rotation's last bit may move a key by one of 127 steps, and so its score by 0.03.
    if (adversarial) return;
    const size_t d = s.head_dim, dv = s.value_dim, group = s.heads / s.kv_heads, half = s.turning / 2;
    const auto rounded = [&](float x) {
        if (type != KvType::bf16) return x;
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
        std::memcpy(&x, &bits, 4);
        return x;
    };
    // A head's values as what integers of up to `most` stand for.
    const auto as_integers = [&](std::vector<double>& x, float most) {
        if (type != KvType::int8) return;
        double largest = 0;
        for (double value : x) largest = std::max(largest, std::abs(value));
        const float scale = static_cast<float>(largest) / most;
        for (double& value : x) value = std::nearbyint(static_cast<float>(value) / scale) * scale;
    };
    const auto turned = [&](const std::vector<float>& x, size_t row, size_t width, size_t head, float most) {
        std::vector<double> out(d);
        const float* from = &x[row * width + head * d];
        for (size_t i = 0; i < d; i++) out[i] = rounded(from[i]);
        for (size_t i = 0; i < half; i++) {
            const double angle = static_cast<double>(row) *
                                 std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(s.turning));
            const float c = static_cast<float>(std::cos(angle)), sn = static_cast<float>(std::sin(angle));
            const size_t first = s.interleaved ? 2 * i : i, second = s.interleaved ? 2 * i + 1 : half + i;
            out[first] = rounded(from[first] * c - from[second] * sn);
            out[second] = rounded(from[second] * c + from[first] * sn);
        }
        as_integers(out, most);
        return out;
    };
    for (size_t t : {size_t{0}, s.tokens / 3, s.tokens - 1})
        for (size_t h = 0; h < s.heads; h++) {
            const std::vector<double> q = turned(in.q, t, s.heads * d, h, 32512);
            const size_t from = s.window && t >= static_cast<size_t>(s.window) ? t - s.window + 1 : 0;
            std::vector<double> p(t + 1, -1e300), want(dv);
            double top = -1e300, total = 0;
            for (size_t j = from; j <= t; j++) {
                const std::vector<double> k = turned(in.k, j, s.kv_heads * d, h / group, 127);
                double score = 0;
                for (size_t i = 0; i < d; i++) score += q[i] * k[i];
                p[j] = score / std::sqrt(static_cast<double>(d));
                if (s.softcap > 0) p[j] = s.softcap * std::tanh(p[j] / s.softcap);
                if (s.slopes) p[j] -= s.slope(h) * static_cast<double>(t - j);
                top = std::max(top, p[j]);
            }
            if (s.sinks) total = std::exp(s.sink(h) - top);
            for (double& x : p) total += x = std::exp(x - top);
            for (size_t j = 0; j <= t; j++) {
                const auto from_value = in.v.begin() + static_cast<long>(j * s.kv_heads * dv + h / group * dv);
                std::vector<double> value(from_value, from_value + static_cast<long>(dv));
                for (double& x : value) x = rounded(static_cast<float>(x));
                as_integers(value, 127);
                for (size_t i = 0; i < dv; i++) want[i] += p[j] / total * value[i];
            }
            const double tolerance = type == KvType::f32 ? 2e-5 : 4 * 0x1p-9;  // of values of about 1 to 4
            for (size_t i = 0; i < dv; i++)
                CHECK(std::abs(one_by_one[(t * s.heads + h) * dv + i] - want[i]) <= tolerance * 2,
                      "%s %s token %zu head %zu: %g for %g", kernels.name, name_of(type), t, h,
                      one_by_one[(t * s.heads + h) * dv + i], want[i]);
        }
}

}  // namespace

void test_attention() {
    const Shape small[] = {{9, 3, 64, 270},
                           {4, 4, 16, 257},
                           {2, 2, 80, 258},
                           {8, 1, 32, 259},
                           {4, 2, 32, 270, 7},
                           {2, 1, 16, 300, 257},
                           {2, 2, 16, 520, 200},
                           // heads of other sizes; caps, sinks and slopes; rotations of parts and of adjacent values
                           {2, 1, 24, 270},
                           {2, 2, 8, 260, 0, 40},
                           {2, 1, 96, 300, 0, 64, 0, false, false, 32},
                           {4, 2, 32, 300, 0, 32, 5.0f},
                           {4, 1, 16, 520, 0, 16, 0, true},
                           {4, 4, 16, 520, 0, 16, 0, false, true, 8, true},
                           {4, 2, 32, 600, 100, 48, 7.0f, true, true, 32, true}};
    for (const Kernels* kernels : variants())
        for (const Shape& s : small)
            for (KvType type : {KvType::bf16, KvType::f32, KvType::int8})
                for (bool adversarial : {false, true}) equal(*kernels, s, type, adversarial);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(QB_EMULATED)
    // the shapes of real models over several chunks, on the kernels that will run them
    for (const Shape& s :
         {Shape{9, 3, 64, 1100}, Shape{8, 1, 64, 700}, Shape{8, 2, 128, 700}, Shape{8, 2, 128, 900, 300}})
        for (bool adversarial : {false, true})
            for (KvType type : {KvType::bf16, KvType::int8}) equal(*variants().back(), s, type, adversarial);
#endif
}
