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
        const size_t step = edit.values.size() != 1;
        const float* value = edit.values.data();
        for (int32_t id : edit.ids) {
            const float x = edited_[id];
            if (edited_ == row_) memory_.before.emplace_back(id, x);
            switch (edit.kind) {
                case EditKind::scale: edited_[id] = x < 0 ? x * *value : x / *value; break;
                case EditKind::add: edited_[id] = x + *value; break;
                default: edited_[id] = *value; break;
            }
            value += step;
        }
    }
}

Edited::~Edited() {
    for (size_t i = memory_.before.size(); i-- > 0;) row_[memory_.before[i].first] = memory_.before[i].second;
}

}  // namespace qb
