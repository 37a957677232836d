// Verbs with a state: one token of a text after the other, the same chain for each whatever runs beside it.

#define QB_INLINED __attribute__((always_inline))

static void short_conv(const ConvArgs& a) {
    const size_t past = a.length - 1;
    for (size_t c = 0; c < a.channels; c += kLanes) {
        // Value i of the text as the step sees it: first those of the state, then the new ones.
        const auto seen = [&](size_t i) QB_INLINED {
            if (i >= past) return load(a.x + (i - past) * a.stride + c);
            return a.read ? load(a.read + i * a.state_stride + c) : set(0.0f);
        };
        for (size_t t = 0; t < a.tokens; t++) {
            F sum = a.bias ? load(a.bias + c) : set(0.0f);
            for (size_t j = 0; j <= past; j++) sum = fma(seen(t + j), load(a.filter + j * a.filter_stride + c), sum);
            store(a.out + t * a.stride + c, sum);
        }
        for (size_t i = 0; i < past; i++) store(a.write + i * a.state_stride + c, seen(a.tokens + i));
    }
}

// A sum over the rows of a state, step(row, sum): four chains, joined in pairs.
template <class Step> QB_INLINE F over_rows(size_t rows, const Step& step) {
    F sums[4] = {set(0.0f), set(0.0f), set(0.0f), set(0.0f)};
    size_t i = 0;
    for (; i + 4 <= rows; i += 4)
        for (size_t j = 0; j < 4; j++) sums[j] = step(i + j, sums[j]);
    for (size_t j = 0; i + j < rows; j++) sums[j] = step(i + j, sums[j]);
    return add(add(sums[0], sums[1]), add(sums[2], sums[3]));
}

static void recurrence(const RecurrenceArgs& a) {
    const float* state = a.read;
    for (size_t t = 0; t < a.tokens; t++) {
        const float *k = a.k + t * a.key_stride, *q = a.q + t * a.key_stride;
        const F decay = set(a.decay[t * a.head_stride]), beta = set(a.beta[t * a.head_stride]);
        const F v = load(a.v + t * a.value_stride);
        F u = v;
        if (a.delta && state) {
            const F held = over_rows(
                a.keys, [&](size_t i, F sum) QB_INLINED { return fma(load(state + i * kLanes), set(k[i]), sum); });
            u = sub(v, mul(decay, held));
        }
        u = mul(u, beta);
        F out = over_rows(a.keys, [&](size_t i, F sum) QB_INLINED {
            const F old = state ? mul(decay, load(state + i * kLanes)) : set(0.0f);
            const F row = fma(set(k[i]), u, old);
            store(a.write + i * kLanes, row);
            return fma(row, set(q[i]), sum);
        });
        if (a.skips) out = fma(set(a.skip), v, out);
        store(a.out + t * a.value_stride, out);
        state = a.write;
    }
}
