// One persistent team of threads. The caller of run() is thread 0.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

namespace qb {

class Pool {
public:
    explicit Pool(int threads);  // >= 1; throws std::invalid_argument otherwise
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // Calls task(thread) on every thread and returns when all are done; one run at a time. What a thread throws first
    // is thrown from here, when all have left the task: the others leave it at their next barrier.
    void run(const std::function<void(int)>& task);

    // Inside a task: nobody passes before everybody has come, and what was written before is seen after. Throws
    // when another thread has failed; the task lets that through.
    void barrier();

private:
    struct Gate {
        alignas(128) std::atomic<uint32_t> arrived{0};
        alignas(128) std::atomic<uint32_t> passed{0};
    };
    void dismiss();
    void work(int thread);
    void perform(int thread);
    void meet(Gate&, uint32_t round);

    std::vector<std::thread> workers_;
    const std::function<void(int)>* task_ = nullptr;
    bool stop_ = false;
    const int owner_;  // process id: threads do not survive a fork
    alignas(128) std::atomic<uint32_t> started_{0};
    Gate inner_;                                    // barriers of a task; abandoned when a thread fails
    Gate end_;                                      // of a run: every thread has left the task, whatever happened in it
    alignas(128) std::atomic<bool> failed_{false};  // apart from what changes in good runs
    std::exception_ptr error_;
};

}  // namespace qb
