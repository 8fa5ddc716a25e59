// One tile, front to back again. With upstream gradient g, v_i = g . (color_i, depth_i) and
// S_i = sum_{j > i} w_j v_j + T_end (g . background - g_alpha), what is still to come after i:
//     dL/dalpha_i = T_i v_i - S_i / (1 - alpha_i).
#include "strips.h"

namespace dgr {
namespace {

enum Plane { T, REST, G_RED, G_GREEN, G_BLUE, G_DEPTH, PLANES };
using State = Strip<PLANES>;

// Fills the tile's strips, four pixels at a time.
void read(const Scene& s, const Images& out, const Gradients& g, const TileArea& area, State* state) {
    const size_t plane = static_cast<size_t>(s.width) * s.height;
    const size_t rgb = static_cast<size_t>(area.view) * 3 * plane, single = static_cast<size_t>(area.view) * plane;
    const auto at = [](const float* images, size_t offset) { return images ? images + offset : nullptr; };
    const float *g_red = at(g.rgb, rgb), *g_green = at(g.rgb, rgb + plane), *g_blue = at(g.rgb, rgb + 2 * plane);
    const float *g_depth = at(g.depth, single), *g_alpha = at(g.alpha, single);
    const float *out_red = out.rgb + rgb, *out_green = out_red + plane, *out_blue = out_green + plane;
    const float *out_depth = out.depth + single, *out_alpha = out.alpha + single;
    const int64_t width = s.width;
    for (int y = 0; y < area.height + ROWS; ++y)
        for (int x = 0; x < area.width; x += STRIP) {
            State& p = state[x / STRIP];
            const int i = y * STRIP, count = y < area.height ? area.width - x : 0;
            const int64_t pixel = (area.y + y) * width + area.x + x;
            const auto load = [=](const float* image) {
                if (!image) return Row{0.0f, 0.0f, 0.0f, 0.0f};
                if (x % 16 == 0) __builtin_prefetch(image + pixel + 4 * width);
                return load_row(image + pixel, count);
            };
            const Row red = load(g_red), green = load(g_green), blue = load(g_blue), depth = load(g_depth), alpha = load(g_alpha);
            const Row rest = red * load(out_red) + green * load(out_green) + blue * load(out_blue) + depth * load(out_depth) -
                             alpha * (1.0f - load(out_alpha));
            store_row(p.plane[T] + i, starting_transmittance(count), STRIP);
            store_row(p.plane[REST] + i, rest, STRIP);
            store_row(p.plane[G_RED] + i, red, STRIP);
            store_row(p.plane[G_GREEN] + i, green, STRIP);
            store_row(p.plane[G_BLUE] + i, blue, STRIP);
            store_row(p.plane[G_DEPTH] + i, depth, STRIP);
        }
}

// The moments of one instance, the first of the visits; returns the end of its visits.
inline const int32_t* unblend(const Record& r, int instance, const int32_t* visit, const int32_t* end, const float* alphas,
                               State* state, float* moments) {
    const F zero(0.0f), x(r.x), y(r.y), rho(r.rho);
    F q_sum = zero, q_x = zero, q_t = zero, q_xx = zero, q_xt = zero, q_tt = zero;
    F red = zero, green = zero, blue = zero, depth = zero;
    for (; visit != end && instance_of(*visit) == instance; ++visit, alphas += LANES) {
        const int strip = strip_of(*visit), row = row_of(*visit);
        const auto plane = [p = &state[strip], row](Plane of) { return p->plane[of] + row * STRIP; };
        const F alpha = load(alphas);
        F t = load(plane(T));
        M takes = t > zero;
        const F left = F(1.0f) - alpha, after = t * left;
        const M stops = takes & (after < F(MIN_TRANSMITTANCE));
        if (any(stops)) {
            takes = andnot(takes, stops);
            t = select(stops, -t, t);
        }
        const F weight = keep(takes, t * alpha);
        store(plane(T), select(takes, after, t));
        const F g_red = load(plane(G_RED)), g_green = load(plane(G_GREEN)), g_blue = load(plane(G_BLUE));
        const F g_depth = load(plane(G_DEPTH));
        const F value = fma(g_red, F(r.red), fma(g_green, F(r.green), fma(g_blue, F(r.blue), g_depth * F(r.depth))));
        const F rest = fnma(weight, value, load(plane(REST)));
        store(plane(REST), rest);
        red = fma(weight, g_red, red);
        green = fma(weight, g_green, green);
        blue = fma(weight, g_blue, blue);
        depth = fma(weight, g_depth, depth);
        const F dx = load(PIXEL.x[strip]) - x, dt = fnma(rho, dx, load(PIXEL.y + row * STRIP) - y);
        const F q = keep(takes & (alpha < F(MAX_ALPHA)), alpha * fnma(rest, reciprocal(left), t * value));
        const F qx = q * dx, qt = q * dt;
        q_sum += q;
        q_x += qx;
        q_t += qt;
        q_xx = fma(qx, dx, q_xx);
        q_xt = fma(qx, dt, q_xt);
        q_tt = fma(qt, dt, q_tt);
    }
    const F sums[MOMENTS] = {q_sum, q_x, q_t, q_xx, q_xt, q_tt, red, green, blue, depth};
    sum_ten(sums, moments);
    return visit;
}

}  // namespace

void render_tile_backward(const Scene& s, const Images& out, const Gradients& g, Workspace& w, ThreadData& own, uint32_t tile) {
    const uint32_t first = w.tile_start[tile], count = w.tile_start[tile + 1] - first;
    if (count == 0) return;
    auto* state = reinterpret_cast<State*>(own.state.reserve(sizeof(State) / sizeof(float) * STRIPS));
    if (!state) {
        w.error = OUT_OF_MEMORY;
        return;
    }
    const TileArea area(s, w, tile);
    read(s, out, g, area, state);
    const Record* instances = w.instances.data() + first;
    Moments* moments = w.moments.data() + first;
    read_through(instances, count);
    std::memset(moments, 0, count * sizeof(Moments));  // what no visit reaches stays so
    const TileVisits visits = w.tile_visits[tile];
    const ThreadData& drawer = w.threads[visits.thread];
    const int32_t* visit = drawer.visits.data() + visits.visit;
    const uint32_t* order = w.order.data() + first;
    Workbench bench;
    for (size_t i = visits.stretch; i < visits.last_stretch; ++i) {
        const Stretch stretch = drawer.stretches.data()[i];
        for (uint32_t k = 0; k < stretch.instances; ++k) bench.records[k] = instances[order[k]];
        const int32_t* const begin = visit;
        const int32_t* const end = begin + stretch.visits;
        list_alphas(bench.records, begin, end, bench.alphas);
        for (uint32_t k = 0; k < stretch.instances; ++k) {
            const float* alphas = bench.alphas + (visit - begin) * LANES;
            visit = unblend(bench.records[k], static_cast<int>(k), visit, end, alphas, state, moments[order[k]].sum);
        }
        order += stretch.instances;
    }
}

}  // namespace dgr
