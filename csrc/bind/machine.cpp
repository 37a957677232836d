// The machine: kernel variants, threads, memory bandwidth.
#include <nanobind/stl/string.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "bind/module.h"
#include "core/memory.h"
#include "core/pool.h"
#include "table.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace qb {

namespace {

constexpr int kPeakCalls = 16;  // of a pass: some milliseconds

// Bytes a second that all threads together read, best of several passes over memory too large for the caches.
double read_bandwidth(Pool& pool, size_t bytes, int passes) {
    Pages pages(bytes);
    const size_t words = bytes / sizeof(uint64_t);
    uint64_t* data = reinterpret_cast<uint64_t*>(pages.data());
    const auto range = [&](size_t t, size_t threads) {
        return std::pair{words * t / threads / 64 * 64, words * (t + 1) / threads / 64 * 64};
    };
    pool.run([&](int t, int threads) {
        const auto [begin, end] = range(t, threads);
        std::fill(data + begin, data + end, uint64_t{1});
    });
    std::vector<uint64_t> sums(pool.threads());
    double best = 0;
    for (int pass = 0; pass < passes; pass++) {
        const auto start = std::chrono::steady_clock::now();
        pool.run([&](int t, int threads) {
            const auto [begin, end] = range(t, threads);
            uint64_t sum[8] = {};
            for (size_t i = begin; i < end; i += 8)
                for (size_t j = 0; j < 8; j++) sum[j] += data[i + j];
            for (size_t j = 1; j < 8; j++) sum[0] += sum[j];
            sums[t] += sum[0];
        });
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::max(best, static_cast<double>(bytes) / seconds.count());
    }
    uint64_t total = 0;
    for (uint64_t s : sums) total += s;
    return total ? best : 0;  // the sum is looked at, so the reads happened
}

Peak peak_of(const std::string& name) {
    static const char* const names[kPeaks] = {"int8", "bf16", "f32"};
    for (int i = 0; i < kPeaks; i++)
        if (name == names[i]) return static_cast<Peak>(i);
    throw std::invalid_argument("there is no peak of '" + name + "': give int8, bf16 or f32");
}

// Operations a second of as many threads together, best of several passes; none is left out for sharing its core.
double peak(const Pool& like, const std::string& name, int passes) {
    const auto measured = kernels().peak[static_cast<int>(peak_of(name))];
    Pool pool(like.threads(), false);
    alignas(64) uint8_t operands[kPeakOperands];
    std::fill(std::begin(operands), std::end(operands), uint8_t{60});  // as bf16 and as f32 a small number too
    struct alignas(128) Thread {
        double operations = 0;
        float sum[kLanes] = {};
    };
    double best = 0;
    for (int pass = 0; pass < passes; pass++) {
        std::vector<Thread> threads(pool.threads());
        const auto start = std::chrono::steady_clock::now();
        pool.run([&](int t, int) {
            for (int i = 0; i < kPeakCalls; i++) threads[t].operations += measured(operands, threads[t].sum);
        });
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        double operations = 0;
        for (const Thread& thread : threads) operations += thread.operations;
        best = std::max(best, operations / seconds.count());
    }
    return best;
}

}  // namespace

void bind_machine(nb::module_& m) {
    m.def(
        "variant", [] { return std::string(kernels().name); },
        "Name of the kernel variant in use; RuntimeError when QB_ISA asks for the impossible.");
    m.def("variant_reason", [] { return std::string((kernels(), variant_reason())); }, "Why that variant.");
    m.def(
        "available_variants", [] { return std::string(available_variants()); },
        "Variants this CPU can run, best last.");
    nb::class_<Pool>(m, "Pool", "A persistent team of threads; the caller of a run is one of them.")
        .def(nb::init<int>(), "threads"_a)
        .def_prop_ro("threads", &Pool::threads)
        .def_prop_ro("active", &Pool::active, "Of the last run: those whose cores are shared are left out for a while.")
        .def("read_bandwidth", &read_bandwidth, "bytes"_a = size_t{512} << 20, "passes"_a = 5,
             nb::call_guard<nb::gil_scoped_release>(), "Bytes a second read from memory by all threads together.")
        .def("peak", &peak, "kind"_a, "passes"_a = 50, nb::call_guard<nb::gil_scoped_release>(),
             "Operations a second that this variant's multiply-adds can do, two to each, by all threads together: u8 "
             "with "
             "s8 into int32 (kind 'int8'), bf16 into float32 ('bf16') or float32 ('f32').");
}

}  // namespace qb
