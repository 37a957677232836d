// Paged memory of keys and values: blocks of 64 tokens holding every layer, [block][layer][kv head][K | V].
#pragma once

#include <vector>

#include "core/memory.h"
#include "table.h"

namespace qb {

// What one layer keeps of a token.
struct KvLayer {
    size_t kv_heads, head_dim, value_dim;

    // As they are stored: padded to 16 with zeros.
    size_t key_width() const { return padded16(head_dim); }
    size_t value_width() const { return padded16(value_dim); }
};

class KvMemory {
public:
    // Throws std::invalid_argument for dimensions that cannot be.
    KvMemory(KvType, size_t blocks, const std::vector<KvLayer>& layers);

    KvType type() const { return type_; }
    size_t blocks() const { return blocks_; }
    size_t layers() const { return layers_.size(); }
    const KvLayer& layer(size_t layer) const { return layers_[layer].shape; }
    size_t block_bytes() const { return block_bytes_; }
    // Of any layer's keys and values.
    size_t widest_key() const { return widest_key_; }
    size_t widest_value() const { return widest_value_; }

    // The K segment of one kv head; its V segment follows. Arguments are the caller's to check.
    uint8_t* keys(size_t block, size_t layer, size_t kv_head) const {
        const Layer& l = layers_[layer];
        return pages_.data() + block * block_bytes_ + l.offset + kv_head * l.head_bytes;
    }
    // Stale values and scales must be finite where weights of exact zero meet them: a block is cleared when taken. The
    // first time that costs nothing: its pages are zeros, and come when they are written, by whichever thread does.
    void clear(size_t block);
    void copy(size_t source, size_t target);

private:
    struct Layer {
        KvLayer shape;
        size_t offset, head_bytes;  // in a block
    };

    KvType type_;
    size_t blocks_, block_bytes_ = 0, widest_key_ = 0, widest_value_ = 0;
    std::vector<Layer> layers_;
    std::vector<bool> taken_;  // blocks that were cleared or copied to before
    Pages pages_;
};

}  // namespace qb
