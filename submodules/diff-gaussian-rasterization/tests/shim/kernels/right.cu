// Kernels without a fault: the tests compare each with the same thing in torch.
struct Frame {
    const float* values;
    float* sums;
    int* numbers;
    int count;
};

constexpr unsigned ALL = 0xffffffff;

extern "C" __global__ void __launch_bounds__(256) block_sum(const Frame frame) {
    __shared__ struct { float partial[8]; } shared;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, i = blockIdx.x * blockDim.x + threadIdx.x;
    float value = i < frame.count ? __ldg(frame.values + i) : 0.0f;
    for (int step = 16; step; step /= 2) value += __shfl_down_sync(ALL, value, step);
    if (lane == 0) shared.partial[warp] = value;
    __syncthreads();
    if (warp) return;
    value = lane < 8 ? shared.partial[lane] : 0.0f;
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(ALL, value, step);
    if (lane == 0) frame.sums[blockIdx.x] = value;
}

extern "C" __global__ void warp_scan(const Frame frame) {
    const int lane = threadIdx.x % 32, i = blockIdx.x * blockDim.x + threadIdx.x;
    float value = frame.values[i];
    for (int step = 1; step < 32; step *= 2) {
        const float before = __shfl_up_sync(ALL, value, step);
        if (lane >= step) value += before;
    }
    frame.sums[i] = value;
}

// Numbers the positive and the other values of a warp, each from 0 on.
extern "C" __global__ void divergent_ranks(const Frame frame) {
    const unsigned lane = threadIdx.x % 32, i = blockIdx.x * blockDim.x + threadIdx.x;
    const bool positive = frame.values[i] > 0.0f;
    const unsigned with = __ballot_sync(ALL, positive), without = ~with, before = (1u << lane) - 1;
    int rank;
    if (positive) {
        for (unsigned turn = 0; turn < 3; ++turn) __syncwarp(with);
        rank = __popc(__ballot_sync(with, 1) & before);
    } else {
        rank = __popc(__ballot_sync(without, 1) & before);
        if (!__all_sync(without, rank < 32) || __any_sync(without, rank > __popc(without))) rank = -1;
    }
    frame.numbers[i] = rank;
}

// Into 16 bins between 0 and 1, first by block.
extern "C" __global__ void histogram(const Frame frame) {
    __shared__ int bins[16];
    if (threadIdx.x < 16) bins[threadIdx.x] = 0;
    __syncthreads();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < frame.count) atomicAdd(&bins[min(15, max(0, static_cast<int>(frame.values[i] * 16.0f)))], 1);
    __syncthreads();
    if (threadIdx.x < 16) atomicAdd(frame.numbers + threadIdx.x, bins[threadIdx.x]);
}

// Half of the threads exit before the others meet. Three numbers of each thread, -1 of those that have exited.
extern "C" __global__ void votes(const Frame frame) {
    int* numbers = frame.numbers + 3 * threadIdx.x;
    numbers[0] = numbers[1] = numbers[2] = -1;
    if (threadIdx.x % 2) return;
    const bool vote = frame.values[threadIdx.x] > 0.0f;
    numbers[0] = __syncthreads_count(vote);
    numbers[1] = __syncthreads_or(vote);
    numbers[2] = __syncthreads_and(vote);
}

// By idx, up, down and xor of 3 in a width of 8: the lane that each lane hears, and the lanes with the same lane / 5.
extern "C" __global__ void shuffles(const Frame frame) {
    const int lane = threadIdx.x;
    int* numbers = frame.numbers + 5 * lane;
    numbers[0] = __shfl_sync(ALL, lane, 3, 8);
    numbers[1] = static_cast<int>(__shfl_up_sync(ALL, static_cast<float>(lane), 3, 8));
    numbers[2] = static_cast<int>(__shfl_down_sync(ALL, static_cast<unsigned long long>(lane), 3, 8));
    numbers[3] = __shfl_xor_sync(ALL, lane, 3, 8);
    numbers[4] = static_cast<int>(__match_any_sync(ALL, lane / 5));
}

// Every thread's place in the order in which they pass two stretches of code.
extern "C" __global__ void order(const Frame frame) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    int* numbers = frame.numbers + 1;
    numbers[i] = atomicAdd(frame.numbers, 1);
    __syncthreads();
    numbers[gridDim.x * blockDim.x + i] = atomicAdd(frame.numbers, 1);
}

// Reverses the order of the signs within each warp, through memory that its lanes share byte by byte.
extern "C" __global__ void warp_reversal(const Frame frame) {
    __shared__ signed char signs[128];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    for (int turn = 0; turn < 3; ++turn) {
        signs[threadIdx.x] = frame.values[i] > 0.0f ? 1 : -1;
        __syncwarp();
        frame.numbers[i] = signs[threadIdx.x ^ 31];
        __syncwarp();
    }
}

// Each block sums its values; the last of them adds up what the others have left behind a fence.
extern "C" __global__ void sum_by_last_block(const Frame frame) {
    __shared__ struct { float sum; unsigned ticket; } shared;
    if (threadIdx.x == 0) shared.sum = 0.0f;
    __syncthreads();
    atomicAdd(&shared.sum, frame.values[blockIdx.x * blockDim.x + threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0) {
        frame.sums[1 + blockIdx.x] = shared.sum;
        __threadfence();
        shared.ticket = static_cast<unsigned>(atomicAdd(frame.numbers, 1));
    }
    __syncthreads();
    if (shared.ticket + 1 < gridDim.x || threadIdx.x) return;
    __threadfence();
    float sum = 0.0f;
    for (unsigned block = 0; block < gridDim.x; ++block) sum += frame.sums[1 + block];
    frame.sums[0] = sum;
}

#define DGR_KERNELS(X)                                                                                               \
    X(block_sum) X(warp_scan) X(divergent_ranks) X(histogram) X(votes) X(shuffles) X(order) X(warp_reversal)         \
    X(sum_by_last_block)
