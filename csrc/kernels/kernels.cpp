// Compiled once per instruction set: QB_ISA names the namespace, QB_ISA_HEADER its vector primitives.
// No inline std:: code here: the linker could pick this unit's copy of a shared template for another machine.
#include "table.h"

#include QB_ISA_HEADER

namespace qb::QB_ISA {

namespace {
// clang-format off: in the order in which they need each other
#include "kernels/pairs.inl"
#include "kernels/formats.inl"
#include "kernels/rows.inl"
#include "kernels/attention.inl"
#include "kernels/attention_few.inl"
#include "kernels/attention_many.inl"
#include "kernels/attention_int8.inl"
#include "kernels/encode.inl"
#include "kernels/linear.inl"
#include "kernels/expanded.inl"
#include "kernels/peaks.inl"
#include "kernels/states.inl"
// clang-format on
}  // namespace

#define QB_STRING_(x) #x
#define QB_STRING(x) QB_STRING_(x)

extern const Kernels table;
const Kernels table = {
    .name = QB_STRING(QB_ISA),
    .pair_bytes = kPairBytes,
    .linear = {linear<F32>,  linear<F16>,   linear<Bf16>,  linear<Q8_0>, linear<Q4_0>, linear<Q4_1>,
               linear<Nf4>,  linear<Fp4>,   linear<Q4_K>,  linear<Q6_K>, linear<Q5_0>, linear<Q5_1>,
               linear<Q5_K>, linear<Iq4Nl>, linear<Mxfp4>, linear<U4z>,  linear<U8z>,  linear<E4m3>,
               linear<S8_K>, linear<Q2_K>,  linear<Q3_K>,  linear<Iq4Xs>},
    .linear_bf16 = {nullptr,
                    nullptr,
                    nullptr,
                    linear<Wide<Q8_0>>,
                    linear<Wide<Q4_0>>,
                    linear<Wide<Q4_1>>,
                    nullptr,
                    nullptr,
                    linear<Wide<Q4_K>>,
                    linear<Wide<Q6_K>>,
                    linear<Wide<Q5_0>>,
                    linear<Wide<Q5_1>>,
                    linear<Wide<Q5_K>>,
                    linear<Wide<Iq4Nl>>,
                    linear<Wide<Mxfp4>>,
                    linear<Wide<U4z>>,
                    linear<Wide<U8z>>,
                    nullptr,
                    linear<Wide<S8_K>>,
                    linear<Wide<Q2_K>>,
                    linear<Wide<Q3_K>>,
                    linear<Wide<Iq4Xs>>},
    .linear_scratch_bytes = linear_scratch_bytes,
    .prepare = prepare,
    .normalise = normalise,
    .add = add_rows,
    .multiply = multiply_rows,
    .scale = scale_row,
    .add_scaled = add_scaled_row,
    .softcap = softcap_row,
    .activate = activate_row,
    .gate = gate_rows,
    .rope = {rope_halves, rope_pairs},
    .encode = {encode_f32, encode_f16, encode_bf16, encode_q8_0, encode_q4_0, encode_q4_1, encode_nf4, encode_fp4},
    .attend_scratch_bytes = attend_scratch_bytes,
    .store_kv = {store_kv<Bf16Kv>, store_kv<F32Kv>, store_kv_int8},
    .narrow = {narrow<Bf16Kv>, narrow<F32Kv>, narrow_int8},
    .attend_chunk = {attend_chunk<Bf16Kv>, attend_chunk<F32Kv>, attend_chunk_int8},
    .merge = merge,
    .finish = finish,
    .short_conv = short_conv,
    .recurrence = recurrence,
    .maxima = maxima,
    .exponentials = exponentials,
    .weights = weights,
    .between = between,
    .only = only,
    .peak = {peak<Int8Peak>, peak<Bf16Peak>, peak<F32Peak>},
};

}  // namespace qb::QB_ISA
