#include "core/pool.h"

#include <unistd.h>

#include <chrono>
#include <stdexcept>

namespace qb {

namespace {

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits until `value` is no longer `old`: spins for about `microseconds`, then sleeps in the kernel.
// Between two steps Python has some 100 us of work, so waking from sleep is the exception.
void wait_while(const std::atomic<uint32_t>& value, uint32_t old, int microseconds) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
    for (;;) {
        for (int i = 0; i < 64; i++) {
            if (value.load(std::memory_order_acquire) != old) return;
            relax();
        }
        if (std::chrono::steady_clock::now() > deadline) break;
    }
    while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

constexpr int kSpinInStep = 100;
constexpr int kSpinBetweenSteps = 300;

}  // namespace

Pool::Pool(int threads) : owner_(getpid()) {
    if (threads < 1 || threads > 1024) throw std::invalid_argument("threads must be between 1 and 1024");
    workers_.reserve(threads - 1);
    for (int t = 1; t < threads; t++) workers_.emplace_back([this, t] { work(t); });
}

Pool::~Pool() {
    if (owner_ != getpid()) {  // a forked copy has no threads to join
        for (std::thread& worker : workers_) worker.detach();
        return;
    }
    stop_ = true;
    started_.fetch_add(1, std::memory_order_release);
    started_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void Pool::run(const std::function<void(int)>& task) {
    if (workers_.empty()) return task(0);
    if (owner_ != getpid())
        throw std::runtime_error("this model was loaded before the process forked; load it again in the child process");
    task_ = &task;
    started_.fetch_add(1, std::memory_order_release);
    started_.notify_all();
    task(0);
    barrier();  // the workers' last act of a run
}

void Pool::work(int thread) {
    for (uint32_t seen = 0;; seen++) {
        wait_while(started_, seen, kSpinBetweenSteps);
        if (stop_) return;
        (*task_)(thread);
        barrier();
    }
}

void Pool::barrier() {
    if (workers_.empty()) return;
    const uint32_t round = passed_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(threads())) {
        arrived_.store(0, std::memory_order_relaxed);
        passed_.store(round + 1, std::memory_order_release);
        passed_.notify_all();
    } else {
        wait_while(passed_, round, kSpinInStep);
    }
}

}  // namespace qb
