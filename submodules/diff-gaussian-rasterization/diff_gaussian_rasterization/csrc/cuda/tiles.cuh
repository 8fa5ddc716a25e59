// Which rectangles of pixels a splat reaches. Counting, scattering and blending must agree on it in different kernels, so the
// sums here are written with fma and product: the compiler has nothing left to fuse.
#pragma once
#include "frame.h"

namespace dgr {

struct Splat {
    float x, y, rho, p, q, log2_opacity;
    float x_slope;  // along a row alpha peaks at dx = x_slope dy, along a column at dy = rho dx

    // Across the parabola's ridge, from this offset from the mean.
    __device__ float t(float dx, float dy) const { return fma(-rho, dx, dy); }
    // log2(alpha) there.
    __device__ float exponent(float dx, float t) const {
        const float along = product(p, dx), across = product(q, t);
        return fma(-along, along, fma(-across, across, log2_opacity));
    }
};

__device__ inline Splat splat_of(const Record& r) {
    const float q_rho = product(r.q, r.rho);
    return {r.x, r.y, r.rho, r.p, r.q, r.log2_opacity, product(r.q, q_rho) / fma(r.p, r.p, product(q_rho, q_rho))};
}

// Whether the ellipse alpha = 1/255 meets the pixels [x0, x1] x [y0, y1]. The largest exponent over a rectangle lies at the
// mean or on an edge that faces it; on an edge, where the parabola peaks or at an end. (A slope that is not a number, of a
// splat far larger than the image, falls back on an end: minima and maxima drop it.)
__device__ inline bool reaches(const Splat& s, float x0, float y0, float x1, float y1) {
    const float left = x0 - s.x, right = x1 - s.x, top = y0 - s.y, bottom = y1 - s.y;
    const float near_x = max(left, min(right, 0.0f)), near_y = max(top, min(bottom, 0.0f));
    const float peak_y = max(min(product(s.rho, near_x), bottom), top);
    const float peak_x = max(min(product(s.x_slope, near_y), right), left);
    return max(s.exponent(near_x, s.t(near_x, peak_y)), s.exponent(peak_x, s.t(peak_x, near_y))) >= LOG2_MIN_ALPHA - EXPONENT_SLACK;
}

__device__ inline bool reaches_tile(const Splat& s, int column, int row) {
    const float x = static_cast<float>(column * TILE), y = static_cast<float>(row * TILE);
    return reaches(s, x, y, x + (TILE - 1), y + (TILE - 1));
}

// The tiles that a splat's bounds meet.
struct TileBox {
    int column, row, columns, rows;
    __device__ explicit TileBox(const Record& r)
        : column(r.columns & 0xffff), row(r.rows & 0xffff), columns(static_cast<int>(r.columns >> 16) - column + 1),
          rows(static_cast<int>(r.rows >> 16) - row + 1) {}
    __device__ int count() const { return columns * rows; }
};

template <class T> __device__ T broadcast(T value, int source) { return __shfl_sync(ALL_LANES, value, source); }

__device__ inline Splat broadcast(const Splat& s, int source) {
    return {broadcast(s.x, source), broadcast(s.y, source), broadcast(s.rho, source), broadcast(s.p, source),
            broadcast(s.q, source), broadcast(s.log2_opacity, source), broadcast(s.x_slope, source)};
}

// Calls visit(tile, key) for every tile of the view that the lane's splat reaches. A splat that spans many tiles is shared out
// to the whole warp, so all lanes must come here together.
template <class Visit> __device__ void for_each_tile(bool visible, const Record& r, u64 key, int tiles_x, const Visit& visit) {
    constexpr int MOST_ALONE = 8;
    const TileBox box(r);
    const int mine = visible ? box.count() : 0;
    const Splat s = splat_of(r);
    if (mine <= MOST_ALONE)
        for (int i = 0; i < mine; ++i) {
            const int column = box.column + i % box.columns, row = box.row + i / box.columns;
            if (reaches_tile(s, column, row)) visit(row * tiles_x + column, key);
        }
    const int lane = threadIdx.x % WARP;
    for (u32 large = __ballot_sync(ALL_LANES, mine > MOST_ALONE); large; large &= large - 1) {
        const int source = __ffs(large) - 1;
        const Splat shared = broadcast(s, source);
        const int column0 = broadcast(box.column, source), row0 = broadcast(box.row, source);
        const int columns = broadcast(box.columns, source), count = broadcast(mine, source);
        const u64 its_key = broadcast(key, source);
        for (int i = lane; i < count; i += WARP) {
            const int column = column0 + i % columns, row = row0 + i / columns;
            if (reaches_tile(shared, column, row)) visit(row * tiles_x + column, its_key);
        }
    }
}

}  // namespace dgr
