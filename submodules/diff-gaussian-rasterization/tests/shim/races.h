// Data races: the variant "races" compiles the kernels with -fsanitize=thread, but races.cpp takes its runtime's place.
#pragma once
#include <stdint.h>

#include "scheduler.h"

namespace shim::races {

#if defined(SHIM_RACES)
void begin_launch(unsigned blocks, Shared shared);
void begin_block();
void end_block();
void note_atomic(const void* memory, size_t size, const void* place);  // place: an address in the code
void note_fence();
void order_block();                                // at a barrier
void order_lanes(unsigned warp, uint32_t lanes);   // at __syncwarp
#else
inline void begin_launch(unsigned, Shared) {}
inline void begin_block() {}
inline void end_block() {}
inline void note_atomic(const void*, size_t, const void*) {}
inline void note_fence() {}
inline void order_block() {}
inline void order_lanes(unsigned, uint32_t) {}
#endif

}  // namespace shim::races
