// Fibers: contexts with stacks of their own that switch to one another, in a few ns where we have the assembly.
#pragma once
#include <stddef.h>

#if defined(SHIM_UCONTEXT) || !(defined(__x86_64__) || defined(__aarch64__))
#define SHIM_HAS_ASSEMBLY 0
#include <ucontext.h>
#else
#define SHIM_HAS_ASSEMBLY 1
#endif

namespace shim {

// A stack above a page that faults, so that an overflow cannot pass unseen. Kept for the next fiber, never returned.
struct Stack {
    char* bottom = nullptr;
    size_t size = 0;
};

struct Fiber {
    Stack stack;
#if SHIM_HAS_ASSEMBLY
    void* pointer = nullptr;  // into the stack, while another fiber runs
#else
    ucontext_t context;
#endif
    void* fake_stack = nullptr;  // AddressSanitizer's
};

// Makes the next switch to the fiber call entry, which never returns. The offset lowers the top of the stack: without one,
// the busiest lines of all stacks would fall into the same set of the cache.
void prepare(Fiber& fiber, void (*entry)(), size_t offset);
// Must be the first call of every entry; thread is the fiber of the code that switched to the first one.
void enter(Fiber& thread);
// Returns when someone switches back to `from`; where it is finished, that is never.
void switch_fiber(Fiber& from, Fiber& to, bool finished = false);
// Forgets what lies on the stack of a fiber that nobody will resume.
void abandon(Fiber& fiber);

}  // namespace shim
