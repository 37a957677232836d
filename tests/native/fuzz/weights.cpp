// Any bytes as weights of any format: refused, or packed, and then read as an embedding and multiplied.
#include "core/weights.h"

#include <memory>
#include <new>
#include <numeric>
#include <stdexcept>

#include "bytes.h"
#include "core/quantize.h"
#include "plan/plan.h"

using namespace qb;

namespace {

constexpr size_t kMost = 1 << 20;  // bytes of packed weights

struct Sizes {
    Format format;
    size_t rows, inputs, parts;
};

// Of whole blocks, or of anything.
Sizes sizes(Bytes& bytes) {
    const Format format = static_cast<Format>(bytes.below(kFormats));
    const uint8_t kind = bytes.take<uint8_t>();
    const size_t parts = 1 + (kind & 1), rows = 1 + bytes.below(40), inputs = 1 + bytes.below(4);
    if (kind & 2) return {format, bytes.take<uint64_t>(), bytes.take<uint64_t>(), parts};
    return {format, rows, inputs * (kind & 4 ? 1 : 256), parts};
}

// Embeds tokens by the first weight and multiplies them with all. The weights stand in memory of exactly their size.
void run(const Sizes& s, std::span<const uint8_t> packed, Pool& pool, Bytes& bytes) {
    const auto align = std::align_val_t(64);
    const auto free = [&](uint8_t* p) { ::operator delete[](p, align); };
    const std::unique_ptr<uint8_t[], decltype(free)> copy(new (align) uint8_t[packed.size()], free);
    std::copy(packed.begin(), packed.end(), copy.get());
    Weights weights({copy.get(), packed.size()}, pool);
    const size_t first = weights.reserve(s.format, s.rows, s.inputs, s.parts);

    static KvMemory kv(KvType::f32, 1, {{1, 16, 16}});
    const bool wide = bytes.below(2);
    Plan plan(pool, weights, kv, any_kernels(bytes), wide);
    const int x = plan.buffer(s.inputs, Length::tokens), out = plan.buffer(s.rows, Length::tokens);
    plan.embed(first, x);
    if (s.parts == 2)
        plan.gated_linear(x, {.gate = first, .up = first + 1}, out);
    else
        plan.linear(x, {{first, out}});
    plan.result(out);
    std::vector<int32_t> tokens(1 + bytes.below(9)), positions(tokens.size()), block{0}, none;
    for (int32_t& token : tokens) token = bytes.number();
    std::iota(positions.begin(), positions.end(), 0);
    const std::vector<int32_t> starts{0, static_cast<int32_t>(tokens.size())}, ends{0, 1};
    plan.run({tokens, positions, starts, block, ends, none, block});
}

void pack(const Sizes& s, Bytes& bytes) {
    static Pool pool(1);
    const size_t each = Weights::packed_size(s.format, s.rows, s.inputs), capacity = product(each, s.parts);
    if (capacity > kMost) return;
    Weights weights(capacity, pool);
    const size_t first = weights.reserve(s.format, s.rows, s.inputs, s.parts);
    const size_t row = source_row_bytes(s.format, s.inputs);
    for (size_t part = 0; part < s.parts; part++) {
        size_t from = 0, rows = s.rows, tail = 0;
        if (bytes.below(8) == 0) from = bytes.below(64), rows = bytes.below(64), tail = bytes.below(3);
        if (static_cast<int>(s.format) < kEncodable && bytes.below(2)) {
            std::vector<uint8_t> encoded(product(rows, row));
            quantize(s.format, bytes.list<float>(product(rows, s.inputs)), s.inputs, pool, any_kernels(bytes), encoded);
            weights.fill(first + part, from, encoded);
        } else {
            const size_t given = std::min<size_t>(2 * row + 1, 600);  // then they come again
            std::vector<uint8_t> encoded = bytes.list<uint8_t>(given);
            encoded.resize(product(rows, row) + tail);
            for (size_t i = given; i < encoded.size(); i++) encoded[i] = encoded[i - given];
            weights.fill(first + part, from, encoded);
        }
    }
    run(s, weights.packed(), pool, bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Bytes bytes(data, size);
    try {
        pack(sizes(bytes), bytes);
    } catch (const std::invalid_argument&) {
    } catch (const std::overflow_error&) {
    }
    return 0;
}
