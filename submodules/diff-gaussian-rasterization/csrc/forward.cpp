// One tile, front to back (3DGS Eq. 3).
#include <cmath>

#include "blocks.h"

namespace dgr {
namespace {

// Transmittance, colour and depth of a block. A pixel that has stopped keeps its transmittance with the sign reversed.
struct alignas(LANES * sizeof(float)) BlockState {
    float t[LANES], red[LANES], green[LANES], blue[LANES], depth[LANES];
};

// Returns whether the block's last pixel stopped.
bool blend(BlockState& p, const Splat& s, F exponent) {
    const F t = load(p.t);
    const M reached = (exponent >= F(LOG2_MIN_ALPHA)) & (t > F(0.0f));
    if (!any(reached)) return false;
    const F alpha = min(exp2(exponent), F(MAX_ALPHA));
    const F after = t * (F(1.0f) - alpha);
    const M stops = reached & (after < F(MIN_TRANSMITTANCE));
    const M takes = andnot(reached, stops);
    const F weight = keep(takes, t * alpha);
    store(p.red, fma(weight, s.red, load(p.red)));
    store(p.green, fma(weight, s.green, load(p.green)));
    store(p.blue, fma(weight, s.blue, load(p.blue)));
    store(p.depth, fma(weight, s.depth, load(p.depth)));
    F next = select(takes, after, t);
    if (!any(stops)) {
        store(p.t, next);
        return false;
    }
    next = select(stops, -t, next);
    store(p.t, next);
    return !any(next > F(0.0f));
}

void clear(const TileArea& area, BlockState* state) {
    alignas(64) float t[LANES];
    for (int by = 0; by < area.blocks_y(); ++by)
        for (int bx = 0; bx < area.blocks_x(); ++bx) {
            for (int i = 0; i < LANES; ++i) {
                const int x = bx * BLOCK_WIDTH + i % BLOCK_WIDTH, y = by * BLOCK_HEIGHT + i / BLOCK_WIDTH;
                t[i] = x < area.width && y < area.height ? 1.0f : -1.0f;  // pixels outside the image have stopped
            }
            BlockState& p = state[by * BLOCKS_X + bx];
            store(p.t, load(t));
            store(p.red, F(0.0f));
            store(p.green, F(0.0f));
            store(p.blue, F(0.0f));
            store(p.depth, F(0.0f));
        }
}

void write(const Scene& s, const Images& out, const TileArea& area, const BlockState* state) {
    const size_t plane = static_cast<size_t>(s.width) * s.height;
    const float* background = s.backgrounds + area.view * 3;
    float* rgb = out.rgb + area.view * 3 * plane;
    float* depth = out.depth + area.view * plane;
    float* alpha = out.alpha + area.view * plane;
    for (int y = 0; y < area.height; ++y)
        for (int x = 0; x < area.width; ++x) {
            const BlockState& p = state[y / BLOCK_HEIGHT * BLOCKS_X + x / BLOCK_WIDTH];
            const int i = y % BLOCK_HEIGHT * BLOCK_WIDTH + x % BLOCK_WIDTH;
            const size_t pixel = static_cast<size_t>(area.y + y) * s.width + area.x + x;
            const float t = std::fabs(p.t[i]);
            rgb[pixel] = p.red[i] + t * background[0];
            rgb[pixel + plane] = p.green[i] + t * background[1];
            rgb[pixel + 2 * plane] = p.blue[i] + t * background[2];
            depth[pixel] = p.depth[i];
            alpha[pixel] = 1.0f - t;
        }
}

}  // namespace

void render_tile(const Scene& s, const Images& out, Workspace& w, ThreadData& own, uint32_t tile) {
    auto* state = reinterpret_cast<BlockState*>(own.state.reserve(sizeof(BlockState) / sizeof(float) * BLOCKS));
    if (!state) {
        w.error = OUT_OF_MEMORY;
        return;
    }
    const TileArea area(s, w, tile);
    const LaneOffsets lanes;
    const F lane_x = load(lanes.x), lane_y = load(lanes.y);
    clear(area, state);
    int live = area.blocks_x() * area.blocks_y();
    const uint32_t end = w.tile_start[tile + 1];
    for (uint32_t i = w.tile_start[tile]; i < end && live; ++i) {
        prefetch_record(w, i + AHEAD, end);
        const Record& r = w.records[w.instances[i].record];
        const Splat splat(r, area);
        const BlockRange range(r, area);
        for (int by = range.y0; by <= range.y1; ++by) {
            const RowTerms row(splat, lane_y, by);
            for (int bx = range.x0; bx <= range.x1; ++bx)
                live -= blend(state[by * BLOCKS_X + bx], splat, row.exponent(splat, offset_x(splat, lane_x, bx)));
        }
    }
    write(s, out, area, state);
}

}  // namespace dgr
