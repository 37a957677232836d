// Any text as the long lists of a tokenizer.json, from any place on: refused, or lists whose parts add up.
#include "text/lists.h"

#include <cstdlib>
#include <stdexcept>

using namespace qb;

namespace {

void read(Listed (*list)(std::string_view, size_t), std::string_view json, size_t at, bool has_ids) {
    try {
        const Listed found = list(json, at);
        size_t total = 8;  // the zeros behind the texts
        for (int64_t size : found.sizes) {
            if (size < 0) std::abort();
            total += static_cast<size_t>(size);
        }
        if (total != found.texts.size() || found.end <= at || found.end > json.size()) std::abort();
        if (found.ids.size() != (has_ids ? found.sizes.size() : 0)) std::abort();
        if (!has_ids && found.sizes.size() % 2) std::abort();
    } catch (const std::invalid_argument&) {
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (!size) return 0;
    const std::string_view json(reinterpret_cast<const char*>(data) + 1, size - 1);
    read(read_tokens, json, data[0] % 8, true);
    read(read_merges, json, data[0] % 8, false);
    return 0;
}
