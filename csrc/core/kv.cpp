#include "core/kv.h"

#include <cstring>

namespace qb {

KvMemory::KvMemory(KvType type, size_t blocks, size_t layers, size_t kv_heads, size_t head_dim, size_t value_dim)
    : type_(type),
      blocks_(blocks),
      layers_(layers),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      value_dim_(value_dim ? value_dim : head_dim) {
    // No layers: of a model that has states only, whose blocks take no memory.
    if (!blocks || !kv_heads || !head_dim || head_dim > 1024 || value_dim_ > 1024)
        throw std::invalid_argument("heads must have at most 1024 values, and no dimension can be zero");
    const size_t value_bytes = type == KvType::bf16 ? 2 : 4;
    head_bytes_ = product(kBlock * value_bytes, key_width() + value_width());
    block_bytes_ = product(product(layers, kv_heads), head_bytes_);
    pages_ = Pages(product(blocks, block_bytes_));
}

void KvMemory::clear(size_t block) {
    if (block >= blocks_) throw std::out_of_range("no block of that number");
    if (block_bytes_) std::memset(pages_.data() + block * block_bytes_, 0, block_bytes_);
}

void KvMemory::copy(size_t source, size_t target) {
    if (source >= blocks_ || target >= blocks_) throw std::out_of_range("no block of that number");
    if (source == target || !block_bytes_) return;
    std::memcpy(pages_.data() + target * block_bytes_, pages_.data() + source * block_bytes_, block_bytes_);
}

}  // namespace qb
