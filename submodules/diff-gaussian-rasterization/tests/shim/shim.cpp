// The kernels of SHIM_SOURCE, a .cu file, behind a C interface for ctypes.
#include <stdio.h>

#include "cuda_shim.h"
#include "scheduler.h"

#include SHIM_SOURCE

namespace {

__shared__ char first_shared_byte;  // the section exists even where no kernel uses it
#if defined(__APPLE__)
#define SHIM_BOUND(elf, mach_o) __asm("section$" mach_o "$__DATA$shim_shared")
#else
#define SHIM_BOUND(elf, mach_o) __asm("__" elf "_shim_shared") __attribute__((visibility("hidden")))
#endif
extern "C" char shared_begin SHIM_BOUND("start", "start");
extern "C" char shared_end SHIM_BOUND("stop", "end");

template <class Frame> constexpr size_t frame_size(void (*)(Frame)) { return sizeof(Frame); }
template <class Frame> void call(void (*kernel)(Frame), const void* frame) { kernel(*static_cast<const Frame*>(frame)); }

#define SHIM_KERNEL(kernel) {#kernel, frame_size(::kernel), [](const void* frame) { call(::kernel, frame); }},
const shim::Kernel kernels[] = {DGR_KERNELS(SHIM_KERNEL)};

const shim::Kernel* find(const char* name) {
    for (const shim::Kernel& kernel : kernels)
        if (!strcmp(kernel.name, name)) return &kernel;
    return nullptr;
}

}  // namespace

#define SHIM_EXPORT extern "C" __attribute__((visibility("default")))

// The size of the kernel's parameter in bytes; 0 if there is no such kernel.
SHIM_EXPORT uint64_t shim_frame_size(const char* name) {
    const shim::Kernel* kernel = find(name);
    return kernel ? kernel->frame_size : 0;
}

// 0, or 1 with a message of at most size bytes.
SHIM_EXPORT int shim_launch(const char* name, unsigned blocks, unsigned threads, const void* frame, uint64_t seed, char* message,
                            size_t size) {
    const shim::Shared shared{&shared_begin, &shared_end};
    const shim::Kernel* kernel = find(name);
    if (!kernel) snprintf(message, size, "There is no kernel '%s'.", name);
    return kernel && shim::run(*kernel, frame, blocks, threads, seed, shared, message, size) ? 0 : 1;
}
