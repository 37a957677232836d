// AVX-512 on a processor that multiplies pairs of bf16 faster than floats: see avx512.h.
#define QB_BF16_DOTS
#include "avx512.h"
