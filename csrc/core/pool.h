// One persistent team of threads. The caller of run() is thread 0.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace qb {

// How many threads of a team are worth having. On a core that it shares, a thread is ready to run and is not; the
// others then wait for it at every barrier, and the team is slower than without it (docs/journal.md, 2026-11-24: 23 %
// of its speed where one thread less has half). So now and then a run is watched, two in a row that were held up take
// one thread out, and some time later it is tried again.
class Crowding {
public:
    Crowding(int most, bool adapts) : most_(most), active_(most), adapts_(adapts && most > 1) {}

    // Before and after each run, by its caller. watching() in between: whether delays of this run are wanted.
    void begin();
    void end(uint64_t most_delayed);  // nanoseconds, of the thread that waited longest for a core
    bool watching() const { return watching_; }
    int active() const { return active_; }

private:
    const int most_;
    int active_;
    const bool adapts_;
    bool watching_ = false, suspicious_ = false;
    int64_t began_ = 0, look_ = 0, retry_ = 0;  // nanoseconds; look_: when a run is watched next
    int64_t patience_ = kPatience;              // until one thread more is tried

    static constexpr int64_t kPatience = 50'000'000;
};

class Pool {
public:
    // threads >= 1; throws std::invalid_argument otherwise. adapts: threads whose cores are shared are left out.
    explicit Pool(int threads, bool adapts = true);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }
    int active() const { return crowding_.active(); }  // of the present run: threads 0 .. active() - 1 take part

    using Task = std::function<void(int thread, int threads)>;
    // Calls the task on every active thread and returns when all are done; one run at a time. What a thread throws
    // first is thrown from here, when all have left the task: the others leave it at their next barrier.
    void run(const Task&);

    // Inside a task: nobody passes before everybody has come, and what was written before is seen after. Throws
    // when another thread has failed; the task lets that through.
    void barrier();

private:
    struct Gate {
        alignas(128) std::atomic<uint32_t> arrived{0};
        alignas(128) std::atomic<uint32_t> passed{0};
    };
    struct alignas(128) Start {
        std::atomic<uint32_t> count{0};  // runs that this thread has been called to
    };
    void dismiss();
    void call(int thread);
    void work(int thread);
    void perform(int thread);
    void meet(Gate&, uint32_t round);

    std::unique_ptr<Start[]> starts_;
    std::vector<std::thread> workers_;
    const Task* task_ = nullptr;
    bool stop_ = false;
    const int owner_;  // process id: threads do not survive a fork
    Crowding crowding_;
    std::atomic<uint64_t> most_delayed_{0};
    Gate inner_;                                    // barriers of a task; abandoned when a thread fails
    Gate end_;                                      // of a run: every thread has left the task, whatever happened in it
    alignas(128) std::atomic<bool> failed_{false};  // apart from what changes in good runs
    std::exception_ptr error_;
};

}  // namespace qb
