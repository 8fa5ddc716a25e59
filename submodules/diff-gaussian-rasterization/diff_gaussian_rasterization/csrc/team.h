// Threads that live on from call to call and help whoever has a loop to share.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dgr {

// Calls step(context, member, i) once for each i < count, and returns when all calls have. The caller is member 0; up to
// members - 1 helpers join it as members 1, 2, ... Everyone takes the next step as it comes: a helper that the system runs late
// leaves more to the others, and none is waited for except within a step. Steps must not throw. Any number of threads may run
// loops at once, also in a forked child. Throws std::bad_alloc before the first step; if the system gives no more threads, fewer
// help.
using Step = void (*)(const void* context, int member, uint32_t i);
void run_loop(int members, uint32_t count, Step step, const void* context);

// The same for any callable step(member, i).
template <class Callable> void share(int members, size_t count, const Callable& step) {
    const Step call = [](const void* context, int member, uint32_t i) { (*static_cast<const Callable*>(context))(member, i); };
    run_loop(members, static_cast<uint32_t>(count), call, &step);
}

}  // namespace dgr
