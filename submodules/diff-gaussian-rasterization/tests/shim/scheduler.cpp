// Runs the threads of a block as fibers. A thread runs until it must wait; then another lane of its warp does or, if none
// can, and now and then anyway, one of another warp. When all that are left wait at the block's barrier, that opens.
#include "scheduler.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <memory>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "cuda_shim.h"
#include "fiber.h"
#include "races.h"

uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

namespace {

constexpr unsigned LANES = 32, MAX_THREADS = 1024;

// Lanes that wait for the rest of their mask in the same warp-wide operation.
struct Meeting {
    Exchange kind;
    uint32_t mask, arrived;
    Site site;
};

struct Warp {
    uint32_t ready, at_barrier;  // lanes; those in neither wait in a meeting or have exited
    unsigned meetings;           // the number in use; they have no lane in common
    Meeting meeting[LANES];
    uint64_t bits[LANES], result[LANES];
    int source[LANES];
};

struct Block {
    Warp warps[MAX_THREADS / LANES];
    uint32_t runnable;  // warps with a lane that is ready
    unsigned first;     // the thread that came to the barrier before all others
    Site site;          // where it waits
    Votes arrived, result;
};

struct Launch {
    const Kernel* kernel;
    const void* frame;
    uint64_t random;  // the generator's state, 0 for natural order
    char* message;
    size_t size;
    bool failed;
};

Block block;
Launch launch;
Fiber os_thread;
Fiber fibers[MAX_THREADS];

// xorshift64*
unsigned random_below(unsigned bound) {
    uint64_t& x = launch.random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    return static_cast<unsigned>((x * 0x2545f4914f6cdd1dull >> 32) * bound >> 32);
}

// A set bit of the mask: the lowest, or the next one from a random place on.
unsigned choose(uint32_t mask) {
    if (!launch.random) return static_cast<unsigned>(__builtin_ctz(mask));
    const unsigned start = random_below(32);
    const uint32_t rotated = mask >> start | mask << (-start & 31);
    return (static_cast<unsigned>(__builtin_ctz(rotated)) + start) & 31;
}

bool same(const Site& a, const Site& b) {
    return a.line == b.line && (a.name == b.name || !strcmp(a.name, b.name)) && (a.file == b.file || !strcmp(a.file, b.file));
}

// Text without a destructor: a thread that fails never comes to the end of its functions.
struct Text {
    char characters[200];
};

Text describe(const Site& site) {
    Text text;
    const char* slash = strrchr(site.file, '/');
    snprintf(text.characters, sizeof text, "%s (%s:%d)", site.name, slash ? slash + 1 : site.file, site.line);
    return text;
}

Text describe(const Meeting& meeting) {
    Text text = describe(meeting.site);
    const size_t length = strlen(text.characters);
    snprintf(text.characters + length, sizeof text - length, " with mask 0x%08x", meeting.mask);
    return text;
}

const Meeting* meeting_of(const Warp& warp, unsigned lane) {
    for (unsigned i = 0; i < warp.meetings; ++i)
        if (warp.meeting[i].arrived >> lane & 1) return &warp.meeting[i];
    return nullptr;
}

// No lane of the warp can go on, and yet some wait for others: names a pair of them.
[[noreturn]] void fail_meeting(unsigned warp_index) {
    const Warp& warp = block.warps[warp_index];
    const Meeting& meeting = warp.meeting[0];
    const unsigned waiting = static_cast<unsigned>(__builtin_ctz(meeting.arrived));
    const unsigned missing = static_cast<unsigned>(__builtin_ctz(meeting.mask & ~meeting.arrived));
    const unsigned thread = warp_index * LANES + missing;
    const Meeting* other = meeting_of(warp, missing);
    Text where = {};
    if (other) where = describe(*other);
    else if (warp.at_barrier >> missing & 1) where = describe(block.site);
    const char* how = where.characters[0] ? "waits at " : thread < blockDim.x ? "has exited" : "does not exist";
    threadIdx.x = warp_index * LANES + waiting;
    fail("waits at %s for thread %u, which %s%s", describe(meeting).characters, thread, how, where.characters);
}

void open_barrier() {
    for (unsigned i = 0; i * LANES < blockDim.x; ++i) {
        Warp& warp = block.warps[i];
        warp.ready = std::exchange(warp.at_barrier, 0);
        if (warp.ready) block.runnable |= 1u << i;
    }
    block.result = std::exchange(block.arrived, {});
    races::order_block();
}

// Leaves the running thread, which comes back when it is ready and its turn comes. It may be ready now.
void schedule(bool finished = false) {
    const unsigned self = threadIdx.x;
    unsigned warp_index = self / LANES;
    if (!block.warps[warp_index].ready) {
        if (block.warps[warp_index].meetings) fail_meeting(warp_index);
        block.runnable &= ~(1u << warp_index);
        if (!block.runnable && block.arrived.all) open_barrier();
        if (!block.runnable) return switch_fiber(fibers[self], os_thread, finished);
        warp_index = choose(block.runnable);
    } else if (launch.random && !random_below(32)) {
        warp_index = choose(block.runnable);
    }
    const unsigned next = warp_index * LANES + choose(block.warps[warp_index].ready);
    if (next == self) return;
    threadIdx.x = next;
    switch_fiber(fibers[self], fibers[next], finished);
}

void thread_entry() {
    enter(os_thread);
    launch.kernel->call(launch.frame);
    Warp& warp = block.warps[threadIdx.x / LANES];
    warp.ready &= ~(1u << lane());
    schedule(true);
}

// The lanes of a mask for which the property holds.
template <class Property> uint32_t lanes_where(uint32_t mask, Property property) {
    uint32_t found = 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        found |= uint32_t{property(lane)} << lane;
    }
    return found;
}

uint64_t result_for(int lane, const Warp& warp, const Meeting& meeting) {
    if (meeting.kind == Exchange::match)
        return lanes_where(meeting.mask, [&](int other) { return warp.bits[other] == warp.bits[lane]; });
    const int source = warp.source[lane];
    return meeting.mask >> source & 1 ? warp.bits[source] : ~uint64_t{0};
}

void complete(Warp& warp, Meeting& meeting) {
    const uint32_t mask = meeting.mask;
    if (meeting.kind == Exchange::nothing) {
        races::order_lanes(threadIdx.x / LANES, mask);
    } else if (meeting.kind == Exchange::ballot) {
        const uint32_t ballot = lanes_where(mask, [&](int lane) { return warp.bits[lane] != 0; });
        for (uint32_t rest = mask; rest; rest &= rest - 1) warp.result[__builtin_ctz(rest)] = ballot;
    } else {
        for (uint32_t rest = mask; rest; rest &= rest - 1) {
            const int lane = __builtin_ctz(rest);
            warp.result[lane] = result_for(lane, warp, meeting);
        }
    }
    warp.ready |= mask;
    meeting = warp.meeting[--warp.meetings];
}

void overwrite(Shared shared) {
#if defined(SHIM_ASAN)  // which would object to a memset over what it puts between variables
    for (volatile char* byte = shared.begin; byte != shared.end; ++byte) *byte = static_cast<char>(0xff);
#else
    memset(shared.begin, 0xff, static_cast<size_t>(shared.end - shared.begin));
#endif
}

void run_block(unsigned index, unsigned threads, Shared shared) {
    overwrite(shared);
    blockIdx.x = index;
    block.arrived = {};
    block.runnable = 0;
    for (unsigned thread = 0; thread < threads; ++thread) prepare(fibers[thread], thread_entry, thread % 61 * 64);
    for (unsigned first = 0, i = 0; first < threads; first += LANES, ++i) {
        Warp& warp = block.warps[i];
        warp.at_barrier = warp.meetings = 0;
        warp.ready = threads - first >= LANES ? ~0u : (1u << (threads - first)) - 1;
        block.runnable |= 1u << i;
    }
    const unsigned warp = choose(block.runnable);
    threadIdx.x = warp * LANES + choose(block.warps[warp].ready);
    races::begin_block();
    switch_fiber(os_thread, fibers[threadIdx.x]);
    races::end_block();
}

}  // namespace

bool on_stack(const void* memory) {
    const Stack& stack = fibers[threadIdx.x].stack;
    return memory >= stack.bottom && memory < stack.bottom + stack.size;
}

void fail(const char* format, ...) {
    char what[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    snprintf(launch.message, launch.size, "Kernel '%s', block %u, thread %u %s.", launch.kernel->name, blockIdx.x, threadIdx.x,
             what);
    launch.failed = true;
    switch_fiber(fibers[threadIdx.x], os_thread);
    __builtin_unreachable();
}

void trap(const Site& site) { fail("stops at %s", describe(site).characters); }

Votes barrier(bool vote, const Site& site) {
    if (!block.arrived.all) {
        block.first = threadIdx.x;
        block.site = site;
    } else if (!same(site, block.site)) {
        fail("waits at %s, but thread %u at %s", describe(site).characters, block.first, describe(block.site).characters);
    }
    ++block.arrived.all;
    block.arrived.yes += vote;
    Warp& warp = block.warps[threadIdx.x / LANES];
    warp.ready &= ~(1u << lane());
    warp.at_barrier |= 1u << lane();
    schedule();
    return block.result;
}

uint64_t exchange(Exchange kind, unsigned mask, uint64_t bits, int source, const Site& site) {
    Warp& warp = block.warps[threadIdx.x / LANES];
    const int self = lane();
    if (!(mask >> self & 1)) fail("calls %s, which does not name it", describe(Meeting{kind, mask, 0, site}).characters);
    unsigned i = 0;
    while (i < warp.meetings && !(warp.meeting[i].mask == mask && same(warp.meeting[i].site, site))) ++i;
    if (i == warp.meetings) warp.meeting[warp.meetings++] = {kind, mask, 0, site};
    Meeting& meeting = warp.meeting[i];
    meeting.arrived |= 1u << self;
    warp.bits[self] = bits;
    warp.source[self] = source;
    warp.ready &= ~(1u << self);
    if (meeting.arrived == mask) complete(warp, meeting);
    schedule();
    return warp.result[self];
}

// Other threads may run between an atomic operation and what came before it.
void before_atomic(const void* memory, size_t size, const void* place) {
    if (launch.random && !random_below(4)) schedule();
    races::note_atomic(memory, size, place);
}

void fence() { races::note_fence(); }

bool run(const Kernel& kernel, const void* frame, unsigned blocks, unsigned threads, uint64_t seed, Shared shared, char* message,
         size_t size) {
    static std::mutex one_at_a_time;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    if (!blocks || !threads || threads > MAX_THREADS) {
        snprintf(message, size, "Kernel '%s' is launched with %u blocks of %u threads: it must be at least 1, and 1 to %u.",
                 kernel.name, blocks, threads, MAX_THREADS);
        return false;
    }
    const auto aligned = std::make_unique<max_align_t[]>(kernel.frame_size / sizeof(max_align_t) + 1);
    memcpy(aligned.get(), frame, kernel.frame_size);
    launch = {&kernel, aligned.get(), seed * 0x9e3779b97f4a7c15ull, message, size, false};
    os_thread.stack = {};  // this thread may not be the last launch's
    gridDim = {blocks, 1, 1};
    blockDim = {threads, 1, 1};
    races::begin_launch(blocks, shared);
    std::vector<unsigned> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    for (unsigned i = blocks; seed && i > 1; --i) std::swap(order[i - 1], order[random_below(i)]);
    for (unsigned i = 0; i < blocks && !launch.failed; ++i) run_block(order[i], threads, shared);
    if (launch.failed)
        for (Fiber& fiber : fibers) abandon(fiber);
    return !launch.failed;
}

}  // namespace shim
