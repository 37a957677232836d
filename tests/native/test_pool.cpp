// The team of threads: every task runs once on each thread, barriers order writes, parked threads wake.
#include <chrono>
#include <numeric>
#include <thread>

#include "check.h"
#include "core/pool.h"

using namespace qb;

void test_pool() {
    for (int threads : {1, 2, 3, 5}) {
        Pool pool(threads);
        std::vector<int> seen(threads), sums(threads);
        for (int round = 0; round < 300; round++) {
            if (round % 100 == 50) std::this_thread::sleep_for(std::chrono::milliseconds(5));  // long enough to park
            pool.run([&](int thread) {
                seen[thread] = round + thread;
                pool.barrier();
                sums[thread] = std::accumulate(seen.begin(), seen.end(), 0);
                pool.barrier();
            });
            const int want = threads * round + threads * (threads - 1) / 2;
            for (int sum : sums) CHECK(sum == want, "%d threads, round %d: %d for %d", threads, round, sum, want);
        }
    }
    bool refused = false;
    try {
        Pool pool(0);
    } catch (const std::invalid_argument&) {
        refused = true;
    }
    CHECK(refused, "a pool of no threads");
}
