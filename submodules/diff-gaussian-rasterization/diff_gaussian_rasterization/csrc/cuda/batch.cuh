// A tile's block of threads walks its list together: a batch of records is staged in shared memory, and each warp finds by a
// ballot which of them reach its patch of 8 x 4 pixels.
#pragma once
#include "tiles.cuh"

namespace dgr {

struct BatchShared {
    float4 place[THREADS];  // x, y, rho, p
    float4 rest[THREADS];   // q, log2_opacity, x_slope, unused
    float4 paint[THREADS];  // red, green, blue, depth
    u32 gaussian[THREADS];
};

// A sorted list of one tile.
struct TileList {
    int view, column, row;  // of the tile
    const u64* keys;
    u32 count;
};

__device__ inline TileList tile_list(const Frame& f, u32 tile) {
    const u32 per_view = static_cast<u32>(f.tiles()), local = tile % per_view;
    const u32 first = f.tile_start[tile];
    return {static_cast<int>(tile / per_view), static_cast<int>(local % f.tiles_x()), static_cast<int>(local / f.tiles_x()),
            f.keys + first, f.tile_start[tile + 1] - first};
}

// The thread's pixel.
struct Pixel {
    int x, y;
    bool inside;
    i64 plane, at;  // H W; y W + x

    __device__ Pixel(const Frame& f, const TileList& list) {
        const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
        x = list.column * TILE + warp % 2 * PATCH_WIDTH + lane % PATCH_WIDTH;
        y = list.row * TILE + warp / 2 * PATCH_HEIGHT + lane / PATCH_WIDTH;
        inside = x < f.width && y < f.height;
        plane = static_cast<i64>(f.width) * f.height;
        at = static_cast<i64>(y) * f.width + x;
    }
};

__device__ inline Splat staged_splat(const BatchShared& shared, int i) {
    const float4 p = shared.place[i], r = shared.rest[i];
    return {p.x, p.y, p.z, p.w, r.x, r.y, r.z};
}

__device__ inline void stage(const Frame& f, const TileList& list, u32 first, BatchShared& shared) {
    const u32 i = threadIdx.x;
    if (first + i >= list.count) return;
    const u32 gaussian = static_cast<u32>(list.keys[first + i]);
    const Record r = f.records[list.view * f.count + gaussian];
    const Splat s = splat_of(r);
    shared.place[i] = make_float4(r.x, r.y, r.rho, r.p);
    shared.rest[i] = make_float4(r.q, r.log2_opacity, s.x_slope, 0.0f);
    shared.paint[i] = make_float4(r.red, r.green, r.blue, r.depth);
    shared.gaussian[i] = gaussian;
}

// Those of the 32 staged records from `first` on, of which there are `count` in all, that reach the warp's patch.
__device__ inline u32 records_in_patch(const BatchShared& shared, int first, int count, const TileList& list) {
    const int i = first + static_cast<int>(threadIdx.x % WARP), warp = threadIdx.x / WARP;
    const float x = static_cast<float>(list.column * TILE + warp % 2 * PATCH_WIDTH);
    const float y = static_cast<float>(list.row * TILE + warp / 2 * PATCH_HEIGHT);
    const bool hit = i < count && reaches(staged_splat(shared, i), x, y, x + (PATCH_WIDTH - 1), y + (PATCH_HEIGHT - 1));
    return __ballot_sync(ALL_LANES, hit);
}

// What one record does to a pixel that has not stopped.
struct Coverage {
    bool reached, stops;
    float raw, alpha, after;  // alpha before and after the limit of 0.99; transmittance behind it
    float dx, t;           // offset from the mean (math.h: Ellipse)

    __device__ Coverage(const Splat& s, const Pixel& pixel, float transmittance) {
        dx = static_cast<float>(pixel.x) - s.x;
        t = s.t(dx, static_cast<float>(pixel.y) - s.y);
        const float exponent = s.exponent(dx, t);
        raw = power_of_two(exponent);
        alpha = min(raw, MAX_ALPHA);
        after = transmittance * (1.0f - alpha);
        reached = exponent >= LOG2_MIN_ALPHA;
        stops = reached && after < MIN_TRANSMITTANCE;
    }
    __device__ bool taken() const { return reached && !stops; }
};

}  // namespace dgr
