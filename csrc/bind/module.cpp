#include "bind/module.h"

namespace nb = nanobind;

NB_MODULE(_native, m) {
    m.doc() =
        "The native half of quickbrown: kernels, packed weights, paged keys and values, recorded plans, sampling, long "
        "lists in JSON.";
    nb::set_leak_warnings(false);  // what a daemon thread still holds when the process ends is no leak
    qb::bind_machine(m);
    qb::bind_plan(m);
    qb::bind_text(m);
}
