// One tile, front to back again. With upstream gradient g, v_i = g . (color_i, depth_i) and
// S_i = sum_{j > i} w_j v_j + T_end (g . background - g_alpha), what is still to come after i:
//     dL/dalpha_i = T_i v_i - S_i / (1 - alpha_i).
#include "blocks.h"

namespace dgr {
namespace {

struct alignas(4 * LANES) BlockState {
    float t[LANES], rest[LANES], g_red[LANES], g_green[LANES], g_blue[LANES], g_depth[LANES];
};

struct Paint {
    F red, green, blue, depth;
    explicit Paint(const Record& r) : red(r.red), green(r.green), blue(r.blue), depth(r.depth) {}
};

enum Outcome { UNTOUCHED, TAKEN, LAST_PIXEL_STOPPED };

// Takes a block: adds to the sums of colour and depth, and gives q unless it is untouched.
inline Outcome unblend(BlockState& p, const Paint& paint, F exponent, F* sums, F& q) {
    const F t = load(p.t);
    const M reached = (exponent >= F(LOG2_MIN_ALPHA)) & (t > F(0.0f));
    if (!any(reached)) return UNTOUCHED;
    const F raw = exp2(exponent);
    const F alpha = min(raw, F(MAX_ALPHA));
    const F left = F(1.0f) - alpha;
    const F after = t * left;
    const M stops = reached & (after < F(MIN_TRANSMITTANCE));
    const M takes = andnot(reached, stops);
    const F weight = keep(takes, t * alpha);
    const F g_red = load(p.g_red), g_green = load(p.g_green), g_blue = load(p.g_blue), g_depth = load(p.g_depth);
    const F value = fma(g_red, paint.red, fma(g_green, paint.green, fma(g_blue, paint.blue, g_depth * paint.depth)));
    const F rest = fnma(weight, value, load(p.rest));
    store(p.rest, rest);
    const F next = select(takes, after, select(stops, -t, t));
    store(p.t, next);
    sums[RED] = fma(weight, g_red, sums[RED]);
    sums[GREEN] = fma(weight, g_green, sums[GREEN]);
    sums[BLUE] = fma(weight, g_blue, sums[BLUE]);
    sums[DEPTH] = fma(weight, g_depth, sums[DEPTH]);
    q = keep(takes & (raw <= F(MAX_ALPHA)), alpha * fma(t, value, -(rest / left)));
    return any(stops) && !any(next > F(0.0f)) ? LAST_PIXEL_STOPPED : TAKEN;
}

inline void add_geometry(F q, F dx, F dy, F* sums) {
    const F qx = q * dx, qy = q * dy;
    sums[Q] += q;
    sums[Q_X] += qx;
    sums[Q_Y] += qy;
    sums[Q_XX] = fma(qx, dx, sums[Q_XX]);
    sums[Q_XY] = fma(qx, dy, sums[Q_XY]);
    sums[Q_YY] = fma(qy, dy, sums[Q_YY]);
}

// Fills the tile's blocks, a block's row of four pixels at a time.
void read(const Scene& s, const Images& out, const Gradients& g, const TileArea& area, BlockState* state) {
    const size_t plane = static_cast<size_t>(s.width) * s.height;
    const size_t rgb = static_cast<size_t>(area.view) * 3 * plane, single = static_cast<size_t>(area.view) * plane;
    const Row none = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int y = 0; y < area.blocks_y() * BLOCK_HEIGHT; ++y)
        for (int x = 0; x < area.width; x += BLOCK_WIDTH) {
            BlockState& p = state[y / BLOCK_HEIGHT * BLOCKS_X + x / BLOCK_WIDTH];
            const int i = y % BLOCK_HEIGHT * BLOCK_WIDTH, count = y < area.height ? area.width - x : 0;
            const size_t pixel = static_cast<size_t>(area.y + y) * s.width + area.x + x;
            const auto load = [&](const float* image, size_t offset) {
                if (!image) return none;
                if (x % 16 == 0) __builtin_prefetch(image + offset + pixel + 4 * s.width);
                return load_row(image + offset + pixel, count);
            };
            const Row red = load(g.rgb, rgb), green = load(g.rgb, rgb + plane), blue = load(g.rgb, rgb + 2 * plane);
            const Row depth = load(g.depth, single), alpha = load(g.alpha, single);
            const Row rest = red * load(out.rgb, rgb) + green * load(out.rgb, rgb + plane) + blue * load(out.rgb, rgb + 2 * plane) +
                             depth * load(out.depth, single) - alpha * (1.0f - load(out.alpha, single));
            store_row(p.t + i, starting_transmittance(count), BLOCK_WIDTH);
            store_row(p.rest + i, rest, BLOCK_WIDTH);
            store_row(p.g_red + i, red, BLOCK_WIDTH);
            store_row(p.g_green + i, green, BLOCK_WIDTH);
            store_row(p.g_blue + i, blue, BLOCK_WIDTH);
            store_row(p.g_depth + i, depth, BLOCK_WIDTH);
        }
}

// Adds the visit's pixels to `sums`; returns how many blocks have their last pixel stopped by it.
inline int undraw(const Visit& visit, const Record& r, const TileArea& area, BlockState* state, F* sums) {
    constexpr bool ONE_SWEEP = LANES == 16;  // 32 registers hold what a block needs; 16 do not, and geometry comes after
    struct Share {
        F q;
        int bx, by;
    } shares[GROUP_X * GROUP_Y];
    const Splat splat(r, area);
    const Paint paint(r);
    int finished = 0, count = 0;
    for (uint64_t hits = visit.hits; hits; hits &= hits - 1) {
        const int i = __builtin_ctzll(hits), bx = visit.bx + i % GROUP_X, by = visit.by + i / GROUP_X;
        const F dx = load(PIXEL.x[bx]) - splat.x, dy = load(PIXEL.y[by]) - splat.y;
        Share& share = shares[count];
        share.bx = bx;
        share.by = by;
        const Outcome outcome = unblend(state[by * BLOCKS_X + bx], paint, splat.exponent(dx, dy), sums, share.q);
        finished += outcome == LAST_PIXEL_STOPPED;
        if (outcome == UNTOUCHED) continue;
        if (ONE_SWEEP)
            add_geometry(share.q, dx, dy, sums);
        else
            ++count;
    }
    for (const Share* share = shares; share != shares + count; ++share)
        add_geometry(share->q, load(PIXEL.x[share->bx]) - splat.x, load(PIXEL.y[share->by]) - splat.y, sums);
    return finished;
}

}  // namespace

void render_tile_backward(const Scene& s, const Images& out, const Gradients& g, Workspace& w, ThreadData& own, uint32_t tile) {
    auto* state = reinterpret_cast<BlockState*>(own.state.reserve(sizeof(BlockState) / sizeof(float) * BLOCKS_X * BLOCKS_Y));
    if (!state) {
        w.error = OUT_OF_MEMORY;
        return;
    }
    const TileArea area(s, w, tile);
    read(s, out, g, area, state);
    int live = area.blocks_x() * area.blocks_y();
    VisitList list;
    const uint32_t begin = w.tile_start[tile], end = w.tile_start[tile + 1];
    uint32_t first = begin, next = begin;  // instances before `next` have their moments
    while (first < end && live) {
        first = list.fill(w, area, first, end);
        for (const Visit* visit = list.begin(); visit != list.end() && live;) {
            const uint32_t i = visit->instance;
            for (; next < i; ++next) w.moments[w.instances[next].slot] = Moments{};
            const Instance instance = w.instances[i];
            F sums[MOMENTS];
            for (F& sum : sums) sum = F(0.0f);
            do live -= undraw(*visit, w.records[instance.record], area, state, sums);
            while (++visit != list.end() && visit->instance == i);
            sum_ten(sums, w.moments[instance.slot].sum);
            next = i + 1;
        }
    }
    for (; next < end; ++next) w.moments[w.instances[next].slot] = Moments{};
}

}  // namespace dgr
