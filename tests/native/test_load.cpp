// Engines side by side on shared weights, their batches random: every row and draw is that of its text alone.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <stdexcept>
#include <thread>

#include "check.h"
#include "plan/plan.h"
#include "sample/sampler.h"

using namespace qb;

namespace {

constexpr int kDrivers = 3, kThreads = 2, kSteps = 300;
constexpr size_t kVocabulary = 600, kHidden = 64, kInner = 96, kLayers = 2, kHeads = 4, kKvHeads = 2, kHeadDim = 16;
constexpr size_t kExperts = 5, kTaken = 2;  // of the second layer
const std::vector<KvLayer> kKept(kLayers, {kKvHeads, kHeadDim, kHeadDim});
constexpr size_t kBlocks = 22, kLive = 6;  // fewer blocks than so many long texts need

// -- the model ------------------------------------------------------------------------------------------------------

// Rows of values of about 1/8, so that nothing saturates.
std::vector<uint8_t> encoded(Format format, size_t rows, size_t inputs, std::mt19937& random) {
    std::vector<uint8_t> data(rows * source_row_bytes(format, inputs));
    std::normal_distribution<float> normal(0, 0.125f);
    if (format == Format::q8_0) {
        for (uint8_t& b : data) b = static_cast<uint8_t>(random());
        for (size_t i = 0; i < data.size(); i += 34) data[i] = 0, data[i + 1] = 0x18;  // fp16 2^-9
        return data;
    }
    const size_t bytes = format == Format::f32 ? 4 : 2;  // bf16: the upper half
    for (size_t i = 0; i < data.size(); i += bytes) {
        const float x = normal(random);
        std::memcpy(&data[i], reinterpret_cast<const uint8_t*>(&x) + 4 - bytes, bytes);
    }
    return data;
}

// A llama of two layers whose weights take every type of activation; the second is a mixture of experts.
class Model {
public:
    Model() {
        embedding_ = add(Format::bf16, kVocabulary, kHidden);
        norm_ = add_norm();
        for (Layer& l : layers_) {
            l.q = add(Format::q8_0, kHeads * kHeadDim, kHidden);
            l.k = add(Format::q8_0, kKvHeads * kHeadDim, kHidden);
            l.v = add(Format::q8_0, kKvHeads * kHeadDim, kHidden);
            l.o = add(Format::f32, kHidden, kHeads * kHeadDim);
            l.attention_norm = add_norm();
            l.mlp_norm = add_norm();
        }
        mlp_ = add_mlp(Format::bf16);
        router_ = add(Format::f32, kExperts, kHidden);
        for (size_t i = 0; i < kExperts; i++) experts_.push_back(add_mlp(Format::q8_0));
    }

    const Weights& weights() const { return weights_; }

    void record(Plan& plan) const {
        const auto norm = [&](int weight) { return plan.norm(weight, -1, 1e-5f, false); };
        std::vector<double> turn(kHeadDim / 2);
        for (size_t i = 0; i < turn.size(); i++) turn[i] = std::pow(10000.0, -2.0 * static_cast<double>(i) / kHeadDim);
        const int rotation = plan.rotation(turn, std::vector{1.0});
        const int x = plan.buffer(kHidden, Length::tokens), q = plan.buffer(kHeads * kHeadDim, Length::tokens),
                  k = plan.buffer(kKvHeads * kHeadDim, Length::tokens),
                  v = plan.buffer(kKvHeads * kHeadDim, Length::tokens),
                  attended = plan.buffer(kHeads * kHeadDim, Length::tokens),
                  inner = plan.buffer(kInner, Length::tokens), normed = plan.buffer(kHidden, Length::tokens),
                  scores = plan.buffer(kExperts, Length::tokens), taken = plan.buffer(2 * kTaken, Length::tokens),
                  mixed = plan.buffer(kHidden, Length::tokens), last = plan.buffer(kHidden, Length::rows),
                  logits = plan.buffer(kVocabulary, Length::rows);
        plan.embed(embedding_, x);
        for (size_t i = 0; i < kLayers; i++) {
            const Layer& l = layers_[i];
            plan.linear(x, {{l.q, q}, {l.k, k}, {l.v, v}}, norm(l.attention_norm));
            plan.attention({i, q, k, v, attended, kHeads, 0.25f, rotation, i % 2 ? 100 : 0});
            plan.linear(attended, {{l.o, x}}, -1, x);
            if (i == 0) {
                plan.gated_linear(x, {.gate = mlp_.gate, .up = mlp_.up, .norm = norm(l.mlp_norm)}, inner);
                plan.linear(inner, {{mlp_.down, x}}, -1, x);
            } else {
                plan.normalise(x, norm(l.mlp_norm), normed);
                plan.linear(normed, {{router_, scores}});
                plan.route(scores,
                           {.top_k = kTaken,
                            .sigmoid = false,
                            .renormalise = true,
                            .scale = 1,
                            .least = 0,
                            .groups = 1,
                            .top_groups = 1,
                            .group_best = 1},
                           -1, -1, taken);
                plan.experts(normed, taken, experts_, Nonlinearity::silu, 0, mixed);
                plan.add(x, mixed, x);
            }
        }
        plan.rows(x, last);
        plan.linear(last, {{embedding_, logits}}, norm(norm_));
        plan.result(logits);
    }

private:
    struct Layer {
        size_t q, k, v, o;
        int attention_norm, mlp_norm;
    };
    size_t add(Format format, size_t rows, size_t inputs) {
        const std::vector<uint8_t> data = encoded(format, rows, inputs, random_);
        return weights_.add(format, inputs, {{rows, data}});
    }
    Plan::Expert add_mlp(Format format) {
        const std::vector<uint8_t> gate = encoded(format, kInner, kHidden, random_),
                                   up = encoded(format, kInner, kHidden, random_);
        const size_t both = weights_.add(format, kHidden, {{kInner, gate}, {kInner, up}});
        return {both, both + 1, add(Format::q8_0, kHidden, kInner)};
    }
    int add_norm() {
        std::vector<float> values(kHidden);
        for (float& x : values) x = 0.5f + static_cast<float>(random_() % 1024) / 1024;
        return static_cast<int>(weights_.add_vector(values));
    }

    std::mt19937 random_{1};
    Pool pool_{1};
    Weights weights_{size_t{4} << 20, pool_};
    size_t embedding_;
    int norm_;
    Layer layers_[kLayers];
    Plan::Expert mlp_;
    size_t router_;
    std::vector<Plan::Expert> experts_;
};

// -- what is expected -----------------------------------------------------------------------------------------------

struct Batch {
    std::vector<int32_t> tokens, positions, starts = {0}, blocks, block_starts = {0}, logit_rows;

    void add(std::span<const int32_t> text, size_t first, size_t count, const std::vector<int32_t>& table) {
        for (size_t i = first; i < first + count; i++) {
            tokens.push_back(text[i]);
            positions.push_back(static_cast<int32_t>(i));
        }
        starts.push_back(static_cast<int32_t>(tokens.size()));
        blocks.insert(blocks.end(), table.begin(), table.end());
        block_starts.push_back(static_cast<int32_t>(blocks.size()));
    }
    void run(Plan& plan, const std::vector<int32_t>& fresh) const {
        plan.run({tokens, positions, starts, blocks, block_starts, logit_rows, fresh});
    }
};

// How the row of a position is drawn from: by every path through the sampler.
Draw draw_of(size_t text, size_t position) {
    const float temperatures[] = {0, 0.7f, 1.5f};
    return {.seed = text,
            .position = static_cast<int64_t>(position),
            .temperature = temperatures[position % 3],
            .top_k = position % 2 ? 3 : 0,
            .top_p = position % 5 < 3 ? 1 : 0.9f,
            .min_p = position % 7 < 3 ? 0 : 0.05f,
            .logprob = true};
}

// A text with what each of its positions gives: read alone, token by token, on one thread.
struct Text {
    std::vector<int32_t> tokens;
    std::vector<std::vector<float>> rows;
    std::vector<Drawn> draws;
};

// Texts of up to two chunks of attention; each starts like the one before it.
std::vector<Text> expected(const Model& model) {
    const struct {
        size_t length, common;
    } shapes[] = {{1, 0}, {70, 1}, {130, 66}, {290, 130}, {330, 258}, {370, 320}};
    std::vector<Text> texts;
    std::mt19937 random(2);
    for (const auto& [length, common] : shapes) {
        Text& text = texts.emplace_back();
        if (common) text.tokens.assign(&texts[texts.size() - 2].tokens[0], &texts[texts.size() - 2].tokens[0] + common);
        while (text.tokens.size() < length) text.tokens.push_back(static_cast<int32_t>(random() % kVocabulary));

        Pool pool(1);
        KvMemory kv(KvType::bf16, (length + kBlock - 1) / kBlock, kKept);
        Plan plan(pool, model.weights(), kv, kernels());
        model.record(plan);
        Sampler sampler(kernels());
        std::vector<int32_t> table(kv.blocks());
        std::iota(table.begin(), table.end(), 0);
        for (size_t i = 0; i < length; i++) {
            Batch batch;
            batch.add(text.tokens, i, 1, table);
            batch.logit_rows = {0};
            batch.run(plan, {});
            text.rows.emplace_back(plan.row(0), plan.row(0) + kVocabulary);
            text.draws.push_back(sampler.draw(plan.row(0), kVocabulary, draw_of(texts.size() - 1, i)));
        }
    }
    return texts;
}

// -- the load -------------------------------------------------------------------------------------------------------

struct Fault {};
thread_local int calls_to_fault = 0;  // of this thread; 0: none

// The kernels, two of which can be told to fail: `prepare` before a barrier, `attend_chunk` inside a claim of work.
const Kernels& faulty_kernels() {
    static const Kernels table = [] {
        Kernels k = kernels();
        k.prepare = [](auto... x) {
            if (calls_to_fault && !--calls_to_fault) throw Fault();
            kernels().prepare(x...);
        };
        k.attend_chunk[static_cast<int>(KvType::bf16)] = [](const ChunkArgs& x) {
            if (calls_to_fault && !--calls_to_fault) throw Fault();
            kernels().attend_chunk[static_cast<int>(KvType::bf16)](x);
        };
        return k;
    }();
    return table;
}

// Whether a step, told to fail at the `calls`th call on thread `victim`, did: there may be fewer.
bool breaks_off(Pool& pool, Plan& plan, const Batch& batch, const std::vector<int32_t>& fresh, int victim, int calls) {
    bool broken = false;
    pool.run([&](int thread, int) { calls_to_fault = thread == victim ? calls : 0; });
    try {
        batch.run(plan, fresh);
    } catch (const Fault&) {
        broken = true;
    }
    pool.run([](int, int) { calls_to_fault = 0; });
    return broken;
}

// A token whose past is two chunks, broken off at every call: run again, it leaves the row that it should.
void every_break(const Model& model, const Text& text) {
    for (int threads : {1, 2}) {
        Pool pool(threads, false);
        KvMemory kv(KvType::bf16, 6, kKept);
        Plan plan(pool, model.weights(), kv, faulty_kernels());
        model.record(plan);
        const std::vector<int32_t> table = {4, 2, 0, 5, 1, 3};
        const size_t last = 300;
        Batch past, batch;
        past.add(text.tokens, 0, last, table);
        past.run(plan, {});
        batch.add(text.tokens, last, 1, table);
        batch.logit_rows = {0};
        // linears of the first layer; of the second, the experts' input and what each of them makes of it; the head
        constexpr int kPrepared = 4 + (3 + 1 + kTaken) + 1, kAttended = 2 * kKvHeads * kLayers;
        for (int victim = 0; victim < threads; victim++) {
            int broken = 0;
            for (int calls = 1; calls <= kPrepared + kAttended; calls++) {
                if (breaks_off(pool, plan, batch, {}, victim, calls)) {
                    broken++;
                    CHECK(plan.rows_run() == 0, "%d threads: a step that failed left rows", threads);
                }
                batch.run(plan, {});
                CHECK(!std::memcmp(plan.row(0), text.rows[last].data(), kVocabulary * 4),
                      "%d threads: another row after thread %d failed in call %d", threads, victim, calls);
            }
            CHECK(broken >= (threads == 1 ? kPrepared + kAttended : kPrepared), "thread %d of %d failed %d times",
                  victim, threads, broken);
        }
    }
}

void need(bool condition, const char* what) {
    if (!condition) throw std::runtime_error(what);
}

struct Tally {
    size_t rows = 0, shared = 0, copied = 0, refused = 0, faults = 0, damaged = 0;
    std::vector<size_t> finished;  // per text
};

// One engine: does at random what a scheduler may.
class Driver {
public:
    Driver(const Model& model, const std::vector<Text>& texts, unsigned seed)
        : texts_(texts), random_(seed), plan_(pool_, model.weights(), kv_, faulty_kernels()) {
        model.record(plan_);
        std::iota(free_.begin(), free_.end(), 0);
        tally_.finished.resize(texts.size());
    }

    // Throws, with a sentence, at the first thing that is not as it should be.
    Tally run() {
        for (int i = 0; i < kSteps; i++) step();
        return tally_;
    }

private:
    struct Sequence {
        size_t text, stored = 0;
        std::vector<int32_t> blocks = {};
    };
    struct Row {
        size_t text, position;
    };

    size_t below(size_t n) { return random_() % n; }

    int32_t take() {
        std::swap(free_[below(free_.size())], free_.back());
        const int32_t block = free_.back();
        free_.pop_back();
        holders_[block] = 1;
        return block;
    }

    void leave(size_t index) {
        for (int32_t block : live_[index].blocks)
            if (--holders_[block] == 0) free_.push_back(block);
        live_.erase(live_.begin() + static_cast<long>(index));
    }

    // A text from its start, or from where it parts from one that is being read: whole blocks are shared, the one in
    // which they part is copied.
    void join() {
        Sequence s{below(texts_.size())};
        if (!live_.empty() && below(3)) {
            const Sequence& source = live_[below(live_.size())];
            const std::vector<int32_t>&own = texts_[s.text].tokens, &other = texts_[source.text].tokens;
            const auto parted = std::mismatch(own.begin(), own.end(), other.begin(), other.end()).first;
            size_t common = std::min({static_cast<size_t>(parted - own.begin()), source.stored, own.size() - 1});
            if (below(2)) common = below(common + 1);
            for (size_t b = 0; b < common / kBlock; b++) {
                s.blocks.push_back(source.blocks[b]);
                holders_[source.blocks[b]]++;
                tally_.shared++;
            }
            s.stored = s.blocks.size() * kBlock;
            if (common > s.stored && !free_.empty()) {
                s.blocks.push_back(take());
                kv_.copy(source.blocks[s.blocks.size() - 1], s.blocks.back());
                s.stored = common;
                tally_.copied++;
            }
        }
        live_.push_back(std::move(s));
    }

    void step() {
        if (live_.empty() || (live_.size() < kLive && !below(3))) join();
        std::shuffle(live_.begin(), live_.end(), random_);
        Batch batch;
        std::vector<int32_t> fresh;
        std::vector<Row> rows;
        for (Sequence& s : live_) {
            if (!below(4)) continue;
            const std::vector<int32_t>& text = texts_[s.text].tokens;
            const size_t left = text.size() - s.stored;
            size_t count = below(2) ? 1 : below(6) ? 1 + below(std::min<size_t>(left, 90)) : left;
            while (s.blocks.size() * kBlock < s.stored + count && !free_.empty()) {
                s.blocks.push_back(take());
                fresh.push_back(s.blocks.back());
            }
            count = std::min(count, s.blocks.size() * kBlock - s.stored);
            if (!count) continue;
            for (size_t i = 0; i < count; i++)
                if (!below(3)) {
                    batch.logit_rows.push_back(static_cast<int32_t>(batch.tokens.size() + i));
                    rows.push_back({s.text, s.stored + i});
                }
            batch.add(text, s.stored, count, s.blocks);
            s.stored += count;
        }
        if (batch.tokens.empty()) return leave(0);
        if (!below(8)) refuse(batch);
        const int victim = static_cast<int>(below(kThreads)), calls = 1 + static_cast<int>(below(10));
        if (!below(8) && breaks_off(pool_, plan_, batch, fresh, victim, calls)) {
            need(plan_.rows_run() == 0, "a step that failed left rows");
            tally_.faults++;
        }
        batch.run(plan_, fresh);
        rows_ = rows;
        check_rows();
        draw();
        for (size_t i = live_.size(); i-- > 0;) {
            const bool finished = live_[i].stored == texts_[live_[i].text].tokens.size();
            tally_.finished[live_[i].text] += finished;
            if (finished || !below(60)) leave(i);
        }
    }

    // The rows of the last step that ran.
    void check_rows() {
        need(plan_.rows_run() == rows_.size(), "a step left another number of rows");
        for (size_t i = 0; i < rows_.size(); i++)
            if (std::memcmp(plan_.row(i), texts_[rows_[i].text].rows[rows_[i].position].data(), kVocabulary * 4))
                throw std::runtime_error("text " + std::to_string(rows_[i].text) + ", position " +
                                         std::to_string(rows_[i].position) + ": not the row of the text alone");
        tally_.rows += rows_.size();
    }

    void draw() {
        static const std::vector<float> not_numbers(kVocabulary, NAN);
        const bool damaged = !below(8);
        const int victim = static_cast<int>(below(kThreads));
        bool thrown = false;
        try {
            pool_.run([&](int thread, int) {
                for (size_t i = rows_.size() * thread / kThreads; i < rows_.size() * (thread + 1) / kThreads; i++) {
                    const auto [text, position] = rows_[i];
                    const Drawn drawn = samplers_[thread].draw(plan_.row(i), kVocabulary, draw_of(text, position)),
                                want = texts_[text].draws[position];
                    need(drawn.token == want.token && drawn.logprob == want.logprob, "not the draw of the text alone");
                }
                if (damaged && thread == victim) samplers_[thread].draw(not_numbers.data(), kVocabulary, draw_of(0, 0));
            });
        } catch (const std::domain_error&) {
            thrown = true;
            tally_.damaged++;
        }
        need(thrown == damaged, "a damaged row is refused, and no other");
    }

    // A batch that is refused leaves blocks and rows as they were.
    void refuse(Batch batch) {
        batch.tokens[below(batch.tokens.size())] = below(2) ? -1 : static_cast<int32_t>(kVocabulary);
        std::vector<int32_t> every(kBlocks);
        std::iota(every.begin(), every.end(), 0);
        bool refused = false;
        try {
            batch.run(plan_, every);
        } catch (const std::invalid_argument&) {
            refused = true;
            tally_.refused++;
        }
        need(refused, "a token that there is not was read");
        check_rows();
    }

    const std::vector<Text>& texts_;
    std::mt19937 random_;
    Pool pool_{kThreads, false};
    KvMemory kv_{KvType::bf16, kBlocks, kKept};
    Plan plan_;
    std::vector<Sampler> samplers_ = std::vector<Sampler>(kThreads, Sampler(kernels()));
    std::vector<Sequence> live_;
    std::vector<Row> rows_;
    std::vector<int32_t> free_ = std::vector<int32_t>(kBlocks);
    std::vector<int> holders_ = std::vector<int>(kBlocks);
    Tally tally_;
};

}  // namespace

void test_load() {
    const Model model;
    const std::vector<Text> texts = expected(model);
    std::set<std::vector<int32_t>> prefixes;
    std::set<std::vector<float>> rows;
    for (const Text& text : texts)
        for (size_t i = 0; i < text.tokens.size(); i++) {
            prefixes.emplace(text.tokens.begin(), text.tokens.begin() + static_cast<long>(i) + 1);
            rows.insert(text.rows[i]);
        }
    CHECK(rows.size() == prefixes.size(), "%zu rows for %zu prefixes", rows.size(), prefixes.size());

    every_break(model, texts.back());

    std::vector<Tally> tallies(kDrivers);
    std::vector<std::string> troubles(kDrivers);
    std::vector<std::thread> drivers;
    for (int d = 0; d < kDrivers; d++)
        drivers.emplace_back([&, d] {
            try {
                tallies[d] = Driver(model, texts, static_cast<unsigned>(d)).run();
            } catch (const std::exception& trouble) {
                troubles[d] = trouble.what();
            }
        });
    for (std::thread& driver : drivers) driver.join();
    for (int d = 0; d < kDrivers; d++) {
        CHECK(troubles[d].empty(), "driver %d: %s", d, troubles[d].c_str());
        if (!troubles[d].empty()) continue;
        const Tally& t = tallies[d];
        const size_t often = kSteps / 20;
        CHECK(
            t.rows > 100 * often && t.shared > often / 2 && t.copied > often && t.refused > often && t.faults > often &&
                t.damaged > often,
            "driver %d: %zu rows, blocks shared %zu and copied %zu times, %zu batches refused, %zu faults, %zu damaged",
            d, t.rows, t.shared, t.copied, t.refused, t.faults, t.damaged);
        for (size_t i = 0; i < t.finished.size(); i++) CHECK(t.finished[i], "driver %d: text %zu never ended", d, i);
    }
}
