// A test is a function; CHECK prints where it failed and goes on, main counts.
#pragma once

#include <cstdio>
#include <cstring>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "table.h"

extern int failures;

#define CHECK(condition, ...)                                           \
    do {                                                                \
        if (!(condition)) {                                             \
            failures++;                                                 \
            std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            std::printf(__VA_ARGS__);                                   \
            std::printf("\n");                                          \
        }                                                               \
    } while (0)

// Under an emulator, which takes dozens of times as long, tests take a part of their cases.
#ifdef QB_EMULATED
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

// The variants that this machine can run.
inline std::vector<const qb::Kernels*> variants() {
    std::vector<const qb::Kernels*> all;
    std::istringstream names(qb::available_variants());
    for (std::string name; names >> name;) all.push_back(qb::kernels_named(name.c_str()));
    return all;
}

inline const char* format_name(qb::Format f) {
    static const char* const names[] = {"f32",  "f16",  "bf16", "q8_0", "q4_0", "q4_1",   "nf4",   "fp4",
                                        "q4_k", "q6_k", "q5_0", "q5_1", "q5_k", "iq4_nl", "mxfp4", "u4z",
                                        "u8z",  "e4m3", "s8_k", "q2_k", "q3_k", "iq4_xs"};
    return names[static_cast<int>(f)];
}

void test_linear();
void test_quantize();
void test_attention();
void test_states();
void test_peaks();
void test_sampler();
void test_pool();
void test_load();
void test_lists();
