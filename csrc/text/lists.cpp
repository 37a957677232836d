#include "text/lists.h"

#include <stdexcept>
#include <utility>

namespace qb {

namespace {

class Reader {
public:
    Reader(std::string_view json, size_t at) : json_(json), at_(at) {
        if (at > json.size()) fail("it begins behind the end");
    }

    void expect(char wanted) {
        if (!take(wanted)) fail(std::string("'") + wanted + "' is missing");
    }

    // Whether this comes next, behind blanks; it is passed then.
    bool take(char wanted) {
        skip_blanks();
        if (at_ == json_.size() || json_[at_] != wanted) return false;
        at_++;
        return true;
    }

    void text() {
        expect('"');
        const size_t first = list_.texts.size();
        for (;;) {
            const size_t begin = at_;
            while (at_ < json_.size() && is_plain(json_[at_])) at_++;
            list_.texts.append(json_, begin, at_ - begin);
            const char c = next();
            if (c == '"') break;
            if (c != '\\') fail("a text holds a control character");
            escaped();
        }
        list_.sizes.push_back(static_cast<int64_t>(list_.texts.size() - first));
    }

    void id() {
        skip_blanks();
        int64_t value = 0;
        const size_t begin = at_;
        while (at_ < json_.size() && is_digit(json_[at_]) && at_ - begin < 10)
            value = value * 10 + (json_[at_++] - '0');
        const bool zeros = at_ - begin > 1 && json_[begin] == '0';
        if (at_ == begin || zeros || value > INT32_MAX) fail("an id is no whole number of 32 bits");
        list_.ids.push_back(static_cast<int32_t>(value));
    }

    // Makes two texts of the last, which has one blank between them.
    void halve() {
        std::string& texts = list_.texts;
        const size_t first = texts.size() - static_cast<size_t>(list_.sizes.back());
        const size_t blank = texts.find(' ', first);
        if (blank == std::string::npos || texts.find(' ', blank + 1) != std::string::npos)
            fail("a merge is not two texts with a blank between them");
        texts.erase(blank, 1);
        list_.sizes.back() = static_cast<int64_t>(blank - first);
        list_.sizes.push_back(static_cast<int64_t>(texts.size() - blank));
    }

    Listed finish() {
        list_.texts.append(8, '\0');
        list_.end = at_;
        return std::move(list_);
    }

private:
    std::string_view json_;
    size_t at_;
    Listed list_;

    void skip_blanks() {
        const auto is_blank = [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; };
        while (at_ < json_.size() && is_blank(json_[at_])) at_++;
    }

    static bool is_plain(char c) { return c != '"' && c != '\\' && static_cast<unsigned char>(c) >= 0x20; }
    static bool is_digit(char c) { return c >= '0' && c <= '9'; }

    [[noreturn]] void fail(const std::string& what) const {
        throw std::invalid_argument("no list of texts: at byte " + std::to_string(at_) + ", " + what);
    }

    char next() {
        if (at_ == json_.size()) fail("the file ends");
        return json_[at_++];
    }

    void escaped() {
        const char c = next();
        switch (c) {
            case '"':
            case '\\':
            case '/': list_.texts += c; break;
            case 'b': list_.texts += '\b'; break;
            case 'f': list_.texts += '\f'; break;
            case 'n': list_.texts += '\n'; break;
            case 'r': list_.texts += '\r'; break;
            case 't': list_.texts += '\t'; break;
            case 'u': character(); break;
            default: fail("there is no such escape");
        }
    }

    // The character of \uXXXX, or of two of those, a surrogate pair (RFC 8259, section 7).
    void character() {
        uint32_t code = hexadecimal();
        if (code >= 0xD800 && code < 0xE000) {
            const bool pair = code < 0xDC00 && next() == '\\' && next() == 'u';
            const uint32_t low = pair ? hexadecimal() : 0;
            if (low < 0xDC00 || low >= 0xE000) fail("half of a surrogate pair is no character");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        const auto put = [&](uint32_t byte) { list_.texts += static_cast<char>(byte); };
        const auto rest = [&](int shift) { put(0x80 | (code >> shift & 0x3F)); };
        if (code < 0x80) {
            put(code);
        } else if (code < 0x800) {
            put(0xC0 | code >> 6), rest(0);
        } else if (code < 0x10000) {
            put(0xE0 | code >> 12), rest(6), rest(0);
        } else {
            put(0xF0 | code >> 18), rest(12), rest(6), rest(0);
        }
    }

    uint32_t hexadecimal() {
        uint32_t value = 0;
        for (int i = 0; i < 4; i++) {
            const char c = next(), small = static_cast<char>(c | 0x20);
            if (!is_digit(c) && !(small >= 'a' && small <= 'f')) fail("an escape has no four digits");
            value = value << 4 | static_cast<uint32_t>(is_digit(c) ? c - '0' : small - 'a' + 10);
        }
        return value;
    }
};

}  // namespace

Listed read_tokens(std::string_view json, size_t at) {
    Reader reader(json, at);
    reader.expect('{');
    if (!reader.take('}')) {
        do {
            reader.text();
            reader.expect(':');
            reader.id();
        } while (reader.take(','));
        reader.expect('}');
    }
    return reader.finish();
}

Listed read_merges(std::string_view json, size_t at) {
    Reader reader(json, at);
    reader.expect('[');
    if (!reader.take(']')) {
        do {
            if (reader.take('[')) {
                reader.text();
                reader.expect(',');
                reader.text();
                reader.expect(']');
            } else {
                reader.text();
                reader.halve();
            }
        } while (reader.take(','));
        reader.expect(']');
    }
    return reader.finish();
}

}  // namespace qb
