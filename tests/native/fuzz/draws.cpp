// Any row of logits, edits and parameters: refused, or a token of the row, which is then as it was.
#include <cstdlib>
#include <stdexcept>

#include "bytes.h"
#include "sample/sampler.h"

using namespace qb;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Bytes bytes(data, size);
    Sampler sampler(any_kernels(bytes));
    const Draw draw = {.seed = bytes.take<uint64_t>(),
                       .position = bytes.take<int64_t>(),
                       .temperature = bytes.take<float>(),
                       .top_k = bytes.number(),
                       .top_p = bytes.take<float>(),
                       .min_p = bytes.take<float>(),
                       .logprob = bytes.below(2) != 0};
    struct Lists {
        std::vector<int32_t> ids;
        std::vector<float> values;
    };
    const size_t n = 1 + bytes.take<uint16_t>() % 600;
    std::vector<Lists> lists(bytes.below(4));
    std::vector<Edit> edits;
    for (Lists& list : lists) {
        const auto kind = static_cast<EditKind>(bytes.below(kEditKinds));
        if (kind == EditKind::only) {
            list.ids = bytes.list<int32_t>((n + 31) / 32 + (bytes.below(16) == 0));
        } else {
            for (size_t left = bytes.below(20); left > 0; left--) list.ids.push_back(bytes.number());
            list.values = bytes.list<float>(bytes.below(2) ? 1 : list.ids.size());
        }
        edits.push_back({kind, list.ids, list.values});
    }
    // A few bytes make a long row: it is repeated, with a step.
    std::vector<float> row = bytes.list<float>(1 + bytes.below(40));
    const float step = bytes.take<float>();
    row.reserve(n);
    while (row.size() < n) row.push_back(row[row.size() - std::min<size_t>(row.size(), 7)] + step);
    row.resize(n);
    const std::vector<float> before = row;
    try {
        for (const Edit& edit : edits) check(edit, n);
        const Drawn drawn = sampler.draw_edited(row.data(), n, edits, draw);
        if (drawn.token < 0 || static_cast<size_t>(drawn.token) >= n) std::abort();
    } catch (const std::invalid_argument&) {
    } catch (const std::domain_error&) {
    }
    if (std::memcmp(row.data(), before.data(), n * sizeof(float))) std::abort();
    return 0;
}
