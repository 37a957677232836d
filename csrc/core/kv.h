// Paged memory of keys and values: blocks of 64 tokens holding every layer, [block][layer][kv head][K | V].
#pragma once

#include "core/memory.h"
#include "table.h"

namespace qb {

class KvMemory {
public:
    // value_dim: of a head's values, where that is not head_dim. Throws std::invalid_argument for dimensions that
    // cannot be.
    KvMemory(KvType, size_t blocks, size_t layers, size_t kv_heads, size_t head_dim, size_t value_dim = 0);

    KvType type() const { return type_; }
    size_t blocks() const { return blocks_; }
    size_t layers() const { return layers_; }
    size_t kv_heads() const { return kv_heads_; }
    size_t head_dim() const { return head_dim_; }
    size_t value_dim() const { return value_dim_; }
    // As they are stored: padded to 16 with zeros.
    size_t key_width() const { return padded16(head_dim_); }
    size_t value_width() const { return padded16(value_dim_); }
    size_t block_bytes() const { return block_bytes_; }

    // The K segment of one kv head; its V segment follows. Arguments are the caller's to check.
    uint8_t* keys(size_t block, size_t layer, size_t kv_head) const {
        return pages_.data() + block * block_bytes_ + (layer * kv_heads_ + kv_head) * head_bytes_;
    }
    // Stale values must be finite where weights of exact zero meet them: a block is cleared when it is taken.
    void clear(size_t block);
    void copy(size_t source, size_t target);

private:
    KvType type_;
    size_t blocks_, layers_, kv_heads_, head_dim_, value_dim_, head_bytes_, block_bytes_;
    Pages pages_;
};

}  // namespace qb
