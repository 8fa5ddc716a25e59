// The pixels of one tile in blocks of LANES = 4 x (LANES / 4), each block's numbers side by side.
#pragma once
#include "simd.h"
#include "types.h"

namespace dgr {

constexpr int BLOCK_WIDTH = 4;
constexpr int BLOCK_HEIGHT = LANES / BLOCK_WIDTH;
constexpr int BLOCKS_X = TILE / BLOCK_WIDTH;
constexpr int BLOCKS_Y = TILE / BLOCK_HEIGHT;
constexpr int BLOCKS = BLOCKS_X * BLOCKS_Y;

struct LaneOffsets {
    alignas(64) float x[LANES], y[LANES];
    LaneOffsets() {
        for (int i = 0; i < LANES; ++i) {
            x[i] = static_cast<float>(i % BLOCK_WIDTH);
            y[i] = static_cast<float>(i / BLOCK_WIDTH);
        }
    }
};

struct TileArea {
    int64_t view;
    int x, y, width, height;  // first pixel; size inside the image

    TileArea(const Scene& s, const Workspace& w, uint32_t tile) {
        const uint32_t per_view = static_cast<uint32_t>(w.tiles_per_view());
        view = tile / per_view;
        const int local = static_cast<int>(tile % per_view);
        x = local % w.tiles_x * TILE;
        y = local / w.tiles_x * TILE;
        width = s.width - x < TILE ? s.width - x : TILE;
        height = s.height - y < TILE ? s.height - y : TILE;
    }
    int blocks_x() const { return (width + BLOCK_WIDTH - 1) / BLOCK_WIDTH; }
    int blocks_y() const { return (height + BLOCK_HEIGHT - 1) / BLOCK_HEIGHT; }
};

constexpr uint32_t AHEAD = 12;  // instances; a list visits records all over memory

// Always inlined: GCC takes a function that only prefetches for one without effect and drops the call.
__attribute__((always_inline)) inline void prefetch_record(const Workspace& w, uint32_t i, uint32_t end) {
    if (i < end) __builtin_prefetch(&w.records[w.instances[i].record]);
}

// The blocks of a tile that a record's box meets, inclusive.
struct BlockRange {
    int x0, x1, y0, y1;

    BlockRange(const Record& r, const TileArea& area) {
        const int left = r.x0 - area.x, right = r.x1 - area.x, top = r.y0 - area.y, bottom = r.y1 - area.y;
        x0 = (left > 0 ? left : 0) / BLOCK_WIDTH;
        y0 = (top > 0 ? top : 0) / BLOCK_HEIGHT;
        x1 = (right < TILE ? right : TILE - 1) / BLOCK_WIDTH;
        y1 = (bottom < TILE ? bottom : TILE - 1) / BLOCK_HEIGHT;
    }
};

// A record's numbers in every lane, and its exponent over a block. Forward and backward share it: both must take the same
// pixels, so the products here are fused explicitly and not as the compiler likes.
struct Splat {
    F a, b, c, log2_opacity, red, green, blue, depth;
    float x, y;

    Splat(const Record& r, const TileArea& area)
        : a(r.a), b(r.b), c(r.c), log2_opacity(r.log2_opacity), red(r.red), green(r.green), blue(r.blue), depth(r.depth),
          x(r.x - static_cast<float>(area.x)), y(r.y - static_cast<float>(area.y)) {}
};

struct RowTerms {
    F dy, b_dy, constant;

    RowTerms(const Splat& s, F lane_y, int by)
        : dy(lane_y + F(static_cast<float>(by * BLOCK_HEIGHT) - s.y)), b_dy(s.b * dy) {
        constant = fma(s.c * dy, dy, s.log2_opacity);
    }
    F exponent(const Splat& s, F dx) const { return fma(fma(s.a, dx, b_dy), dx, constant); }
};

inline F offset_x(const Splat& s, F lane_x, int bx) { return lane_x + F(static_cast<float>(bx * BLOCK_WIDTH) - s.x); }

}  // namespace dgr
