// Verbs with a state: one token of a text after the other, the same chain for each whatever runs beside it.

static void short_conv(const ConvArgs& a) {
    const size_t past = a.length - 1;
    for (size_t c = 0; c < a.channels; c += kLanes) {
        // Value i of the text as the step sees it: first those of the state, then the new ones.
        const auto seen = [&](size_t i) __attribute__((always_inline)) {
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

// Four chains over the rows of the state, joined in pairs.
QB_INLINE F joined(const F* sums) { return add(add(sums[0], sums[1]), add(sums[2], sums[3])); }

static void recurrence(const RecurrenceArgs& a) {
    const float* state = a.read;
    for (size_t t = 0; t < a.tokens; t++) {
        const float *k = a.k + t * a.key_stride, *q = a.q + t * a.key_stride;
        const F decay = set(a.decay[t * a.head_stride]), beta = set(a.beta[t * a.head_stride]);
        const F v = load(a.v + t * a.value_stride);
        F u = v;
        if (a.delta && state) {
            F sums[4] = {set(0.0f), set(0.0f), set(0.0f), set(0.0f)};
            for (size_t i = 0; i < a.keys; i++) sums[i & 3] = fma(load(state + i * kLanes), set(k[i]), sums[i & 3]);
            u = sub(v, mul(decay, joined(sums)));
        }
        u = mul(u, beta);
        F sums[4] = {set(0.0f), set(0.0f), set(0.0f), set(0.0f)};
        for (size_t i = 0; i < a.keys; i++) {
            const F old = state ? mul(decay, load(state + i * kLanes)) : set(0.0f);
            const F row = fma(set(k[i]), u, old);
            store(a.write + i * kLanes, row);
            sums[i & 3] = fma(row, set(q[i]), sums[i & 3]);
        }
        F out = joined(sums);
        if (a.skips) out = fma(set(a.skip), v, out);
        store(a.out + t * a.value_stride, out);
        state = a.write;
    }
}
