// The attention of a step, cut into items: a few queries with a long past by chunk, a prompt by tiles of queries.
#include <algorithm>
#include <cstring>

#include "plan/internal.h"

namespace qb {

namespace {

constexpr float kStart = -1e30f;  // running max before the first chunk
constexpr float kLog2e = 1.44269504088896341f;
constexpr size_t kFewQueries = 8;  // up to here a sequence's chunks are shared out among threads

}  // namespace

uint8_t* Plan::block_keys(size_t layer, size_t sequence, size_t block, size_t kv_head) const {
    return kv_.keys(batch_.blocks[batch_.block_starts[sequence] + block], layer, kv_head);
}

// Every layer works on the same sequences, so the items are made once a step.
void Plan::plan_attention(Attend& a) {
    const size_t kv_heads = a.kv_heads, group_rows = a.heads / kv_heads;
    const size_t most = std::max<size_t>(1, kAttendRows / group_rows);  // queries of a tile
    const size_t capacity = a.items.capacity() + a.groups.capacity();
    a.items.clear();
    a.groups.clear();
    a.store_first = false;
    a.partial_floats = kAttendRows * (2 + a.value_width);
    uint32_t partials = 0;
    for (uint32_t s = 0; s < sequences_; s++) {
        const uint32_t begin = batch_.starts[s], end = batch_.starts[s + 1], count = end - begin;
        if (count > 1) a.store_first = true;
        const uint32_t first_chunk = static_cast<uint32_t>(a.first_seen(batch_.positions[begin]) / kChunk),
                       chunks = batch_.positions[end - 1] / kChunk + 1 - first_chunk;
        const bool by_chunk = chunks > 1 && count <= std::min(kFewQueries, most);
        for (uint32_t h = 0; h < kv_heads; h++) {
            if (by_chunk) {
                const uint32_t group = static_cast<uint32_t>(a.groups.size());
                a.groups.push_back({first_chunk, chunks, partials});
                partials += chunks;
                for (uint32_t c = first_chunk; c < first_chunk + chunks; c++)
                    a.items.push_back({s, begin, count, h, static_cast<int32_t>(c), group});
                continue;
            }
            for (uint32_t first = begin; first < end; first += most)
                a.items.push_back({s, first, std::min<uint32_t>(most, end - first), h, -1, 0});
        }
    }
    if (a.items.capacity() + a.groups.capacity() != capacity) growths_++;
    a.partials.need(product(partials, a.partial_floats * 4), growths_);
    // A counter per group and use: nobody resets one while others work.
    const size_t counters = a.groups.size() * a.uses;
    if (counters > a.remaining_made) {
        a.remaining = std::make_unique<std::atomic<uint32_t>[]>(counters * 2);
        a.remaining_made = counters * 2;
        growths_++;
    }
    for (size_t g = 0; g < a.groups.size(); g++)
        for (size_t u = 0; u < a.uses; u++)
            a.remaining[u * a.groups.size() + g].store(a.groups[g].chunks, std::memory_order_relaxed);
}

// A head of `dim` values of one token.
void Plan::rotate(const Rope& rope, const float* x, size_t token, size_t dim, float* out) const {
    std::copy_n(x, rope.start, out);
    kernels_.rope[rope.interleaved](x + rope.start, rope.cos(token), rope.sin(token), static_cast<int>(2 * rope.half()),
                                    out + rope.start);
    std::copy(x + rope.end(), x + dim, out + rope.end());
}

// One head of q or k, normalised and rotated as the instruction says, padded with zeros. `out` has room for two.
const float* Plan::turned(const Instruction& i, const float* x, const Applied& norm, size_t head, size_t token,
                          float* out) const {
    const size_t d = kv_.layer(i.layer).head_dim, width = kv_.layer(i.layer).key_width();
    float* other = out + width;
    x += head * d;
    if (d < width) {
        std::copy_n(x, d, other);
        std::fill(other + d, other + width, 0.0f);
        x = other;
    }
    if (norm) {
        kernels_.normalise(norm.of_head(head), x, d, other);
        x = other;
    }
    if (i.rope < 0) return x;
    rotate(ropes_[i.rope], x, token, width, out);
    return out;
}

void Plan::store_keys(const Instruction& i, size_t token, size_t kv_head, Thread& own) {
    const KvLayer& layer = kv_.layer(i.layer);
    const size_t dv = layer.value_dim, width = layer.value_width(), position = batch_.positions[token];
    float* room = reinterpret_cast<float*>(own.row.data());
    const float* k = turned(i, buffers_[i.y].row(token), i.k_norm, kv_head, token, room);
    const float* v = buffers_[i.z].row(token) + kv_head * dv;
    if (dv < width) {
        float* padded = room + 2 * layer.key_width();
        std::copy_n(v, dv, padded);
        std::fill(padded + dv, padded + width, 0.0f);
        v = padded;
    }
    uint8_t* keys = block_keys(i.layer, sequence_of_[token], position / kBlock, kv_head);
    kernels_.store_kv[static_cast<int>(kv_.type())](keys, position % kBlock, static_cast<int>(layer.key_width()),
                                                    static_cast<int>(width), k, v);
}

void Plan::run_attention(const Instruction& i, size_t index, int thread) {
    Attend& a = attends_[i.attend];
    if (a.store_first && i.y >= 0) {
        const size_t work = tokens_ * a.kv_heads, threads = pool_.active();
        for (size_t w = work * thread / threads; w < work * (thread + 1) / threads; w++)
            store_keys(i, w / a.kv_heads, w % a.kv_heads, threads_[thread]);
        pool_.barrier();
    }
    // Several chunks of one text at a time, which fetch for each other; tiles of a prompt are long enough alone.
    const size_t items = a.items.size(),
                 at_a_time = a.store_first ? 1 : std::clamp<size_t>(items / (pool_.active() * 6), 1, 8);
    claim(index, thread, items, at_a_time, [&](size_t begin, size_t end, size_t) {
        for (size_t item = begin; item < end; item++) attend_item(i, a, item, end, thread);
    });
}

void Plan::attend_item(const Instruction& i, Attend& a, size_t item, size_t last_item, int thread) {
    const Attend::Item& it = a.items[item];
    Thread& own = threads_[thread];
    const KvLayer& layer = kv_.layer(i.layer);
    const size_t d = layer.key_width(), dv = layer.value_width();
    const size_t per_kv = a.heads / layer.kv_heads, rows = it.count * per_kv;
    const int value_dim = static_cast<int>(dv), type = static_cast<int>(kv_.type());
    const size_t row_bytes = query_bytes(kv_.type(), d, kernels_.pair_bytes);
    const size_t last_position = batch_.positions[it.first + it.count - 1], chunks = last_position / kChunk + 1,
                 first_chunk = a.first_seen(batch_.positions[it.first]) / kChunk;
    const bool by_chunk = it.chunk >= 0;

    // A lone new token's key is read by the items of this sequence and head in its last chunk alone: that one stores
    // it.
    if (i.y >= 0 && !a.store_first && (!by_chunk || static_cast<size_t>(it.chunk) + 1 == chunks))
        store_keys(i, it.first, it.kv_head, own);

    for (size_t r = 0; r < rows; r++) {
        const size_t token = it.first + r / per_kv, head = it.kv_head * per_kv + r % per_kv;
        const float* q =
            turned(i, buffers_[i.x].row(token), i.q_norm, head, token, reinterpret_cast<float*>(own.row.data()));
        kernels_.narrow[type](q, d, own.queries.data() + r * row_bytes);
    }

    // results: chunk max, chunk sum, running max, running sum (kAttendRows each), chunk out, running out (rows x dv)
    float* results = reinterpret_cast<float*>(own.results.data());
    float *chunk_max = results, *chunk_sum = chunk_max + kAttendRows, *running_max = chunk_sum + kAttendRows,
          *running_sum = running_max + kAttendRows, *chunk_out = running_sum + kAttendRows,
          *running_out = chunk_out + kAttendRows * dv;
    // What a score is worth in the exponent once it is capped, and then once a slope was added.
    const float capped = i.factor > 0 ? i.factor : a.scale, worth = i.slopes.empty() ? capped : 1.0f;
    const float scale_log2 = worth * kLog2e;
    int visible[kAttendRows], first[kAttendRows];
    float slopes[kAttendRows];
    const auto head_of = [&](size_t r) { return it.kv_head * per_kv + r % per_kv; };
    if (!i.slopes.empty())
        for (size_t r = 0; r < rows; r++) slopes[r] = i.slopes[head_of(r)];

    const auto attend = [&](size_t chunk, float* max, float* sum, float* out) {
        const size_t first_block = chunk * kChunkBlocks;
        const size_t blocks = std::min<size_t>(kChunkBlocks, last_position / kBlock + 1 - first_block);
        const uint8_t *keys[kChunkBlocks], *ahead[kChunkBlocks];
        for (size_t b = 0; b < blocks; b++) keys[b] = block_keys(i.layer, it.sequence, first_block + b, it.kv_head);
        for (size_t b = 0; b < kChunkBlocks; b++) ahead[b] = keys[std::min(b, blocks - 1)];
        // what this thread reads next, as far as it is known: the next item of its claim, if that is the next chunk
        if (by_chunk && item + 1 < last_item && a.items[item + 1].chunk == it.chunk + 1) {
            const size_t next = first_block + kChunkBlocks, there = last_position / kBlock + 1 - next;
            for (size_t b = 0; b < kChunkBlocks; b++)
                ahead[b] = block_keys(i.layer, it.sequence, next + std::min(b, there - 1), it.kv_head);
        }
        for (size_t r = 0; r < rows; r++) {
            const int position = batch_.positions[it.first + r / per_kv], start = static_cast<int>(chunk * kChunk);
            visible[r] = position + 1 - start;
            first[r] = static_cast<int>(a.first_seen(position)) - start;
        }
        kernels_.attend_chunk[type]({
            .keys = keys,
            .ahead = ahead,
            .blocks = static_cast<int>(blocks),
            .rows = static_cast<int>(rows),
            .head_dim = static_cast<int>(d),
            .value_dim = value_dim,
            .queries = own.queries.data(),
            .visible = visible,
            .first = a.window ? first : nullptr,
            .softcap = i.factor > 0 ? a.scale / i.factor : 0.0f,
            .slopes = i.slopes.empty() ? nullptr : slopes,
            .slope_scale = capped,
            .scale_log2 = scale_log2,
            .scratch = own.attend.data(),
            .max = max,
            .sum = sum,
            .out = out,
        });
    };
    const auto start = [&] {
        std::fill_n(running_max, rows, kStart);
        std::fill_n(running_sum, rows, 0.0f);
        std::fill_n(running_out, rows * dv, 0.0f);
    };
    // A chunk that a row does not see is no part of its merge: adding its zeros could still turn -0 into +0.
    const auto merge = [&](size_t chunk, const float* max, const float* sum, const float* out) {
        for (size_t r = 0; r < rows; r++) {
            const int32_t position = batch_.positions[it.first + r / per_kv];
            if (static_cast<size_t>(position) >= chunk * kChunk && a.first_seen(position) < (chunk + 1) * kChunk)
                kernels_.merge(running_max + r, running_sum + r, running_out + r * dv, max[r], sum[r], out + r * dv,
                               value_dim, scale_log2);
        }
    };
    const auto finish = [&] {
        for (size_t r = 0; r < rows; r++) {
            float* sums = running_out + r * dv;
            if (i.sinks)  // a chunk of one key, whose score is known and whose value is zero
                kernels_.merge(running_max + r, running_sum + r, sums, i.sinks[head_of(r)] / worth, 1.0f,
                               no_value_.data(), value_dim, scale_log2);
            float* out = buffers_[i.out].row(it.first + r / per_kv) + head_of(r) * layer.value_dim;
            const bool whole = layer.value_dim == dv;
            kernels_.finish(sums, running_sum[r], value_dim, whole ? out : sums);
            if (!whole) std::copy_n(sums, layer.value_dim, out);
        }
    };

    if (!by_chunk) {
        start();
        for (size_t c = first_chunk; c < chunks; c++) {
            attend(c, chunk_max, chunk_sum, chunk_out);
            merge(c, chunk_max, chunk_sum, chunk_out);
        }
        finish();
        return;
    }
    const Attend::Group& group = a.groups[it.group];
    const auto partial = [&](size_t chunk) {
        return reinterpret_cast<float*>(a.partials.data()) + (group.partial + chunk - group.first) * a.partial_floats;
    };
    float* own_partial = partial(it.chunk);
    attend(it.chunk, own_partial, own_partial + kAttendRows, own_partial + 2 * kAttendRows);
    // Whoever finishes the last chunk merges all of them, in chunk order.
    if (a.remaining[i.use * a.groups.size() + it.group].fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    start();
    for (size_t c = first_chunk; c < chunks; c++)
        merge(c, partial(c), partial(c) + kAttendRows, partial(c) + 2 * kAttendRows);
    finish();
}

}  // namespace qb
