// One tile, front to back (3DGS Eq. 3).
#include "strips.h"

namespace dgr {
namespace {

// A pixel that has stopped keeps its transmittance with the sign reversed.
enum Plane { T, RED_SUM, GREEN_SUM, BLUE_SUM, DEPTH_SUM, PLANES };
using State = Strip<PLANES>;

void clear(const TileArea& area, State* state) {
    for (int x = 0; x < area.width; x += STRIP, ++state) {
        std::memset(state, 0, sizeof *state);
        for (int row = 0; row < STRIP_ROWS; ++row)
            store_row(state->plane[T] + row * STRIP, starting_transmittance(row < area.height ? area.width - x : 0), STRIP);
    }
}

void write(const Scene& s, const Images& out, const TileArea& area, const State* state) {
    const size_t plane = static_cast<size_t>(s.width) * s.height;
    const float* background = s.backgrounds + area.view * 3;
    float* rgb = out.rgb + area.view * 3 * plane;
    float* depth = out.depth + area.view * plane;
    float* alpha = out.alpha + area.view * plane;
    for (int y = 0; y < area.height; ++y)
        for (int x = 0; x < area.width; x += STRIP) {
            const State& p = state[x / STRIP];
            const int count = area.width - x;
            const size_t pixel = static_cast<size_t>(area.y + y) * s.width + area.x + x;
            if (x % 16 == 0)
                for (float* image : {rgb, rgb + plane, rgb + 2 * plane, depth, alpha})
                    __builtin_prefetch(image + pixel + 4 * s.width, 1);
            const auto row = [&p, y](Plane of) { return load_row(p.plane[of] + y * STRIP, STRIP); };
            Row t = row(T);
            t = t < 0.0f ? -t : t;
            store_row(rgb + pixel, row(RED_SUM) + t * background[0], count);
            store_row(rgb + pixel + plane, row(GREEN_SUM) + t * background[1], count);
            store_row(rgb + pixel + 2 * plane, row(BLUE_SUM) + t * background[2], count);
            store_row(depth + pixel, row(DEPTH_SUM), count);
            store_row(alpha + pixel, 1.0f - t, count);
        }
}

// Keeps the visits with a pixel that has not stopped; returns their end.
int32_t* drop_stopped(int32_t* visit, const int32_t* end, const State* state) {
    int32_t* kept = visit;
    for (; visit != end; ++visit) {
        *kept = *visit;
        kept += any(load(state[strip_of(*visit)].plane[T] + row_of(*visit) * STRIP) > F(0.0f));
    }
    return kept;
}

// Blends the visits of a stretch; returns how many pixels stop.
int blend(const Workbench& bench, const int32_t* end, State* state) {
    int stopped = 0;
    const float* alphas = bench.alphas;
    for (const int32_t* visit = bench.visits; visit != end; ++visit, alphas += LANES) {
        const Record& r = bench.records[instance_of(*visit)];
        const int row = row_of(*visit);
        const auto plane = [p = &state[strip_of(*visit)], row](Plane of) { return p->plane[of] + row * STRIP; };
        const F alpha = load(alphas);
        F t = load(plane(T));
        M takes = t > F(0.0f);
        const F after = t * (F(1.0f) - alpha);
        const M stops = takes & (after < F(MIN_TRANSMITTANCE));
        if (any(stops)) {
            takes = andnot(takes, stops);
            t = select(stops, -t, t);
            stopped += __builtin_popcount(bits(stops));
        }
        const F weight = keep(takes, t * alpha);
        store(plane(T), select(takes, after, t));
        store(plane(RED_SUM), fma(weight, F(r.red), load(plane(RED_SUM))));
        store(plane(GREEN_SUM), fma(weight, F(r.green), load(plane(GREEN_SUM))));
        store(plane(BLUE_SUM), fma(weight, F(r.blue), load(plane(BLUE_SUM))));
        store(plane(DEPTH_SUM), fma(weight, F(r.depth), load(plane(DEPTH_SUM))));
    }
    return stopped;
}

// For backward; false without memory.
bool remember(ThreadData& own, uint32_t instances, const int32_t* visits, const int32_t* end) {
    const size_t count = static_cast<size_t>(end - visits);
    Stretch* stretch = own.stretches.room(1);
    int32_t* stored = own.visits.room(count);
    if (!stretch || !stored) return false;
    *stretch = {instances, static_cast<uint32_t>(count)};
    std::memcpy(stored, visits, count * sizeof(int32_t));
    own.stretches.end_at(stretch + 1);
    own.visits.end_at(stored + count);
    return true;
}

}  // namespace

void render_tile(const Scene& s, const Images& out, Workspace& w, ThreadData& own, uint32_t tile) {
    auto* state = reinterpret_cast<State*>(own.state.reserve(sizeof(State) / sizeof(float) * STRIPS));
    if (!state) {
        w.error = OUT_OF_MEMORY;
        return;
    }
    const TileArea area(s, w, tile);
    clear(area, state);
    int live = area.width * area.height;
    Workbench bench;
    const Record* instances = w.instances.data() + w.tile_start[tile];
    const uint32_t end = w.tile_start[tile + 1];
    for (uint32_t first = w.tile_start[tile]; first < end && live;) {
        uint32_t count = 0;
        int32_t* strip = bench.strips;
        for (; first + count < end && count < MOST_INSTANCES && strip < bench.strips + ENOUGH_STRIPS; ++count) {
            const Record& r = bench.records[count] = instances[w.order[first + count]];
            strip = list_strips(r, static_cast<int>(count), area, strip);
        }
        int32_t* last = list_visits(bench.strips, strip, bench.visits);
        if (8 * live < 7 * area.width * area.height) last = drop_stopped(bench.visits, last, state);
        list_alphas(bench.records, bench.visits, last, bench.alphas);
        live -= blend(bench, last, state);
        if (!remember(own, count, bench.visits, last)) {
            w.error = OUT_OF_MEMORY;
            return;
        }
        first += count;
    }
    write(s, out, area, state);
}

}  // namespace dgr
