// Every Gaussian into every view: records, radii, and which tiles it reaches.
#include <cmath>
#include <cstring>

#include "gather.h"
#include "sh.h"

namespace dgr {
namespace {

// Largest exponent of the record over the pixels [x0, x1] x [y0, y1]: at the mean if it lies inside, else on an edge that faces it.
float largest_exponent(const Record& r, float x0, float y0, float x1, float y1) {
    const float left = x0 - r.x, right = x1 - r.x, top = y0 - r.y, bottom = y1 - r.y;
    const float dx = left > 0 ? left : (right < 0 ? right : 0);
    const float dy = top > 0 ? top : (bottom < 0 ? bottom : 0);
    if (dx == 0 && dy == 0) return r.log2_opacity;
    float best = -INFINITY;
    if (dx != 0) {
        const float y = std::fmin(std::fmax(-0.5f * r.b * dx / r.c, top), bottom);
        best = r.a * dx * dx + r.b * dx * y + r.c * y * y;
    }
    if (dy != 0) {
        const float x = std::fmin(std::fmax(-0.5f * r.b * dy / r.a, left), right);
        best = std::fmax(best, r.a * x * x + r.b * x * dy + r.c * dy * dy);
    }
    return best + r.log2_opacity;
}

void list_tiles(Record& r, uint32_t index, uint32_t first_tile, int tiles_x, ThreadData& own) {
    const int tx0 = r.x0 / TILE, tx1 = r.x1 / TILE, ty0 = r.y0 / TILE, ty1 = r.y1 / TILE;
    const size_t before = own.hits.size();
    for (int ty = ty0; ty <= ty1; ++ty)
        for (int tx = tx0; tx <= tx1; ++tx) {
            const float x = tx * TILE, y = ty * TILE;
            const bool alone = tx0 == tx1 && ty0 == ty1;
            if (!alone && largest_exponent(r, x, y, x + TILE - 1, y + TILE - 1) < LOG2_MIN_ALPHA - EXPONENT_SLACK) continue;
            const uint32_t tile = first_tile + ty * tiles_x + tx;
            own.hits.push_back({tile, index, r.depth});
            ++own.per_tile[tile];
        }
    r.slot = static_cast<uint32_t>(before);  // the thread's own count; scatter adds where the thread starts
    r.tiles = static_cast<uint32_t>(own.hits.size() - before);
}

// What one view computes for LANES Gaussians, column by column.
struct ViewLanes {
    alignas(64) float x[LANES], y[LANES], a[LANES], b[LANES], c[LANES], log2_opacity[LANES], red[LANES], green[LANES],
        blue[LANES], depth[LANES], variance_x[LANES], variance_y[LANES], radius[LANES], filter[LANES], x0[LANES],
        y0[LANES], x1[LANES], y1[LANES];
    uint32_t visible, fate_bits[FATES];
};

Vec3<F> color(const Scene& s, const Lanes& in, const Camera& camera) {
    if (s.colors) return {in.coefficient(0, 0), in.coefficient(0, 1), in.coefficient(0, 2)};
    return sh_color(s.sh_degree, direction(camera, in.position()), [&in](int k, int ch) { return in.coefficient(k, ch); });
}

void project_lanes(const Scene& s, const Camera& camera, const Lanes& in, const Sym3<F>& sigma, M finite, ViewLanes& o) {
    const Projection<F> p = project(camera, in.position(), sigma);
    const Footprint<F> f = footprint(p.cov);
    const M front = finite & (p.p.z > F(s.near_plane));
    const M proper = front & (p.p.z < F(HUGE_NUMBER)) & (f.det > F(0.0f)) & (f.det < F(HUGE_NUMBER));
    o.fate_bits[NONFINITE] = ~bits(finite);
    o.fate_bits[BEHIND] = bits(finite) & ~bits(front);
    o.fate_bits[DEGENERATE] = bits(front) & ~bits(proper);
    o.visible = bits(proper);
    store(o.x, p.x);
    store(o.y, p.y);
    store(o.depth, p.p.z);
    const Sym2<F> conic = log2_conic(f);
    store(o.a, conic.xx);
    store(o.b, conic.xy);
    store(o.c, conic.yy);
    store(o.variance_x, f.cov.xx);
    store(o.variance_y, f.cov.yy);
    store(o.radius, radius(f));
    if (s.antialiasing) store(o.filter, mip_filter(p.cov, f));
    const Vec3<F> rgb = color(s, in, camera);
    store(o.red, rgb.x);
    store(o.green, rgb.y);
    store(o.blue, rgb.z);
}

// Opacity-aware bounds: alpha falls to 1/255 where d^T Sigma^-1 d = 2 ln(255 o).
void bound_lanes(const Scene& s, const float* log2_opacity, ViewLanes& o) {
    for (int lane = 0; lane < LANES; ++lane)
        o.log2_opacity[lane] = log2_opacity[lane] + (s.antialiasing ? 0.5f * std::log2(o.filter[lane]) : 0.0f);
    const F reach = F(2.0f * LN_2) * (load(o.log2_opacity) - F(LOG2_MIN_ALPHA));
    const F reach_x = sqrt(reach * load(o.variance_x)) + F(BOUND_SLACK);
    const F reach_y = sqrt(reach * load(o.variance_y)) + F(BOUND_SLACK);
    const F x = load(o.x), y = load(o.y), zero(0.0f);
    const F last_x(static_cast<float>(s.width - 1)), last_y(static_cast<float>(s.height - 1));
    const F left = max(x - reach_x, zero), right = min(x + reach_x, last_x);
    const F top = max(y - reach_y, zero), bottom = min(y + reach_y, last_y);
    const M strong = reach >= zero;
    const M inside = strong & (right >= zero) & (left <= last_x) & (bottom >= zero) & (top <= last_y);
    const F x0 = zero - floor(zero - left), y0 = zero - floor(zero - top), x1 = floor(right), y1 = floor(bottom);
    o.fate_bits[FAINT] = o.visible & ~bits(strong);
    const uint32_t proper = o.visible & bits(strong);
    o.visible &= bits(inside & (x0 <= x1) & (y0 <= y1));
    o.fate_bits[VISIBLE] = o.visible;
    o.fate_bits[OUTSIDE] = proper & ~o.visible;
    store(o.x0, x0);
    store(o.y0, y0);
    store(o.x1, x1);
    store(o.y1, y1);
}

Record record_of(const ViewLanes& o, int lane) {
    Record r;
    r.x = o.x[lane];
    r.y = o.y[lane];
    r.a = o.a[lane];
    r.b = o.b[lane];
    r.c = o.c[lane];
    r.log2_opacity = o.log2_opacity[lane];
    r.red = o.red[lane];
    r.green = o.green[lane];
    r.blue = o.blue[lane];
    r.depth = o.depth[lane];
    r.x0 = static_cast<uint16_t>(o.x0[lane]);
    r.y0 = static_cast<uint16_t>(o.y0[lane]);
    r.x1 = static_cast<uint16_t>(o.x1[lane]);
    r.y1 = static_cast<uint16_t>(o.y1[lane]);
    return r;
}

}  // namespace

void preprocess(const Scene& s, const Images& out, Workspace& w, int thread) {
    ThreadData& own = w.threads[thread];
    const Range range = share(s.count, thread, s.threads);
    const int tiles = w.tiles_per_view();
    own.hits.clear();
    own.fates.assign(s.views * FATES, 0);
    std::memset(own.per_tile.data(), 0, sizeof(uint32_t) * tiles * s.views);
    for (int64_t first = range.begin; first < range.end; first += LANES) {
        const int lanes = static_cast<int>(range.end - first < LANES ? range.end - first : LANES);
        const Lanes in(s, first, lanes);
        const M finite = in.finite(s);
        const Shape shape = in.shape(s);
        const uint32_t present = (1u << lanes) - 1;
        alignas(64) float log2_opacity[LANES];
        for (int lane = 0; lane < LANES; ++lane) log2_opacity[lane] = std::log2(in.opacity[lane]);
        for (int64_t view = 0; view < s.views; ++view) {
            ViewLanes o;
            project_lanes(s, w.cameras[view], in, shape.sigma, finite, o);
            bound_lanes(s, log2_opacity, o);
            for (int fate = 0; fate < FATES; ++fate)
                own.fates[view * FATES + fate] += __builtin_popcount(o.fate_bits[fate] & present);
            for (int lane = 0; lane < lanes; ++lane) {
                const int64_t index = (first + lane) * s.views + view, output = view * s.count + first + lane;
                const bool visible = o.visible >> lane & 1;
                out.radii[output] = visible ? static_cast<int32_t>(std::ceil(std::fmin(o.radius[lane], 1e9f))) : 0;
                out.means2d[output * 2] = visible ? o.x[lane] : 0.0f;
                out.means2d[output * 2 + 1] = visible ? o.y[lane] : 0.0f;
                Record& r = w.records[index];
                if (visible) {
                    r = record_of(o, lane);
                    list_tiles(r, static_cast<uint32_t>(index), static_cast<uint32_t>(view * tiles), w.tiles_x, own);
                } else {
                    r.tiles = 0;
                }
            }
        }
    }
}

}  // namespace dgr
