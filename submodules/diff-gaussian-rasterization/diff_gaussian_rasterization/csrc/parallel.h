// A team of threads for one call: threads that outlive the call would not survive a fork.
#pragma once
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace dgr {

class Barrier {
public:
    explicit Barrier(int size) : size_(size) {}
    void wait() {
        const int phase = phase_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins)
            if (spins > 20000) std::this_thread::yield();
    }

private:
    const int size_;
    std::atomic<int> arrived_{0}, phase_{0};
};

// Runs work(thread, barrier), which must not throw, on `size` threads, the caller being thread 0. Throws std::system_error
// before any work is done if the system gives no more threads, std::bad_alloc if no more memory.
template <class Work> void run_team(int size, const Work& work) {
    enum Signal { WAIT, START, DISMISS };
    std::atomic<int> signal{WAIT};
    Barrier barrier(size);
    std::vector<std::thread> team;
    team.reserve(size);
    const auto member = [&](int thread) {
        while (signal.load(std::memory_order_acquire) == WAIT) std::this_thread::yield();
        if (signal == START) work(thread, barrier);
    };
    const auto dismiss = [&team] {
        for (auto& thread : team) thread.join();
    };
    try {
        for (int t = 1; t < size; ++t) team.emplace_back(member, t);
    } catch (...) {
        signal = DISMISS;
        dismiss();
        throw;
    }
    signal = START;
    work(0, barrier);
    dismiss();
}

}  // namespace dgr
