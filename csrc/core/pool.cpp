#include "core/pool.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
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

int64_t now() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

// Nanoseconds that the calling thread was ready to run and had no core, since it began; 0 where the system does not
// say.
uint64_t run_delay() {
    const int file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    char text[64] = {};
    const ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    unsigned long long ran = 0, delayed = 0;
    return size > 0 && std::sscanf(text, "%llu %llu", &ran, &delayed) == 2 ? delayed : 0;
}

constexpr int64_t kBetweenLooks = 10'000'000, kMostPatience = 1'600'000'000;

}  // namespace

void Crowding::begin() {
    watching_ = false;
    if (!adapts_) return;
    began_ = now();
    if (active_ < most_ && began_ >= retry_) {
        active_++;
        patience_ = std::min(2 * patience_, kMostPatience);
        retry_ = began_ + patience_;
        look_ = began_;
    }
    watching_ = active_ > 1 && began_ >= look_;
}

void Crowding::end(uint64_t most_delayed) {
    if (!watching_) return;
    const int64_t ended = now();
    const bool held_up = 4 * static_cast<int64_t>(most_delayed) > ended - began_;
    look_ = suspicious_ || held_up ? ended : ended + kBetweenLooks;
    if (held_up && suspicious_) {
        active_--;
        retry_ = ended + patience_;
    } else if (!held_up && active_ == most_) {
        patience_ = kPatience;
    }
    suspicious_ = held_up && !suspicious_;
}

Pool::Pool(int threads, bool adapts) : owner_(getpid()), crowding_(threads, adapts) {
    if (threads < 1 || threads > 1024) throw std::invalid_argument("threads must be between 1 and 1024");
    starts_ = std::make_unique<Start[]>(threads);
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
    for (int t = 1; t < threads(); t++) call(t);
    for (std::thread& worker : workers_) worker.join();
}

void Pool::call(int thread) {
    starts_[thread].count.fetch_add(1);  // sequentially consistent, as in meet()
    starts_[thread].count.notify_one();
}

void Pool::run(const Task& task) {
    if (workers_.empty()) return task(0, 1);
    if (owner_ != getpid())
        throw std::runtime_error("this model was loaded before the process forked; load it again in the child process");
    task_ = &task;
    most_delayed_.store(0, std::memory_order_relaxed);
    crowding_.begin();
    for (int t = 1; t < active(); t++) call(t);
    perform(0);
    crowding_.end(most_delayed_.load(std::memory_order_relaxed));
    if (!failed_.load(std::memory_order_relaxed)) return;
    inner_.arrived.store(0, std::memory_order_relaxed);  // of the barrier that was abandoned
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(error_, nullptr));
}

void Pool::work(int thread) {
    for (uint32_t seen = 0;; seen++) {
        wait_while(starts_[thread].count, seen, kSpinBetweenSteps);
        if (stop_) return;
        perform(thread);
    }
}

// The first to fail keeps its exception and releases those who wait; what they throw follows from it.
void Pool::perform(int thread) {
    const uint64_t before = crowding_.watching() ? run_delay() : 0;
    try {
        (*task_)(thread, active());
    } catch (...) {
        if (!failed_.exchange(true, std::memory_order_relaxed)) {
            error_ = std::current_exception();
            inner_.passed.fetch_add(1, std::memory_order_release);
            inner_.passed.notify_all();
        }
    }
    if (crowding_.watching()) {
        const uint64_t delay = run_delay() - before;
        uint64_t most = most_delayed_.load(std::memory_order_relaxed);
        while (delay > most && !most_delayed_.compare_exchange_weak(most, delay, std::memory_order_relaxed)) {
        }
    }
    meet(end_, end_.passed.load(std::memory_order_relaxed));
}

// Whoever has failed does not arrive again, so the barrier that others are in can only end by the failure's change of
// `passed`. Reading that before failed_ misses no failure: after its change failed_ is seen, before it the wait ends.
void Pool::barrier() {
    if (active() == 1) return;
    const uint32_t round = inner_.passed.load(std::memory_order_acquire);
    if (failed_.load(std::memory_order_relaxed)) throw Abandoned();
    meet(inner_, round);
    if (failed_.load(std::memory_order_relaxed)) throw Abandoned();
}

// The last to arrive lets all pass; `round` is what the caller has read from gate.passed.
void Pool::meet(Gate& gate, uint32_t round) {
    const uint32_t all = static_cast<uint32_t>(active());  // before arriving: then the next run may begin
    if (gate.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == all) {
        gate.arrived.store(0, std::memory_order_relaxed);
        gate.passed.store(round + 1);  // sequentially consistent: notify_all reads after it whether anybody sleeps
        gate.passed.notify_all();
    } else {
        wait_while(gate.passed, round, kSpinInStep);
    }
}

}  // namespace qb
