#include "core/kv.h"

#include <algorithm>
#include <cstring>

namespace qb {

KvMemory::KvMemory(KvType type, size_t blocks, const std::vector<KvLayer>& layers) : type_(type), blocks_(blocks) {
    // No layers: of a model that has states only, whose blocks take no memory.
    if (!blocks) throw std::invalid_argument("there must be blocks to keep keys in");
    for (const KvLayer& layer : layers) {
        const auto& [kv_heads, head_dim, value_dim] = layer;
        if (!kv_heads || !head_dim || !value_dim || head_dim > 1024 || value_dim > 1024)
            throw std::invalid_argument("heads must have at most 1024 values, and no dimension can be zero");
        const size_t head_bytes =
            kv_segment_bytes(type, layer.key_width()) + kv_segment_bytes(type, layer.value_width());
        layers_.push_back({layer, block_bytes_, head_bytes});
        block_bytes_ = sum(block_bytes_, product(kv_heads, head_bytes));
        widest_key_ = std::max(widest_key_, layer.key_width());
        widest_value_ = std::max(widest_value_, layer.value_width());
    }
    pages_ = Pages(product(blocks, block_bytes_));
    taken_.resize(blocks);
}

void KvMemory::clear(size_t block) {
    if (block >= blocks_) throw std::out_of_range("no block of that number");
    if (taken_[block] && block_bytes_) std::memset(pages_.data() + block * block_bytes_, 0, block_bytes_);
    taken_[block] = true;
}

void KvMemory::copy(size_t source, size_t target) {
    if (source >= blocks_ || target >= blocks_) throw std::out_of_range("no block of that number");
    if (source == target || !block_bytes_) return;
    taken_[target] = true;
    std::memcpy(pages_.data() + target * block_bytes_, pages_.data() + source * block_bytes_, block_bytes_);
}

}  // namespace qb
