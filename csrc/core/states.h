// Memory for the states of texts: places of as many floats each.
#pragma once

#include "core/memory.h"
#include "table.h"

namespace qb {

class StateMemory {
public:
    // Throws std::invalid_argument for floats that are no multiple of 16.
    StateMemory(size_t places, size_t floats) : places_(places), floats_(floats) {
        if (floats % kLanes) throw std::invalid_argument("a place for states must have a multiple of 16 floats");
        pages_ = Pages(product(product(places, floats), 4));
    }

    size_t places() const { return places_; }
    size_t floats() const { return floats_; }
    // Arguments are the caller's to check. What a place holds is whole once a step has written it.
    float* at(size_t place, size_t offset) const {
        return reinterpret_cast<float*>(pages_.data()) + place * floats_ + offset;
    }

private:
    size_t places_, floats_;
    Pages pages_;
};

}  // namespace qb
