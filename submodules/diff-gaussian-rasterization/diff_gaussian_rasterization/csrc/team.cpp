#include "team.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

namespace dgr {
namespace {

// How long a thread looks for what it waits for before it sleeps. The next loop of a call begins, and the last step of a loop
// ends, within this time if everyone has a core; beyond it somebody has none, who may need this one.
constexpr std::chrono::microseconds PATIENCE{20};

template <class Done> void look(const Done& done) {
    const auto end = std::chrono::steady_clock::now() + PATIENCE;
    while (!done() && std::chrono::steady_clock::now() < end) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
}

// Lives on its caller's stack. All but `next` and looks at `helping` is under the team's lock.
struct Loop {
    const int most;
    const uint32_t count;
    const Step step;
    const void* const context;
    std::atomic<uint32_t> next{0};
    std::atomic<int> helping{0};
    int joined = 1;
    Loop* following = nullptr;

    void take(int member) {
        for (uint32_t i; (i = next.fetch_add(1)) < count;) step(context, member, i);
    }
};

// Helpers must not take the signals of the process: Python's handlers wake the main thread only if that is the one interrupted.
// What a thread's own mistake raises stays open, for faulthandler.
class SignalsBlocked {
public:
    SignalsBlocked() {
        sigset_t most;
        sigfillset(&most);
        for (int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&most, own);
        pthread_sigmask(SIG_SETMASK, &most, &before_);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
    sigset_t before_;
};

class Team {
public:
    void run(Loop& loop) {
        open(loop);
        loop.take(0);
        close(loop);
    }

private:
    std::mutex lock_;
    std::condition_variable opens_, left_;
    Loop* first_ = nullptr;
    std::atomic<uint32_t> opened_{0};  // so many loops, ever
    int helpers_ = 0, asleep_ = 0, waiting_ = 0;

    void open(Loop& loop) {
        std::unique_lock<std::mutex> lock(lock_);
        hire(loop.most - 1);
        Loop** last = &first_;
        while (*last) last = &(*last)->following;
        *last = &loop;
        ++opened_;
        int calls = std::min({asleep_, loop.most - 1, static_cast<int>(loop.count - 1)});
        lock.unlock();
        for (; calls > 0; --calls) opens_.notify_one();
    }

    void close(Loop& loop) {
        std::unique_lock<std::mutex> lock(lock_);
        Loop** at = &first_;
        while (*at != &loop) at = &(*at)->following;
        *at = loop.following;
        const auto alone = [&loop] { return loop.helping == 0; };
        if (alone()) return;
        lock.unlock();
        look(alone);
        lock.lock();
        ++waiting_;
        left_.wait(lock, alone);
        --waiting_;
    }

    void hire(int wanted) {
        if (helpers_ >= wanted) return;
        const SignalsBlocked blocked;
        try {
            for (; helpers_ < wanted; ++helpers_) std::thread([this] { help(); }).detach();
        } catch (const std::system_error&) {  // those that there are must do
        }
    }

    [[noreturn]] void help() {
        std::unique_lock<std::mutex> lock(lock_);
        for (;;) {
            Loop* loop = first_;
            while (loop && (loop->joined == loop->most || loop->next >= loop->count)) loop = loop->following;
            if (loop) {
                const int member = loop->joined++;
                ++loop->helping;
                lock.unlock();
                loop->take(member);
                lock.lock();
                if (--loop->helping == 0 && waiting_) left_.notify_all();  // the loop may be gone by now
            } else {
                const auto news = [this, seen = opened_.load()] { return opened_ != seen; };
                lock.unlock();
                look(news);
                lock.lock();
                ++asleep_;
                opens_.wait(lock, news);
                --asleep_;
            }
        }
    }
};

// Never destroyed, for helpers sleep in it when the process ends. A forked child has none of the helpers and its locks may be held
// by nobody: it begins with a new team.
alignas(Team) unsigned char memory[sizeof(Team)];
Team* const team = [] {
    pthread_atfork(nullptr, nullptr, [] { new (memory) Team; });
    return new (memory) Team;
}();

}  // namespace

void run_loop(int members, uint32_t count, Step step, const void* context) {
    Loop loop{members, count, step, context};
    if (members == 1 || count < 2)
        loop.take(0);
    else
        team->run(loop);
}

}  // namespace dgr
