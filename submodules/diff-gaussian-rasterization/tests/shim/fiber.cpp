// Compiled without sanitizers in all variants; SHIM_ASAN tells that the kernels' side has AddressSanitizer.
#include "fiber.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <new>

#if defined(SHIM_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace shim {

namespace {

constexpr size_t STACK_SIZE = size_t{1} << 18;  // only what is touched takes memory

Stack allocate_stack() {
    const size_t guard = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void* memory = mmap(nullptr, guard + STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE)) throw std::bad_alloc();
    return {static_cast<char*>(memory) + guard, STACK_SIZE};
}

}  // namespace

#if SHIM_HAS_ASSEMBLY

#define SHIM_STRING_(x) #x
#define SHIM_STRING(x) SHIM_STRING_(x)
#define SHIM_SYMBOL SHIM_STRING(__USER_LABEL_PREFIX__) "shim_switch_stacks"

// Pushes the registers that a call preserves, swaps the stack pointers, pops the other fiber's. Leaving by `ret` keeps the
// processor's prediction of return addresses in step, which halves the cost.
extern "C" __attribute__((visibility("hidden"))) void shim_switch_stacks(void** from, void* to);

#if defined(__x86_64__)
constexpr int SAVED = 8, ENTRY = 6;  // words; r15 ... rbp, then the address to go on at, then what aligns a call's frame
__asm__(".text\n.globl " SHIM_SYMBOL "\n" SHIM_SYMBOL ":\n"
        "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n"
        "movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
        "ret\n");
#else
constexpr int SAVED = 20, ENTRY = 11;  // words; x19 ... x30, then d8 ... d15
__asm__(".text\n.p2align 2\n.globl " SHIM_SYMBOL "\n" SHIM_SYMBOL ":\n"
        "sub sp, sp, #160\n"
        "stp x19, x20, [sp]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n stp x25, x26, [sp, #48]\n"
        "stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"
        "stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
        "mov x9, sp\n str x9, [x0]\n"
        "mov sp, x1\n"
        "ldp x19, x20, [sp]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n ldp x25, x26, [sp, #48]\n"
        "ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n"
        "ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"
        "add sp, sp, #160\n"
        "ret\n");
#endif

static void set_entry(Fiber& fiber, void (*entry)(), size_t offset) {
    void** words = reinterpret_cast<void**>(fiber.stack.bottom + fiber.stack.size - offset) - SAVED;
    for (int i = 0; i < SAVED; ++i) words[i] = nullptr;
    words[ENTRY] = reinterpret_cast<void*>(entry);
    fiber.pointer = words;
}

static void switch_stacks(Fiber& from, Fiber& to) { shim_switch_stacks(&from.pointer, to.pointer); }

#else

static void set_entry(Fiber& fiber, void (*entry)(), size_t offset) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.bottom;
    fiber.context.uc_stack.ss_size = fiber.stack.size - offset;
    makecontext(&fiber.context, entry, 0);
}

static void switch_stacks(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

#endif

void prepare(Fiber& fiber, void (*entry)(), size_t offset) {
    if (!fiber.stack.size) fiber.stack = allocate_stack();
    set_entry(fiber, entry, offset);
}

#if defined(SHIM_ASAN)

void enter(Fiber& thread) {
    Stack& stack = thread.stack;
    const void* bottom = nullptr;
    const bool first = !stack.size;
    __sanitizer_finish_switch_fiber(nullptr, first ? &bottom : nullptr, first ? &stack.size : nullptr);
    if (first) stack.bottom = static_cast<char*>(const_cast<void*>(bottom));
}

void switch_fiber(Fiber& from, Fiber& to, bool finished) {
    __sanitizer_start_switch_fiber(finished ? nullptr : &from.fake_stack, to.stack.bottom, to.stack.size);
    switch_stacks(from, to);
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
}

void abandon(Fiber& fiber) { __asan_unpoison_memory_region(fiber.stack.bottom, fiber.stack.size); }

#else

void enter(Fiber&) {}
void switch_fiber(Fiber& from, Fiber& to, bool) { switch_stacks(from, to); }
void abandon(Fiber&) {}

#endif

}  // namespace shim
