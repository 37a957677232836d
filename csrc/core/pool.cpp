#include "core/pool.h"

#include <unistd.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

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

struct Abandoned {};  // thrown out of a barrier that somebody will never reach

}  // namespace

Pool::Pool(int threads) : owner_(getpid()) {
    if (threads < 1 || threads > 1024) throw std::invalid_argument("threads must be between 1 and 1024");
    workers_.reserve(threads - 1);
    try {
        for (int t = 1; t < threads; t++) workers_.emplace_back([this, t] { work(t); });
    } catch (const std::system_error&) {
        dismiss();
        throw std::runtime_error("the system refuses to start " + std::to_string(threads) + " threads; ask for fewer");
    }
}

Pool::~Pool() { dismiss(); }

void Pool::dismiss() {
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
    perform(0);
    if (!failed_.load(std::memory_order_relaxed)) return;
    inner_.arrived.store(0, std::memory_order_relaxed);  // of the barrier that was abandoned
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(error_, nullptr));
}

void Pool::work(int thread) {
    for (uint32_t seen = 0;; seen++) {
        wait_while(started_, seen, kSpinBetweenSteps);
        if (stop_) return;
        perform(thread);
    }
}

// The first to fail keeps its exception and releases those who wait; what they throw follows from it.
void Pool::perform(int thread) {
    try {
        (*task_)(thread);
    } catch (...) {
        if (!failed_.exchange(true, std::memory_order_relaxed)) {
            error_ = std::current_exception();
            inner_.passed.fetch_add(1, std::memory_order_release);
            inner_.passed.notify_all();
        }
    }
    meet(end_, end_.passed.load(std::memory_order_relaxed));
}

// Whoever has failed does not arrive again, so the barrier that others are in can only end by the failure's change of
// `passed`. Reading that before failed_ misses no failure: after its change failed_ is seen, before it the wait ends.
void Pool::barrier() {
    if (workers_.empty()) return;
    const uint32_t round = inner_.passed.load(std::memory_order_acquire);
    if (failed_.load(std::memory_order_relaxed)) throw Abandoned();
    meet(inner_, round);
    if (failed_.load(std::memory_order_relaxed)) throw Abandoned();
}

// The last to arrive lets all pass; `round` is what the caller has read from gate.passed.
void Pool::meet(Gate& gate, uint32_t round) {
    if (gate.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(threads())) {
        gate.arrived.store(0, std::memory_order_relaxed);
        gate.passed.store(round + 1);  // sequentially consistent: notify_all reads after it whether anybody sleeps
        gate.passed.notify_all();
    } else {
        wait_while(gate.passed, round, kSpinInStep);
    }
}

}  // namespace qb
