#pragma once

#include <nanobind/nanobind.h>

namespace qb {

// One function a topic, each in its own file.
void bind_machine(nanobind::module_&);
void bind_plan(nanobind::module_&);
void bind_text(nanobind::module_&);

}  // namespace qb
