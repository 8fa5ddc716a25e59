// Reports two accesses to the same memory, one of them a write, not both atomic, by threads that nothing orders: no barrier
// of their block between the two, no __syncwarp of their warp (a vector clock per lane follows those), and, for different
// blocks, no __threadfence in the earlier one since its access. Shuffles and votes order no memory, as in CUDA.
#include "races.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <memory>
#include <unordered_map>
#include <vector>

#include "cuda_shim.h"
#include "scheduler.h"

namespace shim {

namespace {

constexpr unsigned LANES = 32, MAX_THREADS = 1024;
constexpr uintptr_t WORD = 4, PAGE = 4096;  // bytes

struct Access {
    const void* place;  // in the code; null where there was no access
    uint32_t block, epoch, clock, fences;
    uint16_t thread;
    uint8_t bytes;  // of the word, a bit each
    bool atomic, shared;  // memory of the block, whose address in another block means other memory
};

// The last write, the last read, and one before it, of another warp if there was one. So a race can be missed (the next
// seed may find it), but none be made up.
struct Word {
    Access write, read, earlier_read;
};

struct Page {
    uint64_t launch;  // what was noted during an earlier one is void
    Word words[PAGE / WORD];
};

std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
struct { uintptr_t number; Page* page; } recent[64];  // some of the pages, for speed
uint64_t launch_number;
Shared shared_memory;
bool in_block;

uint32_t epoch;                // of the block: the number of barriers that have opened
std::vector<uint32_t> fences;  // by block, the number of __threadfence
uint32_t clocks[MAX_THREADS];
uint32_t seen[MAX_THREADS][LANES];  // by lane of its warp, up to which clock its accesses come before what the thread does

Page& page_of(uintptr_t address) {
    const uintptr_t number = address / PAGE;
    auto& entry = recent[number % 64];
    if (entry.number != number || !entry.page) {
        std::unique_ptr<Page>& page = pages[number];
        if (!page) page = std::make_unique<Page>();
        entry = {number, page.get()};
    }
    if (entry.page->launch != launch_number) {
        memset(entry.page->words, 0, sizeof entry.page->words);
        entry.page->launch = launch_number;
    }
    return *entry.page;
}

// Does it come before what the running thread does now?
bool is_before(const Access& access) {
    const unsigned self = threadIdx.x;
    if (access.block != blockIdx.x) return access.shared || fences[access.block] > access.fences;
    if (access.thread == self || access.epoch < epoch) return true;
    return access.thread / LANES == self / LANES && access.clock <= seen[self][access.thread % LANES];
}

size_t offset_in_library(const void* place) {
    Dl_info info;
    dladdr(place, &info);
    return static_cast<size_t>(static_cast<const char*>(place) - static_cast<const char*>(info.dli_fbase)) - 1;
}

void check(const Access& earlier, const Access& access, bool wrote, bool writes) {
    if (!earlier.place || !(earlier.bytes & access.bytes) || (earlier.atomic && access.atomic) || is_before(earlier)) return;
    // __init__.py replaces what is in brackets by the line in the source.
    char of_block[32] = "";
    if (!access.shared) snprintf(of_block, sizeof of_block, " of block %u", earlier.block);
    fail("%s %s at [%#zx] that thread %u%s %s at [%#zx], and nothing orders the two", writes ? "writes" : "reads",
         access.shared ? "shared memory" : "memory", offset_in_library(access.place), earlier.thread, of_block,
         wrote ? "wrote" : "read", offset_in_library(earlier.place));
}

void note(const void* memory, size_t size, bool writes, bool atomic, const void* place) {
    if (!in_block || on_stack(memory)) return;
    const unsigned self = threadIdx.x;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory), end = begin + size;
    const bool shared = memory >= shared_memory.begin && memory < shared_memory.end;
    Access access{place, blockIdx.x, epoch, clocks[self], fences[blockIdx.x], static_cast<uint16_t>(self), 0, atomic, shared};
    for (uintptr_t at = begin / WORD * WORD; at < end; at += WORD) {
        const unsigned skipped = at < begin ? begin - at : 0, used = end - at < WORD ? end - at : WORD;
        access.bytes = static_cast<uint8_t>((1u << used) - (1u << skipped));
        Word& word = page_of(at).words[at % PAGE / WORD];
        check(word.write, access, true, writes);
        if (writes) {
            check(word.read, access, false, true);
            check(word.earlier_read, access, false, true);
            word.write = access;
        } else {
            const bool same_warp = word.read.thread / LANES == self / LANES;
            if (!same_warp || !word.earlier_read.place || is_before(word.earlier_read)) word.earlier_read = word.read;
            word.read = access;
        }
    }
}

}  // namespace

namespace races {

void begin_launch(unsigned blocks, Shared shared) {
    ++launch_number;
    shared_memory = shared;
    fences.assign(blocks, 0);
}

void begin_block() {
    epoch = 0;
    for (uint32_t& clock : clocks) clock = 1;
    memset(seen, 0, sizeof seen);
    in_block = true;
}

void end_block() { in_block = false; }

void note_atomic(const void* memory, size_t size, const void* place) { note(memory, size, true, true, place); }

void note_fence() { ++fences[blockIdx.x]; }

void order_block() { ++epoch; }

void order_lanes(unsigned warp, uint32_t lanes) {
    uint32_t latest[LANES] = {};
    for (unsigned lane = 0; lane < LANES; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        const unsigned thread = warp * LANES + lane;
        seen[thread][lane] = clocks[thread]++;
        for (unsigned i = 0; i < LANES; ++i) latest[i] = max(latest[i], seen[thread][i]);
    }
    for (unsigned lane = 0; lane < LANES; ++lane)
        if (lanes >> lane & 1) memcpy(seen[warp * LANES + lane], latest, sizeof latest);
}

}  // namespace races

}  // namespace shim

// ---- What the compiler calls before every access
#define SHIM_HOOK extern "C" __attribute__((visibility("hidden"))) void
#define SHIM_ACCESS(name, size, writes) \
    SHIM_HOOK __tsan_##name(void* memory) { shim::note(memory, size, writes, false, __builtin_return_address(0)); }
#define SHIM_ACCESSES(size)                    \
    SHIM_ACCESS(read##size, size, false)       \
    SHIM_ACCESS(write##size, size, true)       \
    SHIM_ACCESS(unaligned_read##size, size, false) \
    SHIM_ACCESS(unaligned_write##size, size, true)
SHIM_ACCESSES(1)
SHIM_ACCESSES(2)
SHIM_ACCESSES(4)
SHIM_ACCESSES(8)
SHIM_ACCESSES(16)
SHIM_HOOK __tsan_read_range(void* memory, size_t size) { shim::note(memory, size, false, false, __builtin_return_address(0)); }
SHIM_HOOK __tsan_write_range(void* memory, size_t size) { shim::note(memory, size, true, false, __builtin_return_address(0)); }
SHIM_HOOK __tsan_init() {}
SHIM_HOOK __tsan_func_entry(void*) {}
SHIM_HOOK __tsan_func_exit() {}
extern "C" __attribute__((visibility("hidden"))) void* __tsan_memcpy(void* to, const void* from, size_t size) {
    shim::note(from, size, false, false, __builtin_return_address(0));
    shim::note(to, size, true, false, __builtin_return_address(0));
    return memcpy(to, from, size);
}
extern "C" __attribute__((visibility("hidden"))) void* __tsan_memset(void* to, int byte, size_t size) {
    shim::note(to, size, true, false, __builtin_return_address(0));
    return memset(to, byte, size);
}
