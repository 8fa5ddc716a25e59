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

struct Vec2 {
    F x, y;
};

// Sums each Gaussian's instances in the order of their slots, from `slot` on; m[k] gets moment k of every lane.
void gather_moments(const Workspace& w, const uint32_t* reached, uint32_t slot, F* m) {
    constexpr int PARTS = (MOMENTS + LANES - 1) / LANES;
    F rows[PARTS][LANES];
    for (int lane = 0; lane < LANES; ++lane) {
        F sum[PARTS];
        for (F& part : sum) part = F(0.0f);
        for (const uint32_t end = slot + reached[lane]; slot != end; ++slot) {
            const Moments* instance = &w.moments[w.positions[slot]];
            __builtin_prefetch(instance + 4);  // the next Gaussians of this tile
            for (int part = 0; part < PARTS; ++part) sum[part] += load(instance->sum + part * LANES);
        }
        for (int part = 0; part < PARTS; ++part) rows[part][lane] = sum[part];
    }
    for (auto& part : rows) transpose(part);
    for (int k = 0; k < MOMENTS; ++k) m[k] = rows[k / LANES][k % LANES];
}

// Colour: straight through, or through the harmonics and their direction; a clamped channel passes nothing. A lane that is not
// seen adds nothing, however its direction comes out. Returns the gradient of the direction, times its length.
Vec3<F> color_backward(const Scene& s, const Lanes& in, const Camera& camera, const Record* records, M seen, const F* m,
                       ParameterGradients& g) {
    Vec3<F> g_d{F(0.0f), F(0.0f), F(0.0f)};
    F g_rgb[3] = {m[RED], m[GREEN], m[BLUE]};
    if (s.colors) {
        for (int ch = 0; ch < 3; ++ch) g.color[ch] += g_rgb[ch];
        return g_d;
    }
    alignas(64) float drawn[3 * LANES];
    for (int lane = 0; lane < LANES; ++lane) {
        drawn[lane] = records[lane].red;
        drawn[LANES + lane] = records[lane].green;
        drawn[2 * LANES + lane] = records[lane].blue;
    }
    for (int ch = 0; ch < 3; ++ch) g_rgb[ch] = keep(column(drawn, ch) > F(0.0f), g_rgb[ch]);
    Direction<F> d = direction(camera, in.position());
    d = {{keep(seen, d.unit.x), keep(seen, d.unit.y), keep(seen, d.unit.z)}, keep(seen, d.inv_length)};
    sh_color_backward(s.sh_degree, d, [&in](int k, int ch) { return in.coefficient(k, ch); }, g_rgb, g.color, g_d);
    g.mean = {g.mean.x + keep(seen, g_d.x), g.mean.y + keep(seen, g_d.y), g.mean.z + keep(seen, g_d.z)};
    return g_d;
}

// Returns the gradient of the pixel mean, and gives the camera's if wanted. What a lane that is not seen projects to may not be
// finite.
Vec2 geometry_backward(const Scene& s, const Camera& camera, const Lanes& in, const Shape& shape, M seen, const F* m,
                       ParameterGradients& g, CameraGradient<F>* g_camera) {
    const Projection<F> p = project(camera, in.position(), shape.sigma);
    const SplatGradient<F> splat = ellipse_backward(shape.ellipse(s, p), m, s.antialiasing);
    const F zero(0.0f);
    Vec3<F> mean{zero, zero, zero};
    Sym3<F> cov{zero, zero, zero, zero, zero, zero};
    const auto within = project_backward(camera, p, shape.sigma, splat.x, splat.y, m[DEPTH], splat.cov, mean, cov);
    if (g_camera) *g_camera = camera_backward(camera, p, in.position(), within, splat.x, splat.y);
    g.mean = {g.mean.x + keep(seen, mean.x), g.mean.y + keep(seen, mean.y), g.mean.z + keep(seen, mean.z)};
    g.sigma = {g.sigma.xx + keep(seen, cov.xx), g.sigma.xy + keep(seen, cov.xy), g.sigma.xz + keep(seen, cov.xz),
               g.sigma.yy + keep(seen, cov.yy), g.sigma.yz + keep(seen, cov.yz), g.sigma.zz + keep(seen, cov.zz)};
    g.opacity += keep(seen, m[Q] / column(in.opacity, 0));
    return {keep(seen, splat.x), keep(seen, splat.y)};
}

// Summed over the lanes that are seen.
CameraShare share_of(const CameraGradient<F>& g, M seen) {
    const F numbers[CAMERA_NUMBERS] = {g.r[0].x, g.r[0].y, g.r[0].z, g.t.x, g.r[1].x, g.r[1].y, g.r[1].z, g.t.y,
                                       g.r[2].x, g.r[2].y, g.r[2].z, g.t.z, g.fx,     g.fy,     g.cx,     g.cy};
    CameraShare share;
    for (int part = 0; part < CAMERA_NUMBERS; part += LANES) {
        F rows[LANES], sum(0.0f);
        for (int i = 0; i < LANES; ++i) rows[i] = keep(seen, numbers[part + i]);
        transpose(rows);
        for (const F& row : rows) sum += row;
        store(share.sum + part, sum);
    }
    return share;
}

// Writes rows of C numbers for the lanes that exist.
template <int C> void scatter_rows(float* dst, int64_t first, int lanes, const F (&values)[C]) {
    alignas(64) float buffer[C * LANES];
    for (int c = 0; c < C; ++c) store(buffer + c * LANES, values[c]);
    for (int lane = 0; lane < lanes; ++lane)
        for (int c = 0; c < C; ++c) dst[(first + lane) * C + c] = buffer[c * LANES + lane];
}

void scatter_coefficients(const Scene& s, float* dst, int used, int64_t first, int lanes, const F* values) {
    alignas(64) float buffer[3 * MAX_COEFFICIENTS * LANES];
    for (int c = 0; c < used; ++c) store(buffer + c * LANES, values[c]);
    for (int lane = 0; lane < lanes; ++lane) {
        float* row = dst + (first + lane) * s.sh_coefficients * 3;
        for (int c = 0; c < used; ++c) row[c] = buffer[c * LANES + lane];
        for (int c = used; c < s.sh_coefficients * 3; ++c) row[c] = 0.0f;
    }
}

void write_gradients(const Scene& s, const Gradients& out, const Lanes& in, const Shape& shape, M seen, int64_t first, int lanes,
                     const ParameterGradients& g) {
    const F mean[3] = {keep(seen, g.mean.x), keep(seen, g.mean.y), keep(seen, g.mean.z)};
    if (out.means) scatter_rows(out.means, first, lanes, mean);
    const F opacity[1] = {keep(seen, g.opacity)};
    if (out.opacities) scatter_rows(out.opacities, first, lanes, opacity);
    if (out.shs) scatter_coefficients(s, out.shs, in.used_coefficients * 3, first, lanes, g.color);
    const F color[3] = {g.color[0], g.color[1], g.color[2]};
    if (out.colors) scatter_rows(out.colors, first, lanes, color);
    if (out.covariances) {
        const F values[6] = {keep(seen, g.sigma.xx), keep(seen, g.sigma.xy), keep(seen, g.sigma.xz),
                             keep(seen, g.sigma.yy), keep(seen, g.sigma.yz), keep(seen, g.sigma.zz)};
        scatter_rows(out.covariances, first, lanes, values);
    }
    if (!out.scales && !out.rotations) return;
    Vec3<F> g_s;
    Mat3<F> g_rotation;
    covariance_backward(shape.rotation.matrix, shape.s, g.sigma, g_s, g_rotation);
    const F modifier(s.scale_modifier);
    const F scale[3] = {keep(seen, g_s.x * modifier), keep(seen, g_s.y * modifier), keep(seen, g_s.z * modifier)};
    if (out.scales) scatter_rows(out.scales, first, lanes, scale);
    const Quaternion<F> q = rotation_backward(shape.rotation, g_rotation);
    const F rotation[4] = {keep(seen, q.w), keep(seen, q.x), keep(seen, q.y), keep(seen, q.z)};
    if (out.rotations) scatter_rows(out.rotations, first, lanes, rotation);
}

}  // namespace

void preprocess_backward(const Scene& s, const Gradients& out, Workspace& w, const Part& part) {
    for (int64_t first = part.begin; first < part.end; first += LANES) {
        const int lanes = static_cast<int>(part.end - first < LANES ? part.end - first : LANES);
        const Lanes in(s, first, lanes);
        const Shape shape = in.shape(s);
        ParameterGradients g;
        const int colors = s.shs ? in.used_coefficients * 3 : 3;
        for (int c = 0; c < colors; ++c) g.color[c] = F(0.0f);
        uint32_t slot = w.first_slot[first / LANES], seen_anywhere = 0;
        for (int64_t view = 0; view < s.views; ++view) {
            const int64_t index = first * s.views + view * LANES;
            const uint32_t* reached = &w.reached[index];
            uint32_t seen_bits = 0, tiles = 0;
            for (int lane = 0; lane < LANES; ++lane) {
                seen_bits |= static_cast<uint32_t>(reached[lane] != 0) << lane;
                tiles += reached[lane];
            }
            Vec2 mean{F(0.0f), F(0.0f)};
            CameraShare* share = out.of_cameras() ? &w.camera_shares[first / LANES * s.views + view] : nullptr;
            if (share) *share = CameraShare{};
            if (seen_bits) {
                const M seen = lanes_of(seen_bits);
                F m[MOMENTS];
                gather_moments(w, reached, slot, m);
                const Camera& camera = w.cameras[view];
                CameraGradient<F> g_camera;
                mean = geometry_backward(s, camera, in, shape, seen, m, g, share ? &g_camera : nullptr);
                const Vec3<F> g_d = color_backward(s, in, camera, &w.records[index], seen, m, g);
                if (share) {
                    direction_backward(camera, g_d, g_camera);
                    *share = share_of(g_camera, seen);
                }
            }
            slot += tiles;
            seen_anywhere |= seen_bits;
            if (!out.means2d) continue;
            alignas(64) float pairs[2 * LANES];
            store(pairs, interleave_low(mean.x, mean.y));
            store(pairs + LANES, interleave_high(mean.x, mean.y));
            std::memcpy(out.means2d + (view * s.count + first) * 2, pairs, lanes * 2 * sizeof(float));
        }
        const M seen = lanes_of(seen_anywhere);
        for (int c = 0; c < colors; ++c) g.color[c] = keep(seen, g.color[c]);
        write_gradients(s, out, in, shape, seen, first, lanes, g);
    }
}

// In the order of the Gaussians, whichever threads had them.
void sum_camera_gradients(const Scene& s, const Gradients& out, const Workspace& w, int64_t view) {
    double sum[CAMERA_NUMBERS] = {};
    const int64_t chunks = (s.count + LANES - 1) / LANES;
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
        for (int k = 0; k < CAMERA_NUMBERS; ++k) sum[k] += w.camera_shares[chunk * s.views + view].sum[k];
    for (int k = 0; k < 16 && out.viewmats; ++k) out.viewmats[view * 16 + k] = k < 12 ? static_cast<float>(sum[k]) : 0.0f;
    for (int k = 0; k < 2; ++k) {
        if (out.focals) out.focals[view * 2 + k] = static_cast<float>(sum[12 + k]);
        if (out.principals) out.principals[view * 2 + k] = static_cast<float>(sum[14 + k]);
    }
}

}  // namespace dgr
