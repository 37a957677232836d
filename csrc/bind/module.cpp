#include "bind/module.h"

NB_MODULE(_native, m) {
    m.doc() =
        "The native half of quickbrown: kernels, packed weights, paged keys and values, recorded plans, sampling.";
    qb::bind_machine(m);
    qb::bind_plan(m);
}
