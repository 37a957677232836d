// The team of threads: each task runs once a thread, barriers order writes, the parked wake, and who throws stops all.
#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "check.h"
#include "core/pool.h"

using namespace qb;

namespace {

// Every thread sees after a barrier what all wrote before it.
void sound_run(Pool& pool, int round) {
    const int threads = pool.threads(), want = threads * round + threads * (threads - 1) / 2;
    std::vector<int> seen(threads), sums(threads);
    pool.run([&](int thread) {
        seen[thread] = round + thread;
        pool.barrier();
        sums[thread] = std::accumulate(seen.begin(), seen.end(), 0);
        pool.barrier();
    });
    for (int sum : sums) CHECK(sum == want, "%d threads, round %d: %d for %d", threads, round, sum, want);
}

struct Thrown {
    int thread, place, round;
};

// Thread `who`, or every thread when there is none of that number, throws before barrier `place`, or after the last.
void failing_run(Pool& pool, int round, int who, int place, bool late) {
    constexpr int kPlaces = 3;
    const int threads = pool.threads();
    std::atomic<int> inside = 0;
    std::vector<int> reached(threads, -1);
    int thrower = -1;
    try {
        pool.run([&](int thread) {
            struct Presence {
                std::atomic<int>& inside;
                explicit Presence(std::atomic<int>& i) : inside(i) { inside++; }
                ~Presence() { inside--; }
            } presence(inside);
            for (int here = 0; here < kPlaces; here++) {
                if (here) pool.barrier();
                reached[thread] = here;
                if (here != place || (who < threads && thread != who)) continue;
                if (late) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // long enough for others to park
                throw Thrown{thread, place, round};
            }
        });
    } catch (const Thrown& thrown) {
        thrower = thrown.thread;
        CHECK(thrown.place == place && thrown.round == round && (who == threads || thrown.thread == who),
              "%d threads, round %d: thread %d at %d of round %d threw", threads, round, thrown.thread, thrown.place,
              thrown.round);
    }
    CHECK(thrower >= 0, "%d threads, round %d: nothing came of what thread %d threw at %d", threads, round, who, place);
    CHECK(inside == 0, "%d threads, round %d: %d were still in the task", threads, round, inside.load());
    for (int thread = 0; thread < threads; thread++)
        CHECK(reached[thread] == place || (reached[thread] == place - 1 && thread != thrower),
              "%d threads, round %d: thread %d came to %d, %d failed at %d", threads, round, thread, reached[thread],
              thrower, place);
}

}  // namespace

void test_pool() {
    for (int threads : {1, 2, 3, 5}) {
        Pool pool(threads);
        for (int round = 0; round < 300; round++) {
            if (round % 100 == 50) std::this_thread::sleep_for(std::chrono::milliseconds(5));  // long enough to park
            sound_run(pool, round);
        }
    }

    for (int threads : {1, 2, 3, 4}) {
        Pool pool(threads);
        for (int round = 0; round < 200; round++) {
            const int who = round % (threads + 1), place = round / (threads + 1) % 3,
                      cycle = round / (threads + 1) / 3;  // of all threads at all places
            failing_run(pool, round, who, place, cycle % 4 == 1);
            if (cycle % 2 == 0) sound_run(pool, round);  // and failures in a row
        }
        sound_run(pool, 0);
    }

    bool refused = false;
    try {
        Pool pool(0);
    } catch (const std::invalid_argument&) {
        refused = true;
    }
    CHECK(refused, "a pool of no threads");
}
