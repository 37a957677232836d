// One persistent team of threads. The caller of run() is thread 0.
#pragma once

#include <atomic>
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

    // Calls task(thread) on every thread and returns when all are done. Tasks must not throw; one run at a time.
    void run(const std::function<void(int)>& task);

    // Inside a task: nobody passes before everybody has come, and what was written before is seen after.
    void barrier();

private:
    void work(int thread);

    std::vector<std::thread> workers_;
    const std::function<void(int)>* task_ = nullptr;
    bool stop_ = false;
    const int owner_;  // process id: threads do not survive a fork
    alignas(128) std::atomic<uint32_t> started_{0};
    alignas(128) std::atomic<uint32_t> arrived_{0};
    alignas(128) std::atomic<uint32_t> passed_{0};
};

}  // namespace qb
