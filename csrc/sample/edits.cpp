#include "sample/edits.h"

#include <algorithm>
#include <stdexcept>

namespace qb {

void check(const Edit& edit, size_t n) {
    if (edit.kind == EditKind::only) {
        if (edit.ids.size() != (n + 31) / 32 || !edit.values.empty())
            throw std::invalid_argument(
                "edits: a mask has one bit for each logit, in whole words of 32, and no values");
        return;
    }
    if (edit.values.size() != 1 && edit.values.size() != edit.ids.size())
        throw std::invalid_argument("edits: one value for all ids, or one for each");
    uint32_t largest = 0;  // a negative id is larger than all
    for (int32_t id : edit.ids) largest = std::max(largest, static_cast<uint32_t>(id));
    if (!edit.ids.empty() && largest >= n) throw std::invalid_argument("edits: an id outside the vocabulary");
}

Edited::Edited(const Kernels& kernels, float* row, size_t n, std::span<const Edit> edits, Memory& memory)
    : row_(row), edited_(row), memory_(memory) {
    memory_.before.clear();
    for (const Edit& edit : edits) {
        if (edit.kind == EditKind::only) {
            memory_.row.resize(n);
            kernels.only(edited_, n, edit.ids.data(), memory_.row.data());
            edited_ = memory_.row.data();
            continue;
        }
        const auto each = [&](auto change) {
            const size_t step = edit.values.size() != 1, known = memory_.before.size();
            if (edited_ == row_) memory_.before.resize(known + edit.ids.size());
            for (size_t i = 0; i < edit.ids.size(); i++) {
                const int32_t id = edit.ids[i];
                const float x = edited_[id];
                if (edited_ == row_) memory_.before[known + i] = {id, x};
                edited_[id] = change(x, edit.values[i * step]);
            }
        };
        switch (edit.kind) {
            case EditKind::scale:
                each([](float x, float value) {
                    const float product = x * value, quotient = x / value;  // both: signs cannot be foreseen
                    return x < 0 ? product : quotient;
                });
                break;
            case EditKind::add: each([](float x, float value) { return x + value; }); break;
            default: each([](float, float value) { return value; }); break;
        }
    }
}

Edited::~Edited() {
    for (size_t i = memory_.before.size(); i-- > 0;) row_[memory_.before[i].first] = memory_.before[i].second;
}

}  // namespace qb
