// The most multiply-adds that these instructions can do: a tile whose operands are always at hand, with as many chains
// as registers allow, so that none waits for another. `operands` are kPeakOperands bytes, each at most 63, so that
// integers of kPeakRounds rounds do not overflow. Returns operations, two to a multiply-add; `sum` makes them count for
// something.
constexpr int kSide = kExpands ? 4 : 2;  // of the tile: 32 registers of 16 lanes, or 16 of 8

struct Int8Peak {
    static constexpr int kOperations = 2 * kLanes * 4;
    using Sum = I;
    using Left = Bytes;
    QB_INLINE I start(const uint8_t* p) { return broadcast4(p); }
    QB_INLINE Bytes left(const uint8_t* p) { return load_bytes(p); }
    QB_INLINE I dot(I sum, Bytes left, const uint8_t* right) { return dot4_narrow(sum, left, broadcast4(right)); }
    QB_INLINE F floats(I sum) { return to_float(sum); }
};

struct Bf16Peak {
    static constexpr int kOperations = 2 * kLanes * 2;
    using Sum = F;
    using Left = Pairs;
    QB_INLINE F start(const uint8_t* p) { return set(*reinterpret_cast<const float*>(p)); }
    QB_INLINE Pairs left(const uint8_t* p) { return load_pairs(p); }
    QB_INLINE F dot(F sum, Pairs left, const uint8_t* right) { return dot2(sum, left, broadcast_pair(right)); }
    QB_INLINE F floats(F sum) { return sum; }
};

struct F32Peak {
    static constexpr int kOperations = 2 * kLanes;
    using Sum = F;
    using Left = F;
    QB_INLINE F start(const uint8_t* p) { return set(*reinterpret_cast<const float*>(p)); }
    QB_INLINE F left(const uint8_t* p) { return load(reinterpret_cast<const float*>(p)); }
    QB_INLINE F dot(F sum, F left, const uint8_t* right) {
        return fma(left, set(*reinterpret_cast<const float*>(right)), sum);
    }
    QB_INLINE F floats(F sum) { return sum; }
};

template <class Kind> double peak(const uint8_t* operands, float* sum) {
    typename Kind::Sum sums[kSide][kSide];
    typename Kind::Left left[kSide];
    for (int n = 0; n < kSide; n++) {
        left[n] = Kind::left(operands + n * 64);
        for (int m = 0; m < kSide; m++) sums[m][n] = Kind::start(operands + (m * kSide + n) * 4);
    }
    for (int round = 0; round < kPeakRounds; round++) {
        const uint8_t* right = operands + round % 16 * kSide * 4;
        for (int m = 0; m < kSide; m++)
            for (int n = 0; n < kSide; n++) sums[m][n] = Kind::dot(sums[m][n], left[n], right + m * 4);
    }
    F all = set(0.0f);
    for (int m = 0; m < kSide; m++)
        for (int n = 0; n < kSide; n++) all = add(all, Kind::floats(sums[m][n]));
    store(sum, all);
    return static_cast<double>(kPeakRounds) * kSide * kSide * Kind::kOperations;
}
