// Per tile of all views, the list of the Gaussians that reach it, front to back, equal depths in the order of the index: count
// (in preprocess), scan, scatter in any order, and a sort of 64-bit keys (depth, index), which no two instances share.
#pragma once
#include "tiles.cuh"

namespace dgr {

constexpr int SCAN_THREADS = 1024;

struct ScanShared {
    u64 warp_sum[SCAN_THREADS / WARP];
    u32 longest;
};

// One block: where each tile's list starts, the length of all and of the longest. `tile_count` becomes the write positions.
__device__ inline void scan_tiles(const Frame& f, ScanShared& shared) {
    const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    const i64 tiles = static_cast<i64>(f.views) * f.tiles();
    u64 before = 0;
    if (thread == 0) shared.longest = 0;
    for (i64 first = 0; first < tiles; first += SCAN_THREADS) {
        const i64 tile = first + thread;
        const u32 own = tile < tiles ? f.tile_count[tile] : 0;
        u64 sum = own;  // of the lanes up to this one
        u32 longest = own;
        for (int step = 1; step < WARP; step *= 2) {
            const u64 other = __shfl_up_sync(ALL_LANES, sum, step);
            if (lane >= step) sum += other;
            const u32 theirs = __shfl_xor_sync(ALL_LANES, longest, step);
            longest = theirs > longest ? theirs : longest;
        }
        __syncthreads();  // the sums of the round before have been read
        if (lane == WARP - 1) shared.warp_sum[warp] = sum;
        if (lane == 0) atomicMax(&shared.longest, longest);
        __syncthreads();
        u64 of_warps = 0, total = 0;
        for (int w = 0; w < SCAN_THREADS / WARP; ++w) {
            if (w < warp) of_warps += shared.warp_sum[w];
            total += shared.warp_sum[w];
        }
        if (tile < tiles) {
            const u32 start = static_cast<u32>(before + of_warps + sum - own);  // wraps only where the lists overflow
            f.tile_start[tile] = start;
            f.tile_count[tile] = start;
        }
        before += total;
    }
    __syncthreads();
    if (thread == 0) {
        f.tile_start[tiles] = static_cast<u32>(before);
        *f.status = Status{before, shared.longest, 0, 0, 0};
    }
}

__device__ inline void scatter_gaussian(const Frame& f, i64 g) {
    for (int view = 0; view < f.views; ++view) {
        const i64 i = view * f.count + g;
        const bool visible = g < f.count && f.radii[i] > 0;
        const Record r = visible ? f.records[i] : Record{};
        u32* next = f.tile_count + static_cast<i64>(view) * f.tiles();
        for_each_tile(visible, r, sort_key(r.depth, static_cast<u32>(g)), f.tiles_x(),
                      [next, &f](int tile, u64 key) { f.keys[atomicAdd(next + tile, 1u)] = key; });
    }
}

// Bitonic sorting of one list by a block. Where two halves meet, the first comparison is with the mirror image, so that every
// comparison puts the smaller key first; keys past the end count as the largest and never move. A thread holds ITEMS
// neighbours: partners lie in its registers, in another lane's, or, for other warps, in shared memory.
constexpr u64 LAST_KEY = ~0ull;
constexpr int MOST_ITEMS = 16, CHUNK = MOST_ITEMS * THREADS;
constexpr u32 SHORT_LIST = 4 * THREADS;  // needs few registers and little shared memory: a kernel of its own

template <int ITEMS> struct SortShared {
    u64 keys[ITEMS * THREADS];
};

__device__ inline void order(u64& low, u64& high) {
    const u64 a = low, b = high;
    low = a < b ? a : b;
    high = a < b ? b : a;
}

// Compares with thread `thread ^ mask`, item by item or with the mirror image.
template <int ITEMS, bool MIRROR> __device__ void compare_threads(u64 (&keys)[ITEMS], int mask, u64* shared) {
    const int thread = threadIdx.x;
    const bool first = thread < (thread ^ mask);
    u64 theirs[ITEMS];
    if (mask < WARP) {
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) theirs[i] = __shfl_xor_sync(ALL_LANES, keys[MIRROR ? ITEMS - 1 - i : i], mask);
    } else {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) shared[i * THREADS + thread] = keys[i];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) theirs[i] = shared[(MIRROR ? ITEMS - 1 - i : i) * THREADS + (thread ^ mask)];
    }
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) keys[i] = (theirs[i] < keys[i]) == first ? theirs[i] : keys[i];
}

// Turns a bitonic stretch of `size` keys, a power of two, into an ascending one.
template <int ITEMS> __device__ void merge_down(u64 (&keys)[ITEMS], int size, u64* shared) {
    for (int step = size / 2; step >= ITEMS; step /= 2) compare_threads<ITEMS, false>(keys, step / ITEMS, shared);
#pragma unroll
    for (int step = ITEMS / 2; step > 0; step /= 2)
#pragma unroll
        for (int i = 0; i < ITEMS; ++i)
            if (!(i & step)) order(keys[i], keys[i | step]);
}

template <int ITEMS> __device__ void load_keys(u64 (&keys)[ITEMS], const u64* list, u32 count) {
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        const u32 at = threadIdx.x * ITEMS + i;
        keys[i] = at < count ? list[at] : LAST_KEY;
    }
}

template <int ITEMS> __device__ void store_keys(const u64 (&keys)[ITEMS], u64* list, u32 count) {
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        const u32 at = threadIdx.x * ITEMS + i;
        if (at < count) list[at] = keys[i];
    }
}

template <int ITEMS> __device__ void sort_chunk(u64* list, u32 count, u64* shared) {
    u64 keys[ITEMS];
    load_keys(keys, list, count);
#pragma unroll
    for (int size = 2; size <= ITEMS; size *= 2) {
#pragma unroll
        for (int i = 0; i < ITEMS; ++i)
            if (!(i & (size / 2))) order(keys[i], keys[i ^ (size - 1)]);
#pragma unroll
        for (int step = size / 4; step > 0; step /= 2)
#pragma unroll
            for (int i = 0; i < ITEMS; ++i)
                if (!(i & step)) order(keys[i], keys[i | step]);
    }
    for (u32 size = 2 * ITEMS; size <= ITEMS * THREADS && size / 2 < count; size *= 2) {
        compare_threads<ITEMS, true>(keys, static_cast<int>(size / ITEMS) - 1, shared);
        merge_down(keys, static_cast<int>(size / 2), shared);
    }
    store_keys(keys, list, count);
}

// A list longer than a chunk: its chunks are sorted; then stretches merge, with steps of a chunk and more in global memory.
__device__ inline void sort_chunks(u64* list, u32 count, u64* shared) {
    for (u64 first = 0; first < count; first += CHUNK) {
        const u64 left = count - first;
        sort_chunk<MOST_ITEMS>(list + first, left < CHUNK ? static_cast<u32>(left) : CHUNK, shared);
    }
    for (u64 size = 2 * CHUNK; size / 2 < count; size *= 2) {
        for (u64 step = size / 2; step >= CHUNK; step /= 2) {
            __syncthreads();
            for (u64 i = threadIdx.x; i < count; i += THREADS) {
                const u64 partner = step == size / 2 ? i ^ (size - 1) : i ^ step;
                if (i < partner && partner < count) order(list[i], list[partner]);
            }
        }
        __syncthreads();
        for (u64 first = 0; first < count; first += CHUNK) {
            const u64 left = count - first;
            const u32 here = left < CHUNK ? static_cast<u32>(left) : CHUNK;
            u64 keys[MOST_ITEMS];
            load_keys(keys, list + first, here);
            merge_down(keys, CHUNK, shared);
            store_keys(keys, list + first, here);
        }
    }
}

// All threads of the block; both end with the list visible to all of them.
__device__ inline void sort_short(u64* list, u32 count, SortShared<4>& shared) {
    if (count <= THREADS)
        sort_chunk<1>(list, count, shared.keys);
    else if (count <= 2 * THREADS)
        sort_chunk<2>(list, count, shared.keys);
    else
        sort_chunk<4>(list, count, shared.keys);
    __syncthreads();
}

__device__ inline void sort_long(u64* list, u32 count, SortShared<MOST_ITEMS>& shared) {
    if (count <= 8 * THREADS)
        sort_chunk<8>(list, count, shared.keys);
    else if (count <= CHUNK)
        sort_chunk<16>(list, count, shared.keys);
    else
        sort_chunks(list, count, shared.keys);
    __syncthreads();
}

}  // namespace dgr
