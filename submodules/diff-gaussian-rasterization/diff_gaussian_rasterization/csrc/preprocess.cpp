// Every Gaussian into every view: records, radii, and which tiles it reaches.
#include <cmath>
#include <cstring>

#include "gather.h"
#include "sh.h"

namespace dgr {
namespace {

// Bounds are widened by this many pixels, so that rounding cannot drop a pixel that the exact test would take.
constexpr float BOUND_SLACK = 1e-2f;


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
    uint32_t visible;
};

Vec3<F> color(const Scene& s, const Lanes& in, const Camera& camera, Vec3<F> mean) {
    if (s.colors) return {column(in.color, 0), column(in.color, 1), column(in.color, 2)};
    F basis[MAX_COEFFICIENTS];
    const Vec3<F> d{mean.x - F(camera.centre[0]), mean.y - F(camera.centre[1]), mean.z - F(camera.centre[2])};
    const F inv = F(1.0f) / sqrt(dot(d, d));
    sh_basis(s.sh_degree, Vec3<F>{d.x * inv, d.y * inv, d.z * inv}, basis);
    F sum[3] = {F(0.5f), F(0.5f), F(0.5f)};
    for (int k = 0; k < in.used_coefficients; ++k)
        for (int ch = 0; ch < 3; ++ch) sum[ch] = fma(basis[k], column(in.color, k * 3 + ch), sum[ch]);
    return {max(sum[0], F(0.0f)), max(sum[1], F(0.0f)), max(sum[2], F(0.0f))};
}

void project_lanes(const Scene& s, const Camera& camera, const Lanes& in, const Sym3<F>& sigma, M finite, ViewLanes& o) {
    const Vec3<F> mean = in.position();
    const Projection<F> p = project(camera, mean, sigma);
    const F xx = p.cov.xx + F(DILATION), yy = p.cov.yy + F(DILATION), xy = p.cov.xy;
    const F det = xx * yy - xy * xy, huge(3e38f);
    o.visible = bits(finite & (p.p.z > F(s.near_plane)) & (det > F(0.0f)) & (det < huge) & (p.p.z < huge));
    const F inv = F(1.0f) / det;
    store(o.x, p.x);
    store(o.y, p.y);
    store(o.depth, p.p.z);
    store(o.a, F(-0.5f * LOG2_E) * yy * inv);
    store(o.b, F(LOG2_E) * xy * inv);
    store(o.c, F(-0.5f * LOG2_E) * xx * inv);
    store(o.variance_x, xx);
    store(o.variance_y, yy);
    const F middle = F(0.5f) * (xx + yy);
    store(o.radius, F(3.0f) * sqrt(middle + sqrt(max(middle * middle - det, F(0.0f)))));
    if (s.antialiasing) store(o.filter, max((p.cov.xx * p.cov.yy - xy * xy) * inv, F(0.0f)));
    const Vec3<F> rgb = color(s, in, camera, mean);
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
    const M inside = (reach >= zero) & (right >= zero) & (left <= last_x) & (bottom >= zero) & (top <= last_y);
    const F x0 = zero - floor(zero - left), y0 = zero - floor(zero - top), x1 = floor(right), y1 = floor(bottom);
    o.visible &= bits(inside & (x0 <= x1) & (y0 <= y1));
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
    own.nonfinite = 0;
    std::memset(own.per_tile.data(), 0, sizeof(uint32_t) * tiles * s.views);
    for (int64_t first = range.begin; first < range.end; first += LANES) {
        const int lanes = static_cast<int>(range.end - first < LANES ? range.end - first : LANES);
        const Lanes in(s, first, lanes);
        const M finite = in.finite(s);
        const Shape shape = in.shape(s);
        const uint32_t finite_bits = bits(finite);
        alignas(64) float log2_opacity[LANES];
        for (int lane = 0; lane < LANES; ++lane) log2_opacity[lane] = std::log2(in.opacity[lane]);
        for (int lane = 0; lane < lanes; ++lane) own.nonfinite += !(finite_bits >> lane & 1);
        for (int64_t view = 0; view < s.views; ++view) {
            ViewLanes o;
            project_lanes(s, w.cameras[view], in, shape.sigma, finite, o);
            bound_lanes(s, log2_opacity, o);
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
