// The peaks multiply and add what they say they do: every chain of every lane has the sum of its rounds.
#include <algorithm>
#include <cmath>

#include "check.h"

using namespace qb;

void test_peaks() {
    alignas(64) uint8_t operands[kPeakOperands];
    std::fill(std::begin(operands), std::end(operands), uint8_t{60});
    int32_t word = 0x3c3c3c3c;
    float number;
    std::memcpy(&number, &word, 4);
    const float half = 0x1.78p-7f;  // the bf16 of 0x3c3c
    struct Kind {
        Peak peak;
        double start, round, multiply_adds;  // of a chain; a round's sum, and of how many products
    };
    const Kind kinds[] = {{Peak::int8, double(word), 4 * 60.0 * 60.0, 4},
                          {Peak::bf16, number, 2.0 * half * half, 2},
                          {Peak::f32, number, double(number) * number, 1}};
    for (const Kernels* k : variants())
        for (const Kind& kind : kinds) {
            float sum[kLanes];
            const double operations = k->peak[static_cast<int>(kind.peak)](operands, sum);
            const double chains = operations / (2.0 * kLanes * kind.multiply_adds * kPeakRounds);
            CHECK(chains >= 4 && chains == std::floor(chains), "%s: %g chains", k->name, chains);
            const double expected = chains * (kind.start + kPeakRounds * kind.round);
            const double additions = kind.peak == Peak::int8 ? chains + 1 : kind.multiply_adds * kPeakRounds + chains;
            for (float found : sum)  // each addition may be off by half a unit in the last place
                CHECK(std::abs(found - expected) <= additions * 0x1p-24 * expected, "%s, kind %d: %g, not %g", k->name,
                      static_cast<int>(kind.peak), found, expected);
        }
}
