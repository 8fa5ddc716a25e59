// The slow path: more instances than `keys` holds. Each block of a small grid takes a share of `keys`, fills it with the list of
// one tile after another by a look at every Gaussian of the view, and works on that.
#pragma once
#include "binning.cuh"
#include "blend.cuh"
#include "blend_backward.cuh"

namespace dgr {

struct GatherShared {
    u32 tile, count;
    SortShared<MOST_ITEMS> sort;
};

__device__ inline TileList gather_list(const Frame& f, u32 tile, u64* keys, GatherShared& shared) {
    const u32 per_view = static_cast<u32>(f.tiles()), local = tile % per_view;
    const int view = static_cast<int>(tile / per_view);
    const int column = static_cast<int>(local) % f.tiles_x(), row = static_cast<int>(local) / f.tiles_x();
    if (threadIdx.x == 0) shared.count = 0;
    __syncthreads();
    for (i64 g = threadIdx.x; g < f.count; g += THREADS) {
        const i64 i = view * f.count + g;
        if (f.radii[i] <= 0) continue;
        const Record r = f.records[i];
        const TileBox box(r);
        const bool near = column >= box.column && column < box.column + box.columns && row >= box.row && row < box.row + box.rows;
        if (near && reaches_tile(splat_of(r), column, row)) keys[atomicAdd(&shared.count, 1u)] = sort_key(r.depth, static_cast<u32>(g));
    }
    __syncthreads();
    const u32 count = shared.count;
    sort_long(keys, count, shared.sort);
    return {view, column, row, keys, count};
}

// Calls work(list) for every tile of every view; `next` is the queue that the blocks share.
template <class Work> __device__ void for_each_gathered_list(const Frame& f, u32* next, GatherShared& shared, const Work& work) {
    const u64 longest = f.status->longest > 0 ? f.status->longest : 1;
    const u32 tiles = static_cast<u32>(f.views * f.tiles());
    if (blockIdx.x >= static_cast<u64>(f.capacity) / longest) return;  // as many blocks as have room; `keys` holds any one list
    while (true) {
        __syncthreads();
        if (threadIdx.x == 0) shared.tile = atomicAdd(next, 1u);
        __syncthreads();
        if (shared.tile >= tiles) return;
        work(gather_list(f, shared.tile, f.keys + blockIdx.x * longest, shared));
    }
}

}  // namespace dgr
