// The pixels of one tile in blocks of LANES = 4 x (LANES / 4), each block's numbers side by side, and which blocks a splat reaches.
#pragma once
#include "simd.h"
#include "types.h"

namespace dgr {

constexpr int BLOCK_WIDTH = 4, BLOCK_HEIGHT = LANES / BLOCK_WIDTH;         // pixels
constexpr int BLOCKS_X = TILE / BLOCK_WIDTH, BLOCKS_Y = TILE / BLOCK_HEIGHT;
constexpr int GROUP = 16;                                                  // pixels along a group of blocks
constexpr int GROUP_X = GROUP / BLOCK_WIDTH, GROUP_Y = GROUP / BLOCK_HEIGHT;  // blocks

// Pixel coordinates inside the tile, for every block column and every block row.
struct PixelTable {
    alignas(64) float x[BLOCKS_X][LANES], y[BLOCKS_Y][LANES];
    PixelTable() {
        for (int i = 0; i < LANES; ++i) {
            for (int b = 0; b < BLOCKS_X; ++b) x[b][i] = static_cast<float>(b * BLOCK_WIDTH + i % BLOCK_WIDTH);
            for (int b = 0; b < BLOCKS_Y; ++b) y[b][i] = static_cast<float>(b * BLOCK_HEIGHT + i / BLOCK_WIDTH);
        }
    }
};
inline const PixelTable PIXEL;
// Lanes as 4 columns of blocks.
alignas(64) constexpr float COLUMN[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
alignas(64) constexpr float ROW[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};

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

// Of four pixels of which the first `count` lie inside the image: a pixel outside has stopped, which a negative number means.
inline Row starting_transmittance(int count) {
    return Row{count > 0 ? 1.0f : -1.0f, count > 1 ? 1.0f : -1.0f, count > 2 ? 1.0f : -1.0f, count > 3 ? 1.0f : -1.0f};
}

// A record's numbers in every lane; its mean relative to the tile.
struct Splat {
    F a, b, c, log2_opacity, x, y;

    Splat(const Record& r, const TileArea& area)
        : a(r.a), b(r.b), c(r.c), log2_opacity(r.log2_opacity), x(r.x - static_cast<float>(area.x)),
          y(r.y - static_cast<float>(area.y)) {}

    // log2(alpha). Forward and backward share it: both must take the same pixels, so its products are fused explicitly and
    // not as the compiler likes.
    F exponent(F dx, F dy) const { return fma(fma(a, dx, b * dy), dx, fma(c * dy, dy, log2_opacity)); }
};

// One instance's blocks within a group; bit i of hits is block (bx + i % 4, by + i / 4).
struct Visit {
    uint64_t hits;
    uint32_t instance;  // position in the list
    uint16_t bx, by;
};

// Those of LANES blocks, up to column x1 and row y1, that hold a point of the ellipse alpha = 1/255. The largest exponent over
// a rectangle lies at the mean or on an edge that faces it; on an edge, where the parabola peaks or at an end. (A slope that
// is not a number, of a splat far larger than the image, falls back on an end: min and max return their second argument then.)
inline uint64_t test_blocks(const Splat& s, F x_slope, F y_slope, int bx, int by, int x1, int y1) {
    const F zero(0.0f), column = load(COLUMN), row = load(ROW);
    const F left = fma(column, F(BLOCK_WIDTH), F(static_cast<float>(bx * BLOCK_WIDTH)) - s.x);
    const F top = fma(row, F(BLOCK_HEIGHT), F(static_cast<float>(by * BLOCK_HEIGHT)) - s.y);
    const F right = left + F(BLOCK_WIDTH - 1.0f), bottom = top + F(BLOCK_HEIGHT - 1.0f);
    const F near_x = max(left, min(right, zero)), near_y = max(top, min(bottom, zero));
    const F peak_y = max(min(y_slope * near_x, bottom), top), peak_x = max(min(x_slope * near_y, right), left);
    const F largest = max(s.exponent(near_x, peak_y), s.exponent(peak_x, near_y));
    const M inside = (column <= F(static_cast<float>(x1 - bx))) & (row <= F(static_cast<float>(y1 - by)));
    return bits((largest >= F(LOG2_MIN_ALPHA - EXPONENT_SLACK)) & inside);
}

// The visits of a stretch of a tile's list. They are found for many instances before any of them is drawn: a wrongly
// predicted loop end would otherwise wait for the whole test each time.
class VisitList {
public:
    const Visit* begin() const { return visits_; }
    const Visit* end() const { return visits_ + count_; }

    // Fills the list from instance `i` on and returns the first instance that is not in it.
    uint32_t fill(const Workspace& w, const TileArea& area, uint32_t i, uint32_t end) {
        count_ = 0;
        for (; i < end && count_ + MOST <= CAPACITY; ++i) {
            if (i + AHEAD < end) __builtin_prefetch(&w.records[w.instances[i + AHEAD].record]);
            const Record& r = w.records[w.instances[i].record];
            const Splat splat(r, area);
            const F x_slope(-0.5f * r.b / r.a), y_slope(-0.5f * r.b / r.c);
            const int x0 = clamp(r.x0 - area.x) / BLOCK_WIDTH, x1 = clamp(r.x1 - area.x) / BLOCK_WIDTH;
            const int y0 = clamp(r.y0 - area.y) / BLOCK_HEIGHT, y1 = clamp(r.y1 - area.y) / BLOCK_HEIGHT;
            for (int by = y0; by <= y1; by += GROUP_Y)
                for (int bx = x0; bx <= x1; bx += GROUP_X) {
                    uint64_t hits = 0;
                    for (int row = 0; row < GROUP_Y && by + row <= y1; row += LANES / GROUP_X)
                        hits |= test_blocks(splat, x_slope, y_slope, bx, by + row, x1, y1) << row * GROUP_X;
                    visits_[count_] = {hits, i, static_cast<uint16_t>(bx), static_cast<uint16_t>(by)};
                    count_ += hits != 0;
                }
        }
        return i;
    }

private:
    static constexpr uint32_t AHEAD = 16;  // instances; a list's records lie all over memory
    static constexpr int MOST = (TILE / GROUP) * (TILE / GROUP), CAPACITY = 256;  // visits of one instance, of the list
    static int clamp(int pixel) { return pixel < 0 ? 0 : (pixel < TILE ? pixel : TILE - 1); }
    Visit visits_[CAPACITY];
    int count_ = 0;
};

}  // namespace dgr
