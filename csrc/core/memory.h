// Memory from the system in whole pages: zeroed, aligned, returned when its owner goes.
#pragma once

#include <sys/mman.h>

#ifdef QB_GUARDED  // a build with the address sanitizer, which by itself does not know where a region ends
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(begin, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(begin, bytes)
#endif

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <stdexcept>
#include <utility>

namespace qb {

// a * b, or std::overflow_error.
inline size_t product(size_t a, size_t b) {
    size_t c;
    if (__builtin_mul_overflow(a, b, &c)) throw std::overflow_error("a size does not fit in memory addresses");
    return c;
}

// a + b, or the same.
inline size_t sum(size_t a, size_t b) {
    size_t c;
    if (__builtin_add_overflow(a, b, &c)) throw std::overflow_error("a size does not fit in memory addresses");
    return c;
}

// Pages are taken when they are first touched, so a large region costs only what is used of it. Regions of at least one
// large page are made of such where the system has them: they are read a third faster (docs/journal.md, 2026-11-27).
class Pages {
public:
    Pages() = default;
    explicit Pages(size_t bytes) : bytes_(bytes) {
        if (!bytes) return;
        void* p = mmap(nullptr, taken(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) throw std::bad_alloc();
        data_ = static_cast<uint8_t*>(p);
        ASAN_POISON_MEMORY_REGION(data_ + bytes, taken() - bytes);
#if defined(MADV_HUGEPAGE)
        if (bytes >= kLargePage) madvise(p, bytes, MADV_HUGEPAGE);
#endif
    }
    ~Pages() {
        if (!data_) return;
        ASAN_UNPOISON_MEMORY_REGION(data_, taken());
        munmap(data_, taken());
    }
    Pages(Pages&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Pages& operator=(Pages&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    uint8_t* data() const { return data_; }
    size_t bytes() const { return bytes_; }

private:
    static constexpr size_t kLargePage = 2 << 20;

#ifdef QB_GUARDED
    size_t taken() const { return (bytes_ / 4096 + 2) * 4096; }
#else
    size_t taken() const { return bytes_; }
#endif

    uint8_t* data_ = nullptr;
    size_t bytes_ = 0;
};

// Scratch of a step: grows to what the largest step has needed and is then reused.
class Scratch {
public:
    // At least `bytes`; contents are lost when it grows. `growths` counts how often that happened.
    uint8_t* need(size_t bytes, size_t& growths) {
        if (bytes > pages_.bytes()) {
            pages_ = Pages();
            pages_ = Pages(bytes + bytes / 2);
            growths++;
        }
        return pages_.data();
    }
    uint8_t* data() const { return pages_.data(); }

private:
    Pages pages_;
};

}  // namespace qb
