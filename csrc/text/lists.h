#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qb {

// A long list of a tokenizer.json: short texts, by the hundred thousand. Nothing of it is trusted.
struct Listed {
    std::string texts;           // unescaped, end to end, and 8 zeros; UTF-8 if the file is
    std::vector<int64_t> sizes;  // the bytes of each
    std::vector<int32_t> ids;    // of each, where they have some
    size_t end = 0;              // the place behind the list
};

// The list at a place of the file's JSON: tokens as {"text": id, ...}, and merges as [["left", "right"], ...] or
// ["left right", ...], two texts for each. Both throw std::invalid_argument for anything else, as for an escape that
// is no character, or an id that is no int32.
Listed read_tokens(std::string_view json, size_t at);
Listed read_merges(std::string_view json, size_t at);

}  // namespace qb
