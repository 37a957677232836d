// The bytes of a search, taken as numbers: zeros where they have ended.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>
#include <vector>

#include "table.h"

class Bytes {
public:
    Bytes(const uint8_t* data, size_t size) : left_(data, size) {}

    template <class T> T take() {
        T value{};
        const size_t size = std::min(sizeof(T), left_.size());
        if (size) std::memcpy(&value, left_.data(), size);
        left_ = left_.subspan(size);
        return value;
    }
    size_t below(size_t n) { return take<uint8_t>() % n; }
    // Mostly a small number; one byte in 256 announces any.
    int32_t number() {
        const int8_t small = take<int8_t>();
        return small == -128 ? take<int32_t>() : small;
    }
    // Memory of exactly so many, so that whoever reads on is seen.
    template <class T> std::vector<T> list(size_t count) {
        std::vector<T> values;
        values.reserve(count);
        while (values.size() < count) values.push_back(take<T>());
        return values;
    }

private:
    std::span<const uint8_t> left_;
};

// A variant that this machine can run.
inline const qb::Kernels& any_kernels(Bytes& bytes) {
    const char* const names[] = {"scalar", "avx2", "avx512", "avx512_bf16"};
    const qb::Kernels* found = qb::kernels_named(names[bytes.below(std::size(names))]);
    return found ? *found : qb::kernels();
}
