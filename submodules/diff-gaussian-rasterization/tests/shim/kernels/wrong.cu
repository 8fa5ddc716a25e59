// Kernels with one fault each, for blocks of 64 threads.
struct Frame {
    float* values;
    int index;  // not within bounds, or something else that the compiler must not know
};

constexpr unsigned ALL = 0xffffffff, LANES = 64;

extern "C" __global__ void unsynchronised_reversal(const Frame frame) {
    __shared__ float shared[LANES];
    shared[threadIdx.x] = frame.values[threadIdx.x];
    frame.values[threadIdx.x] = shared[LANES - 1 - threadIdx.x];
}

// Moves the values by one, index times; lacks the barrier at the end of the loop, which natural order never needs.
extern "C" __global__ void unsynchronised_loop(const Frame frame) {
    __shared__ float shared[LANES];
    float value = frame.values[threadIdx.x];
    for (int i = 0; i < frame.index; ++i) {
        shared[threadIdx.x] = value;
        __syncthreads();
        value = shared[(threadIdx.x + LANES - 1) % LANES];
    }
    frame.values[threadIdx.x] = value;
}

extern "C" __global__ void unwritten_shared(const Frame frame) {
    __shared__ struct { float values[LANES]; } shared;
    if (threadIdx.x != 5) shared.values[threadIdx.x] = 1.0f;
    __syncthreads();
    frame.values[threadIdx.x] = shared.values[threadIdx.x];
}

// Only the first thread should count, which natural order gives.
extern "C" __global__ void checks_then_acts(const Frame frame) {
    if (atomicAdd(frame.values, 0.0f) == 0.0f) atomicAdd(frame.values, 1.0f);
}

// ---- Races that leave no trace in natural order
extern "C" __global__ void warp_without_syncwarp(const Frame frame) {
    __shared__ float shared[LANES];
    shared[threadIdx.x] = frame.values[threadIdx.x];
    __ballot_sync(ALL, 1);
    frame.values[threadIdx.x] = shared[threadIdx.x ^ 1];
}
extern "C" __global__ void syncwarp_of_others(const Frame frame) {
    __shared__ float shared[LANES];
    shared[threadIdx.x] = frame.values[threadIdx.x];
    __syncwarp(threadIdx.x % 32 < 16 ? 0x0000ffff : 0xffff0000);
    frame.values[threadIdx.x] = shared[threadIdx.x ^ 16];
}
extern "C" __global__ void adds_without_atomic(const Frame frame) {
    if (threadIdx.x == 0) frame.values[0] += 1.0f;
}
extern "C" __global__ void reads_beside_atomic(const Frame frame) {
    if (threadIdx.x) atomicAdd(frame.values, 1.0f);
    else frame.values[1] = frame.values[0];
}

// ---- Threads that wait in vain, or call what they must not
extern "C" __global__ void waits_for_exited(const Frame) {
    if (threadIdx.x == 40) return;
    __ballot_sync(ALL, 1);
}
extern "C" __global__ void waits_for_nobody(const Frame) { __syncwarp(); }
extern "C" __global__ void waits_for_barrier(const Frame) {
    if (threadIdx.x >= 48) __syncthreads();
    else if (threadIdx.x >= 32) __ballot_sync(ALL, 1);
}
extern "C" __global__ void different_barriers(const Frame) {
    if (threadIdx.x < 32) __syncthreads();
    else __syncthreads_or(1);
}
extern "C" __global__ void different_places(const Frame) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
extern "C" __global__ void different_operations(const Frame) {
    if (threadIdx.x % 2) __syncwarp();
    else __ballot_sync(ALL, 1);
}
extern "C" __global__ void different_masks(const Frame) { __any_sync(threadIdx.x % 32 < 16 ? ALL : 0xfffffff0, 1); }
extern "C" __global__ void not_in_mask(const Frame) { __shfl_sync(0xfffffffe, 1.0f, 4); }
extern "C" __global__ void trap(const Frame) {
    if (threadIdx.x == 9) __trap();
    __syncthreads();
}

// ---- What the sanitizers find
__device__ __noinline__ void store(float* address, float value) { *address = value; }

extern "C" __global__ void writes_past_tensor(const Frame frame) { frame.values[frame.index] = 1.0f; }
extern "C" __global__ void writes_past_member(const Frame frame) {
    __shared__ struct { float first[8], second[256]; } shared;
    shared.first[frame.index] = 1.0f;
    __syncthreads();
    frame.values[threadIdx.x] = shared.second[threadIdx.x];
}
extern "C" __global__ void writes_past_shared(const Frame frame) {
    __shared__ float shared[LANES];
    store(shared + frame.index, 1.0f);
    __syncthreads();
    frame.values[threadIdx.x] = shared[threadIdx.x];
}
extern "C" __global__ void misaligned_load(const Frame frame) {
    frame.values[0] = reinterpret_cast<const float4*>(frame.values + frame.index % 4 + 1)->w;
}
extern "C" __global__ void signed_overflow(const Frame frame) { frame.values[0] = 100000000 * frame.index; }
extern "C" __global__ void nan_to_int(const Frame frame) { frame.values[0] = static_cast<int>(sqrtf(-frame.index)); }
extern "C" __global__ void flag_of_unwritten_shared(const Frame frame) {
    __shared__ bool done;
    if (frame.index < 0) done = false;
    __syncthreads();
    frame.values[0] = done ? 1.0f : 0.0f;
}
__device__ __noinline__ int descend(int depth) {
    volatile char large[4096];
    large[depth % 4096] = 1;
    return depth ? descend(depth - 1) + large[depth % 4096] : 0;
}
extern "C" __global__ void overflows_stack(const Frame frame) { frame.values[0] = descend(10 * frame.index); }

#define DGR_KERNELS(X)                                                                                        \
    X(unsynchronised_reversal) X(unsynchronised_loop) X(unwritten_shared) X(checks_then_acts)                 \
    X(warp_without_syncwarp) X(syncwarp_of_others) X(adds_without_atomic) X(reads_beside_atomic)              \
    X(waits_for_exited) X(waits_for_nobody) X(waits_for_barrier) X(different_barriers)                        \
    X(different_places) X(different_operations) X(different_masks) X(not_in_mask) X(trap)                     \
    X(writes_past_tensor) X(writes_past_member) X(writes_past_shared) X(misaligned_load)                      \
    X(signed_overflow) X(nan_to_int) X(flag_of_unwritten_shared) X(overflows_stack)
