// From the moments of every Gaussian in every view to the gradients of its parameters.
#include <cstring>

#include "gather.h"
#include "sh.h"

namespace dgr {
namespace {

struct ParameterGradients {
    Vec3<F> mean{F(0.0f), F(0.0f), F(0.0f)};
    Sym3<F> sigma{F(0.0f), F(0.0f), F(0.0f), F(0.0f), F(0.0f), F(0.0f)};
    F opacity{0.0f};
    F color[3 * MAX_COEFFICIENTS];
};

// Sums each Gaussian's instances in the order of its slots; fills column c of the lanes. Returns whether any lane is visible.
bool gather_moments(const Scene& s, const Workspace& w, int64_t first, int lanes, int64_t view, float* m, float* positive) {
    std::memset(m, 0, sizeof(float) * MOMENTS * LANES);
    std::memset(positive, 0, sizeof(float) * 3 * LANES);
    bool some = false;
    for (int lane = 0; lane < lanes; ++lane) {
        const Record& r = w.records[(first + lane) * s.views + view];
        if (!r.tiles) continue;
        some = true;
        positive[lane] = r.red;
        positive[LANES + lane] = r.green;
        positive[2 * LANES + lane] = r.blue;
        for (uint32_t i = 0; i < r.tiles; ++i) {
            const float* sum = w.moments[r.slot + i].sum;
            for (int c = 0; c < MOMENTS; ++c) m[c * LANES + lane] += sum[c];
        }
    }
    return some;
}

// Colour: straight through, or through the harmonics and their direction; a clamped channel passes nothing.
void color_backward(const Scene& s, const Lanes& in, const Camera& camera, const float* m, const float* positive,
                    ParameterGradients& g) {
    F g_rgb[3] = {column(m, RED), column(m, GREEN), column(m, BLUE)};
    if (s.colors) {
        for (int ch = 0; ch < 3; ++ch) g.color[ch] += g_rgb[ch];
        return;
    }
    for (int ch = 0; ch < 3; ++ch) g_rgb[ch] = keep(column(positive, ch) > F(0.0f), g_rgb[ch]);
    const auto sh = [&in](int k, int ch) { return in.coefficient(k, ch); };
    sh_color_backward(s.sh_degree, direction(camera, in.position()), sh, g_rgb, g.color, g.mean);
}

void geometry_backward(const Scene& s, const Camera& camera, const Lanes& in, const Sym3<F>& sigma, const float* m,
                       ParameterGradients& g, F& g_x, F& g_y) {
    F moments[MOMENTS];
    for (int k = 0; k < MOMENTS; ++k) moments[k] = column(m, k);
    const Projection<F> p = project(camera, in.position(), sigma);
    const SplatGradient<F> splat = footprint_backward(footprint(p.cov), p.cov, moments, s.antialiasing);
    g.opacity += moments[Q] / column(in.opacity, 0);
    project_backward(camera, p, sigma, splat.x, splat.y, moments[DEPTH], splat.cov, g.mean, g.sigma);
    g_x = splat.x;
    g_y = splat.y;
}

// Writes rows of C numbers for the lanes that exist.
void scatter_rows(float* dst, int stride, int columns, int64_t first, int lanes, const F* values) {
    alignas(64) float buffer[3 * MAX_COEFFICIENTS * LANES];
    for (int c = 0; c < columns; ++c) store(buffer + c * LANES, values[c]);
    for (int lane = 0; lane < lanes; ++lane) {
        float* row = dst + (first + lane) * stride;
        for (int c = 0; c < columns; ++c) row[c] = buffer[c * LANES + lane];
        for (int c = columns; c < stride; ++c) row[c] = 0.0f;
    }
}

void write_gradients(const Scene& s, const Gradients& out, const Lanes& in, const Shape& shape, M seen, int64_t first, int lanes,
                     const ParameterGradients& g) {
    const F mean[3] = {keep(seen, g.mean.x), keep(seen, g.mean.y), keep(seen, g.mean.z)};
    if (out.means) scatter_rows(out.means, 3, 3, first, lanes, mean);
    const F opacity = keep(seen, g.opacity);
    if (out.opacities) scatter_rows(out.opacities, 1, 1, first, lanes, &opacity);
    if (out.shs) scatter_rows(out.shs, s.sh_coefficients * 3, in.used_coefficients * 3, first, lanes, g.color);
    if (out.colors) scatter_rows(out.colors, 3, 3, first, lanes, g.color);
    if (out.covariances) {
        const F values[6] = {keep(seen, g.sigma.xx), keep(seen, g.sigma.xy), keep(seen, g.sigma.xz),
                             keep(seen, g.sigma.yy), keep(seen, g.sigma.yz), keep(seen, g.sigma.zz)};
        scatter_rows(out.covariances, 6, 6, first, lanes, values);
    }
    if (!out.scales && !out.rotations) return;
    Vec3<F> g_s;
    Mat3<F> g_rotation;
    covariance_backward(shape.rotation.matrix, shape.s, g.sigma, g_s, g_rotation);
    const F modifier(s.scale_modifier);
    const F scale[3] = {keep(seen, g_s.x * modifier), keep(seen, g_s.y * modifier), keep(seen, g_s.z * modifier)};
    if (out.scales) scatter_rows(out.scales, 3, 3, first, lanes, scale);
    const Quaternion<F> q = rotation_backward(shape.rotation, g_rotation);
    const F rotation[4] = {keep(seen, q.w), keep(seen, q.x), keep(seen, q.y), keep(seen, q.z)};
    if (out.rotations) scatter_rows(out.rotations, 4, 4, first, lanes, rotation);
}

}  // namespace

void preprocess_backward(const Scene& s, const Gradients& out, const Workspace& w, int thread) {
    const Range range = share(s.count, thread, s.threads);
    alignas(64) float m[MOMENTS * LANES], positive[3 * LANES], mean2d[2 * LANES], seen[LANES];
    for (int64_t first = range.begin; first < range.end; first += LANES) {
        const int lanes = static_cast<int>(range.end - first < LANES ? range.end - first : LANES);
        const Lanes in(s, first, lanes);
        const Shape shape = in.shape(s);
        ParameterGradients g;
        const int colors = s.shs ? in.used_coefficients * 3 : 3;
        for (int c = 0; c < colors; ++c) g.color[c] = F(0.0f);
        std::memset(seen, 0, sizeof seen);
        for (int64_t view = 0; view < s.views; ++view) {
            // A lane that this view does not see would add 0 times whatever its projection is, which may not be finite.
            std::memset(mean2d, 0, sizeof mean2d);
            if (gather_moments(s, w, first, lanes, view, m, positive)) {
                alignas(64) float here[LANES] = {0};
                for (int lane = 0; lane < lanes; ++lane) {
                    here[lane] = w.records[(first + lane) * s.views + view].tiles ? 1.0f : 0.0f;
                    if (here[lane] != 0.0f) seen[lane] = 1.0f;
                }
                const M mask = load(here) > F(0.0f);
                ParameterGradients next = g;
                F g_x, g_y;
                geometry_backward(s, w.cameras[view], in, shape.sigma, m, next, g_x, g_y);
                color_backward(s, in, w.cameras[view], m, positive, next);
                store(mean2d, keep(mask, g_x));
                store(mean2d + LANES, keep(mask, g_y));
                g.mean = {select(mask, next.mean.x, g.mean.x), select(mask, next.mean.y, g.mean.y), select(mask, next.mean.z, g.mean.z)};
                g.sigma = {select(mask, next.sigma.xx, g.sigma.xx), select(mask, next.sigma.xy, g.sigma.xy),
                           select(mask, next.sigma.xz, g.sigma.xz), select(mask, next.sigma.yy, g.sigma.yy),
                           select(mask, next.sigma.yz, g.sigma.yz), select(mask, next.sigma.zz, g.sigma.zz)};
                g.opacity = select(mask, next.opacity, g.opacity);
                for (int c = 0; c < colors; ++c) g.color[c] = select(mask, next.color[c], g.color[c]);
            }
            if (!out.means2d) continue;
            for (int lane = 0; lane < lanes; ++lane) {
                float* row = out.means2d + (view * s.count + first + lane) * 2;
                row[0] = mean2d[lane];
                row[1] = mean2d[LANES + lane];
            }
        }
        write_gradients(s, out, in, shape, load(seen) > F(0.0f), first, lanes, g);
    }
}

}  // namespace dgr
