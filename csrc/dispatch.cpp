#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#ifdef QB_X86
#include <cpuid.h>
#endif
#ifdef QB_ARM
#include <sys/auxv.h>
#endif

#include "table.h"

namespace qb {

namespace scalar {
extern const Kernels table;
}
#ifdef QB_X86
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
namespace avx512_bf16 {
extern const Kernels table;
}
#endif
#ifdef QB_ARM
namespace neon {
extern const Kernels table;
}
#endif

namespace {

#ifdef QB_X86
// clang knows the name "f16c" from its version 18 on.
bool has_f16c() {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

struct Variant {
    const Kernels* table;
    bool runnable;
    const char* needs;
    bool best = true;  // where it is runnable: better than those before it
};

// Ascending: the last one that is runnable and best.
const Variant* variants(size_t& count) {
    static const Variant all[] = {
        {&scalar::table, true, "nothing special"},
#ifdef QB_X86
        {&avx2::table, has_avx2(), "AVX2, FMA and F16C"},
        {&avx512::table, has_avx512(), "AVX-512 with VNNI"},
        // Intel's processors multiply pairs of bf16 at half the rate of floats (docs/journal.md, 2026-11-27).
        {&avx512_bf16::table, has_avx512() && __builtin_cpu_supports("avx512bf16"), "AVX-512 with VNNI and BF16",
         !__builtin_cpu_is("intel")},
#endif
#ifdef QB_ARM
        {&neon::table, (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0, "NEON with dot products"},
#endif
    };
    count = sizeof all / sizeof *all;
    return all;
}

struct Choice {
    const Kernels* table;
    std::string reason;
};

std::string names(bool runnable_only) {
    size_t count;
    const Variant* all = variants(count);
    std::string text;
    for (size_t i = 0; i < count; i++)
        if (all[i].runnable || !runnable_only) {
            if (!text.empty()) text += ' ';
            text += all[i].table->name;
        }
    return text;
}

Choice choose() {
    size_t count;
    const Variant* all = variants(count);
    const char* wanted = std::getenv("QB_ISA");
    if (wanted && *wanted) {
        for (size_t i = 0; i < count; i++) {
            if (std::strcmp(all[i].table->name, wanted) != 0) continue;
            if (all[i].runnable) return {all[i].table, "forced by QB_ISA"};
            throw std::runtime_error("QB_ISA=" + std::string(wanted) + " is impossible here: this CPU lacks " +
                                     all[i].needs + "; it can run: " + names(true) + ".");
        }
        throw std::runtime_error("QB_ISA=" + std::string(wanted) +
                                 " is not a known instruction set; known here are: " + names(false) + ".");
    }
    for (size_t i = count; i-- > 0;)
        if (all[i].runnable && all[i].best)
            return {all[i].table, std::string("the best this CPU can run: it has ") + all[i].needs};
    throw std::runtime_error("no kernel variant can run on this CPU");
}

const Choice& choice() {
    static const Choice chosen = choose();  // a throwing initialiser runs again at the next call
    return chosen;
}

}  // namespace

const Kernels& kernels() { return *choice().table; }

const Kernels* kernels_named(const char* name) {
    size_t count;
    const Variant* all = variants(count);
    for (size_t i = 0; i < count; i++)
        if (all[i].runnable && std::strcmp(all[i].table->name, name) == 0) return all[i].table;
    return nullptr;
}

const char* available_variants() {
    static const std::string text = names(true);
    return text.c_str();
}

const char* variant_reason() { return choice().reason.c_str(); }

}  // namespace qb
