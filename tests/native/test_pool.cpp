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
    std::vector<int> seen(pool.threads()), sums(pool.threads());
    int threads = 0;
    pool.run([&](int thread, int active) {
        if (thread == 0) threads = active;
        seen[thread] = round + thread;
        pool.barrier();
        sums[thread] = std::accumulate(seen.begin(), seen.begin() + active, 0);
        pool.barrier();
    });
    CHECK(threads >= 1 && threads <= pool.threads(), "%d of %d threads", threads, pool.threads());
    const int want = threads * round + threads * (threads - 1) / 2;
    sums.resize(threads);
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
        pool.run([&](int thread, int) {
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

// Two runs in a row that were held up cost a thread, one does not; after a while it is tried again, and again later.
void crowding() {
    using namespace std::chrono_literals;
    constexpr uint64_t kLong = 1'000'000'000;
    Crowding crowding(3, true);
    const auto watch = [&](uint64_t delay) {
        for (int i = 0; i < 100'000'000; i++) {
            crowding.begin();
            const bool watched = crowding.watching();
            crowding.end(delay);
            if (watched) return;
        }
        CHECK(false, "no run was watched%s", "");
    };
    for (uint64_t delay : {kLong, uint64_t{0}, kLong, uint64_t{0}}) watch(delay);
    CHECK(crowding.active() == 3, "%d of 3 threads after single delays", crowding.active());
    watch(kLong), watch(kLong);
    CHECK(crowding.active() == 2, "%d of 3 threads after two delays", crowding.active());
    watch(kLong), watch(kLong);
    CHECK(crowding.active() == 1, "%d of 3 threads after four delays", crowding.active());
    std::this_thread::sleep_for(60ms);
    watch(kLong), watch(kLong);
    CHECK(crowding.active() == 1, "%d threads, still held up", crowding.active());
    std::this_thread::sleep_for(60ms);
    crowding.begin(), crowding.end(0);
    CHECK(crowding.active() == 1, "%d threads before its patience has doubled", crowding.active());
    std::this_thread::sleep_for(60ms);
    watch(0), watch(0);
    CHECK(crowding.active() >= 2, "%d threads when nothing holds them up", crowding.active());

    Crowding fixed(3, false);
    for (int i = 0; i < 10; i++) fixed.begin(), fixed.end(kLong);
    CHECK(fixed.active() == 3, "%d of 3 fixed threads", fixed.active());
}

}  // namespace

void test_pool() {
    crowding();
    for (int threads : {1, 2, 3, 5}) {
        Pool pool(threads);
        for (int round = 0; round < 300; round++) {
            if (round % 100 == 50) std::this_thread::sleep_for(std::chrono::milliseconds(5));  // long enough to park
            sound_run(pool, round);
        }
    }

    for (int threads : {1, 2, 3, 4}) {
        Pool pool(threads, false);
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
