// What shim.cpp asks of scheduler.cpp.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace shim {

struct Kernel {
    const char* name;
    size_t frame_size;
    void (*call)(const void* frame);
};
// The bounds of all shared memory.
struct Shared {
    char *begin, *end;
};

// Runs all threads of all blocks, in natural order with seed 0, else in one permuted by it. Returns whether it went well;
// if not, message says what did not.
bool run(const Kernel& kernel, const void* frame, unsigned blocks, unsigned threads, uint64_t seed, Shared shared, char* message,
         size_t size);

// Drops the running thread's block and ends the launch with a message that begins with the kernel, the block and the thread.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Is it on the stack of the running thread?
bool on_stack(const void* memory);

}  // namespace shim
