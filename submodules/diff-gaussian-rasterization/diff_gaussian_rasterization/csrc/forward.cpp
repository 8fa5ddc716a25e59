// One tile, front to back (3DGS Eq. 3).
#include "blocks.h"

namespace dgr {
namespace {

// Transmittance, colour and depth of a block. A pixel that has stopped keeps its transmittance with the sign reversed.
struct alignas(4 * LANES) BlockState {
    float t[LANES], red[LANES], green[LANES], blue[LANES], depth[LANES];
};

struct Paint {
    F red, green, blue, depth;
    explicit Paint(const Record& r) : red(r.red), green(r.green), blue(r.blue), depth(r.depth) {}
};

// Blends a block; returns whether its last pixel stopped.
inline bool blend(BlockState& p, const Paint& paint, F exponent) {
    const F t = load(p.t);
    const M reached = (exponent >= F(LOG2_MIN_ALPHA)) & (t > F(0.0f));
    if (!any(reached)) return false;
    const F alpha = min(exp2(exponent), F(MAX_ALPHA));
    const F after = t * (F(1.0f) - alpha);
    const M stops = reached & (after < F(MIN_TRANSMITTANCE));
    const M takes = andnot(reached, stops);
    const F weight = keep(takes, t * alpha);
    store(p.red, fma(weight, paint.red, load(p.red)));
    store(p.green, fma(weight, paint.green, load(p.green)));
    store(p.blue, fma(weight, paint.blue, load(p.blue)));
    store(p.depth, fma(weight, paint.depth, load(p.depth)));
    const F next = select(takes, after, select(stops, -t, t));
    store(p.t, next);
    return any(stops) && !any(next > F(0.0f));
}

void clear(const TileArea& area, BlockState* state) {
    for (int by = 0; by < area.blocks_y(); ++by)
        for (int bx = 0; bx < area.blocks_x(); ++bx) {
            BlockState& p = state[by * BLOCKS_X + bx];
            p = BlockState{};
            for (int row = 0; row < BLOCK_HEIGHT; ++row) {
                const int count = by * BLOCK_HEIGHT + row < area.height ? area.width - bx * BLOCK_WIDTH : 0;
                store_row(p.t + row * BLOCK_WIDTH, starting_transmittance(count), BLOCK_WIDTH);
            }
        }
}

void write(const Scene& s, const Images& out, const TileArea& area, BlockState* state) {
    for (int by = 0; by < area.blocks_y(); ++by)
        for (int bx = 0; bx < area.blocks_x(); ++bx) {
            float* t = state[by * BLOCKS_X + bx].t;
            store(t, max(load(t), -load(t)));
        }
    const size_t plane = static_cast<size_t>(s.width) * s.height;
    const float* background = s.backgrounds + area.view * 3;
    float* rgb = out.rgb + area.view * 3 * plane;
    float* depth = out.depth + area.view * plane;
    float* alpha = out.alpha + area.view * plane;
    for (int y = 0; y < area.height; ++y)
        for (int x = 0; x < area.width; x += BLOCK_WIDTH) {
            const BlockState& p = state[y / BLOCK_HEIGHT * BLOCKS_X + x / BLOCK_WIDTH];
            const int i = y % BLOCK_HEIGHT * BLOCK_WIDTH, count = area.width - x;
            const size_t pixel = static_cast<size_t>(area.y + y) * s.width + area.x + x;
            if (x % 16 == 0)
                for (float* image : {rgb, rgb + plane, rgb + 2 * plane, depth, alpha})
                    __builtin_prefetch(image + pixel + 4 * s.width, 1);
            const auto row = [i](const float* of_block) { return load_row(of_block + i, BLOCK_WIDTH); };
            const Row t = row(p.t);
            store_row(rgb + pixel, row(p.red) + t * background[0], count);
            store_row(rgb + pixel + plane, row(p.green) + t * background[1], count);
            store_row(rgb + pixel + 2 * plane, row(p.blue) + t * background[2], count);
            store_row(depth + pixel, row(p.depth), count);
            store_row(alpha + pixel, 1.0f - t, count);
        }
}

// Returns how many blocks have their last pixel stopped by it.
int draw(const Visit& visit, const Record& r, const TileArea& area, BlockState* state) {
    const Splat splat(r, area);
    const Paint paint(r);
    int finished = 0;
    for (uint64_t hits = visit.hits; hits; hits &= hits - 1) {
        const int i = __builtin_ctzll(hits), bx = visit.bx + i % GROUP_X, by = visit.by + i / GROUP_X;
        BlockState& p = state[by * BLOCKS_X + bx];
                const F dx = load(PIXEL.x[bx]) - splat.x, dy = load(PIXEL.y[by]) - splat.y;
        finished += blend(p, paint, splat.exponent(dx, dy));
    }
    return finished;
}

}  // namespace

void render_tile(const Scene& s, const Images& out, Workspace& w, ThreadData& own, uint32_t tile) {
    auto* state = reinterpret_cast<BlockState*>(own.state.reserve(sizeof(BlockState) / sizeof(float) * BLOCKS_X * BLOCKS_Y));
    if (!state) {
        w.error = OUT_OF_MEMORY;
        return;
    }
    const TileArea area(s, w, tile);
    clear(area, state);
    int live = area.blocks_x() * area.blocks_y();
    VisitList list;
    const uint32_t end = w.tile_start[tile + 1];
    for (uint32_t i = w.tile_start[tile]; i < end && live;) {
        i = list.fill(w, area, i, end);
        for (const Visit& visit : list) live -= draw(visit, w.records[w.instances[visit.instance].record], area, state);
    }
    write(s, out, area, state);
}

}  // namespace dgr
