// Every Gaussian into every view: records, radii, and which tiles it reaches.
#include <cmath>
#include <cstring>

#include "gather.h"
#include "sh.h"
#include "strips.h"

namespace dgr {
namespace {

// What one view makes of LANES Gaussians: the fields of their records in Record's order, and masks of lanes.
struct ViewLanes {
    F field[RECORD_FIELDS], x0, y0, x1, y1, radius;
    uint32_t fates[FATES];
};

Vec3<F> color(const Scene& s, const Lanes& in, const Camera& camera) {
    if (s.colors) return {in.coefficient(0, 0), in.coefficient(0, 1), in.coefficient(0, 2)};
    return sh_color(s.sh_degree, direction(camera, in.position()), [&in](int k, int ch) { return in.coefficient(k, ch); });
}

ViewLanes project_lanes(const Scene& s, const Camera& camera, const Lanes& in, const Shape& shape, M finite,
                        F log2_own_opacity) {
    const Projection<F> p = project(camera, in.position(), shape.sigma);
    const Ellipse<F> e = shape.ellipse(s, p);
    const Vec3<F> rgb = color(s, in, camera);
    const F zero(0.0f), huge(HUGE_NUMBER);
    const F opacity = s.antialiasing ? fma(F(0.5f), log2(mip_filter(e)), log2_own_opacity) : log2_own_opacity;
    // Bounds where alpha falls to 1/255, d^T Sigma'^-1 d = 2 ln(255 o).
    const F reach = F(2.0f * LN_2) * (opacity - F(LOG2_MIN_ALPHA));
    const F reach_x = sqrt(reach * e.cov.xx) + F(BOUND_SLACK), reach_y = sqrt(reach * e.cov.yy) + F(BOUND_SLACK);
    const F last_x(static_cast<float>(s.width - 1)), last_y(static_cast<float>(s.height - 1));
    const F left = p.x - reach_x, right = p.x + reach_x, above = p.y - reach_y, below = p.y + reach_y;
    const F x0 = ceil(max(left, zero)), x1 = floor(min(right, last_x));
    const F y0 = ceil(max(above, zero)), y1 = floor(min(below, last_y));
    // The ellipse as Record describes it, wider by a hair so that rounding at its tips loses nothing.
    const F narrow = e.det / e.cov.xx, top = e.cov.xy * sqrt(reach / e.cov.yy);
    const F height2 = reach * narrow * F(1.0f + 3e-4f), bend = narrow / e.cov.xx;

    const M front = finite & (p.p.z > F(s.near_plane));
    const M colored = (rgb.x <= huge) & (rgb.y <= huge) & (rgb.z <= huge);  // finite harmonics may add up to an infinite one
    const M sound = front & (p.p.z < F(MAX_DEPTH)) & proper(e) & colored;
    const M strong = sound & (reach >= zero);
    // Of these, not of what is clamped: where one is not a number nothing may be drawn, and clamping would hide it.
    const M inside = (left <= last_x) & (right >= zero) & (above <= last_y) & (below >= zero);
    const M visible = strong & inside & (x0 <= x1) & (y0 <= y1);
    const uint32_t b[] = {bits(finite), bits(front), bits(sound), bits(strong), bits(visible)};
    return {{p.x, p.y, e.rho, e.p, e.q, opacity, rgb.x, rgb.y, rgb.z, p.p.z, top, height2, bend, x0, x1, zero},
            x0,
            y0,
            x1,
            y1,
            radius(e),
            {b[4], ~b[0], b[0] & ~b[1], b[1] & ~b[2], b[2] & ~b[3], b[3] & ~b[4]}};
}

// The tiles that the bounds of each lane touch: columns x0 .. x1 and rows y0 .. y1.
struct TileBounds {
    alignas(64) int32_t x0[LANES], x1[LANES], y0[LANES], y1[LANES];

    explicit TileBounds(const ViewLanes& o) {
        store_integers(x0, o.x0 * F(1.0f / TILE_WIDTH));
        store_integers(x1, o.x1 * F(1.0f / TILE_WIDTH));
        store_integers(y0, o.y0 * F(1.0f / TILE_HEIGHT));
        store_integers(y1, o.y1 * F(1.0f / TILE_HEIGHT));
    }
};

// Calls list(x, y) for the tiles that a record reaches.
template <class List> void visit_tiles(const Record& r, const TileBounds& tiles, int lane, const List& list) {
    const int x0 = tiles.x0[lane], x1 = tiles.x1[lane], y0 = tiles.y0[lane], y1 = tiles.y1[lane];
    if (x0 == x1 || y0 == y1) {  // its bounds are tight: it reaches them all
        for (int y = y0; y <= y1; ++y)
            for (int x = x0; x <= x1; ++x) list(x, y);
        return;
    }
    alignas(64) int32_t first[LANES], last[LANES];
    for (int x = x0; x <= x1; ++x) {
        const int column = (x - x0) % LANES;
        if (column == 0) {
            const RowSpan rows = row_span(r, (F(static_cast<float>(x)) + load(LANE_NUMBERS)) * F(TILE_WIDTH), TILE_WIDTH);
            const F above(static_cast<float>(y0 * TILE_HEIGHT)), below(static_cast<float>(y1 * TILE_HEIGHT + TILE_HEIGHT));
            // Limited on both sides: an integer could not hold the rows of a span that is far off.
            store_integers(first, min(max(rows.first, above), below));
            store_integers(last, max(min(rows.last, below - F(1.0f)), above - F(1.0f)));
        }
        if (first[column] > last[column]) continue;
        for (int y = first[column] / TILE_HEIGHT; y <= last[column] / TILE_HEIGHT; ++y) list(x, y);
    }
}

// Radii and means of the lanes; 0 where not visible.
void write_outputs(const Scene& s, const Images& out, const ViewLanes& o, int64_t view, int64_t first, int lanes) {
    const M visible = lanes_of(o.fates[VISIBLE]);
    alignas(64) int32_t radii[LANES];
    alignas(64) float means[2 * LANES];
    store_integers(radii, keep(visible, ceil(min(o.radius, F(1e9f)))));
    const F x = keep(visible, o.field[0]), y = keep(visible, o.field[1]);
    store(means, interleave_low(x, y));
    store(means + LANES, interleave_high(x, y));
    std::memcpy(out.radii + view * s.count + first, radii, lanes * sizeof(int32_t));
    std::memcpy(out.means2d + (view * s.count + first) * 2, means, lanes * 2 * sizeof(float));
}

void write_records(const ViewLanes& o, Record* records) {
    for (int part = 0; part < RECORD_FIELDS; part += LANES) {
        F rows[LANES];
        for (int i = 0; i < LANES; ++i) rows[i] = o.field[part + i];
        transpose(rows);
        for (int lane = 0; lane < LANES; ++lane) store(reinterpret_cast<float*>(records + lane) + part, rows[lane]);
    }
}

}  // namespace

void preprocess(const Scene& s, const Images& out, Workspace& w, Part& own) {
    const int tiles = w.tiles_per_view();
    own.hits.clear();
    own.fates.assign(s.views * FATES, 0);
    std::memset(own.per_tile.data(), 0, sizeof(uint32_t) * tiles * s.views);
    for (int64_t first = own.begin; first < own.end; first += LANES) {
        const int lanes = static_cast<int>(own.end - first < LANES ? own.end - first : LANES);
        const uint32_t present = (1u << lanes) - 1;
        const Lanes in(s, first, lanes);
        const M finite = in.finite(s);
        const Shape shape = in.shape(s);
        const F log2_opacity = log2(column(in.opacity, 0));
        w.first_slot[first / LANES] = static_cast<uint32_t>(own.hits.size());  // among the part's; scatter adds the others'
        for (int64_t view = 0; view < s.views; ++view) {
            const ViewLanes o = project_lanes(s, w.cameras[view], in, shape, finite, log2_opacity);
            for (int fate = 0; fate < FATES; ++fate)
                own.fates[view * FATES + fate] += __builtin_popcount(o.fates[fate] & present);
            write_outputs(s, out, o, view, first, lanes);
            const int64_t index = first * s.views + view * LANES;
            Record* records = &w.records[index];
            uint32_t* reached = &w.reached[index];
            write_records(o, records);
            const TileBounds bounds(o);
            const uint32_t visible = o.fates[VISIBLE] & present;
            Hit* hit = own.hits.room(static_cast<size_t>(LANES) * tiles);
            if (!hit) {
                w.error = OUT_OF_MEMORY;
                return;
            }
            for (int lane = 0; lane < LANES; ++lane) {
                const Hit* const begin = hit;
                const auto list = [&](int x, int y) {
                    const auto tile = static_cast<uint32_t>(view * tiles + y * w.tiles_x + x);
                    hit->tile = tile;
                    hit->record = static_cast<uint32_t>(index + lane);
                    ++hit;
                    ++own.per_tile[tile];
                };
                if (visible >> lane & 1) visit_tiles(records[lane], bounds, lane, list);
                reached[lane] = static_cast<uint32_t>(hit - begin);
            }
            own.hits.end_at(hit);
        }
    }
}

}  // namespace dgr
