// Lists of a tokenizer.json: what is damaged is refused, and nothing behind the end is looked at (the sanitizers see
// it).
#include <stdexcept>
#include <string_view>

#include "check.h"
#include "text/lists.h"

using namespace qb;

namespace {

// Whether it is a list; the bytes are in memory of just their size.
bool read(Listed (*reader)(std::string_view, size_t), std::string_view json) {
    const std::vector<char> exact(json.begin(), json.end());
    try {
        const Listed list = reader({exact.data(), exact.size()}, 0);
        size_t total = 8;
        for (int64_t size : list.sizes) total += static_cast<size_t>(size);
        CHECK(list.texts.size() == total, "%zu bytes of texts, and sizes for %zu", list.texts.size(), total);
        CHECK(list.end <= exact.size(), "it ends at %zu of %zu", list.end, exact.size());
        return true;
    } catch (const std::invalid_argument&) {
        return false;
    }
}

void damaged(Listed (*reader)(std::string_view, size_t), const std::string& good) {
    CHECK(read(reader, good), "%s", good.c_str());
    for (size_t size = 0; size < good.size(); size++) CHECK(!read(reader, good.substr(0, size)), "%zu bytes", size);
    for (size_t at = 0; at < good.size(); at++)
        for (int byte = 0; byte < 256; byte++) {
            std::string other = good;
            other[at] = static_cast<char>(byte);
            read(reader, other);
            other.erase(at, 1);
            read(reader, other);
        }
}

}  // namespace

void test_lists() {
    damaged(read_tokens, R"({"a": 0, "\\\"\/\b\f\n\r\t" : 12, "\u00e9\ud83d\ude42é🙂":2147483647})");
    damaged(read_merges, R"([["a", "b"], ["\u0020", "c d"], "e f"])");
    CHECK(!read(read_tokens, ""), "nothing");
    CHECK(!read(read_merges, ""), "nothing");
}
