// One tile, front to back again. With upstream gradient g, v_i = g . (color_i, depth_i) and
// S_i = sum_{j > i} w_j v_j + T_end (g . background - g_alpha), what is still to come after i:
//     dL/dalpha_i = T_i v_i - S_i / (1 - alpha_i).
#include "blocks.h"

namespace dgr {
namespace {

struct alignas(LANES * sizeof(float)) BlockState {
    float t[LANES], rest[LANES], g_red[LANES], g_green[LANES], g_blue[LANES], g_depth[LANES];
};

struct Sums {
    F q{0.0f}, qx{0.0f}, qy{0.0f}, qxx{0.0f}, qxy{0.0f}, qyy{0.0f}, red{0.0f}, green{0.0f}, blue{0.0f}, depth{0.0f};
};

// Returns whether the block's last pixel stopped.
bool unblend(BlockState& p, const Splat& s, F exponent, F dx, F dy, Sums& sums) {
    const F t = load(p.t);
    const M reached = (exponent >= F(LOG2_MIN_ALPHA)) & (t > F(0.0f));
    if (!any(reached)) return false;
    const F raw = exp2(exponent);
    const F alpha = min(raw, F(MAX_ALPHA));
    const F left = F(1.0f) - alpha;
    const F after = t * left;
    const M stops = reached & (after < F(MIN_TRANSMITTANCE));
    const M takes = andnot(reached, stops);
    const F weight = keep(takes, t * alpha);
    const F g_red = load(p.g_red), g_green = load(p.g_green), g_blue = load(p.g_blue), g_depth = load(p.g_depth);
    const F value = fma(g_red, s.red, fma(g_green, s.green, fma(g_blue, s.blue, g_depth * s.depth)));
    const F rest = fnma(weight, value, load(p.rest));
    store(p.rest, rest);
    const F g_alpha = fma(t, value, -(rest / left));
    const F q = keep(takes & (raw <= F(MAX_ALPHA)), alpha * g_alpha);
    const F qx = q * dx, qy = q * dy;
    sums.q += q;
    sums.qx += qx;
    sums.qy += qy;
    sums.qxx = fma(qx, dx, sums.qxx);
    sums.qxy = fma(qx, dy, sums.qxy);
    sums.qyy = fma(qy, dy, sums.qyy);
    sums.red = fma(weight, g_red, sums.red);
    sums.green = fma(weight, g_green, sums.green);
    sums.blue = fma(weight, g_blue, sums.blue);
    sums.depth = fma(weight, g_depth, sums.depth);
    F next = select(takes, after, t);
    if (!any(stops)) {
        store(p.t, next);
        return false;
    }
    next = select(stops, -t, next);
    store(p.t, next);
    return !any(next > F(0.0f));
}

void read(const Scene& s, const Images& out, const Gradients& g, const TileArea& area, BlockState* state) {
    const size_t plane = static_cast<size_t>(s.width) * s.height;
    const size_t rgb = static_cast<size_t>(area.view) * 3 * plane, single = static_cast<size_t>(area.view) * plane;
    for (int y = 0; y < area.blocks_y() * BLOCK_HEIGHT; ++y)
        for (int x = 0; x < area.blocks_x() * BLOCK_WIDTH; ++x) {
            BlockState& p = state[y / BLOCK_HEIGHT * BLOCKS_X + x / BLOCK_WIDTH];
            const int i = y % BLOCK_HEIGHT * BLOCK_WIDTH + x % BLOCK_WIDTH;
            if (x >= area.width || y >= area.height) {
                p.t[i] = -1.0f;
                p.rest[i] = p.g_red[i] = p.g_green[i] = p.g_blue[i] = p.g_depth[i] = 0.0f;
                continue;
            }
            const size_t pixel = static_cast<size_t>(area.y + y) * s.width + area.x + x;
            p.t[i] = 1.0f;
            p.g_red[i] = g.rgb ? g.rgb[rgb + pixel] : 0.0f;
            p.g_green[i] = g.rgb ? g.rgb[rgb + plane + pixel] : 0.0f;
            p.g_blue[i] = g.rgb ? g.rgb[rgb + 2 * plane + pixel] : 0.0f;
            p.g_depth[i] = g.depth ? g.depth[single + pixel] : 0.0f;
            const float g_alpha = g.alpha ? g.alpha[single + pixel] : 0.0f;
            p.rest[i] = p.g_red[i] * out.rgb[rgb + pixel] + p.g_green[i] * out.rgb[rgb + plane + pixel] +
                        p.g_blue[i] * out.rgb[rgb + 2 * plane + pixel] + p.g_depth[i] * out.depth[single + pixel] -
                        g_alpha * (1.0f - out.alpha[single + pixel]);
        }
}

}  // namespace

void render_tile_backward(const Scene& s, const Images& out, const Gradients& g, Workspace& w, ThreadData& own, uint32_t tile) {
    auto* state = reinterpret_cast<BlockState*>(own.state.reserve(sizeof(BlockState) / sizeof(float) * BLOCKS));
    if (!state) {
        w.error = OUT_OF_MEMORY;
        return;
    }
    const TileArea area(s, w, tile);
    const LaneOffsets lanes;
    const F lane_x = load(lanes.x), lane_y = load(lanes.y);
    read(s, out, g, area, state);
    int live = area.blocks_x() * area.blocks_y();
    uint32_t i = w.tile_start[tile];
    const uint32_t end = w.tile_start[tile + 1];
    for (; i < end && live; ++i) {
        prefetch_record(w, i + AHEAD, end);
        if (i + AHEAD < end) __builtin_prefetch(&w.moments[w.instances[i + AHEAD].slot], 1);
        const Instance instance = w.instances[i];
        const Record& r = w.records[instance.record];
        const Splat splat(r, area);
        const BlockRange range(r, area);
        Sums sums;
        for (int by = range.y0; by <= range.y1; ++by) {
            const RowTerms row(splat, lane_y, by);
            for (int bx = range.x0; bx <= range.x1; ++bx) {
                const F dx = offset_x(splat, lane_x, bx);
                live -= unblend(state[by * BLOCKS_X + bx], splat, row.exponent(splat, dx), dx, row.dy, sums);
            }
        }
        w.moments[instance.slot] = {sum(sums.q),   sum(sums.qx),  sum(sums.qy),    sum(sums.qxx),  sum(sums.qxy),
                                    sum(sums.qyy), sum(sums.red), sum(sums.green), sum(sums.blue), sum(sums.depth)};
    }
    for (; i < end; ++i) w.moments[w.instances[i].slot] = Moments{};
}

}  // namespace dgr
