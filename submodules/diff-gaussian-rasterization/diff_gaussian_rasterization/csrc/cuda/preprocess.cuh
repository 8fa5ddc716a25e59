// Every Gaussian into every view: a thread per Gaussian, so that its shape is computed once.
#pragma once
#include "tiles.cuh"

namespace dgr {

__device__ inline bool finite(const float* values, i64 count) {
    bool ok = true;
    for (i64 i = 0; i < count; ++i) ok = ok && finite(values[i]);
    return ok;
}

// Every parameter that takes part is finite, and the rotation has a direction.
__device__ inline bool finite(const Frame& f, i64 g) {
    bool ok = finite(f.means + g * 3, 3) && finite(f.opacities[g]);
    if (f.covariances) {
        ok = ok && finite(f.covariances + g * 6, 6);
    } else {
        const float* q = f.rotations + g * 4;
        const float squares = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];  // without all of its digits there is no rotation
        ok = ok && finite(f.scales + g * 3, 3) && squares >= SMALLEST_NORMAL && squares <= LARGEST;
    }
    if (f.colors) return ok && finite(f.colors + g * 3, 3);
    return ok && finite(f.shs + g * f.sh_coefficients * 3, (f.sh_degree + 1) * (f.sh_degree + 1) * 3);
}

__device__ inline Vec3<float> view_color(const Frame& f, i64 g, const Camera& c, Vec3<float> mean) {
    if (f.colors) return {f.colors[g * 3], f.colors[g * 3 + 1], f.colors[g * 3 + 2]};
    const float* row = f.shs + g * f.sh_coefficients * 3;
    const auto sh = [row](int k, int channel) { return row[k * 3 + channel]; };
    const Direction<float> d = direction(c, mean);
    switch (f.sh_degree) {  // constant degrees unroll, and their basis stays in registers
        case 0: return sh_color(0, d, sh);
        case 1: return sh_color(1, d, sh);
        case 2: return sh_color(2, d, sh);
        default: return sh_color(3, d, sh);
    }
}

// Opacity-aware bounds: alpha falls to 1/255 where d^T Sigma'^-1 d = 2 ln(255 o). Returns VISIBLE, FAINT or OUTSIDE.
__device__ inline Fate bound(const Frame& f, const Sym2<float>& cov, Record& r) {
    const float reach = 2.0f * LN_2 * (r.log2_opacity - LOG2_MIN_ALPHA);
    if (!(reach >= 0.0f)) return FAINT;
    const float reach_x = sqrt(reach * cov.xx) + BOUND_SLACK, reach_y = sqrt(reach * cov.yy) + BOUND_SLACK;
    const float left = r.x - reach_x, right = r.x + reach_x, top = r.y - reach_y, bottom = r.y + reach_y;
    const float last_x = static_cast<float>(f.width - 1), last_y = static_cast<float>(f.height - 1);
    if (!(right >= 0.0f && left <= last_x && bottom >= 0.0f && top <= last_y)) return OUTSIDE;  // or not a number
    const float x0 = ceilf(max(left, 0.0f)), x1 = floorf(min(right, last_x));
    const float y0 = ceilf(max(top, 0.0f)), y1 = floorf(min(bottom, last_y));
    if (!(x0 <= x1 && y0 <= y1)) return OUTSIDE;
    r.columns = static_cast<u32>(x0) / TILE | static_cast<u32>(x1) / TILE << 16;
    r.rows = static_cast<u32>(y0) / TILE | static_cast<u32>(y1) / TILE << 16;
    return VISIBLE;
}

// Fills the record of a finite Gaussian, and its radius in pixels.
__device__ inline Fate project_into(const Frame& f, i64 g, const Camera& c, const Shape& shape, Record& r, float& extent) {
    const Vec3<float> mean = read_mean(f, g);
    const Projection<float> p = project(c, mean, shape.sigma);
    if (!(p.p.z > f.near_plane)) return BEHIND;
    const Ellipse<float> e = read_ellipse(f, p, shape);
    const Vec3<float> color = view_color(f, g, c, mean);
    if (!(p.p.z < MAX_DEPTH && proper(e))) return DEGENERATE;
    if (!(finite(color.x) && finite(color.y) && finite(color.z))) return DEGENERATE;  // finite harmonics may add up to an infinite one
    const float opacity = f.opacities[g] * (f.antialiasing ? sqrt(mip_filter(e)) : 1.0f);
    r.x = p.x;
    r.y = p.y;
    r.rho = e.rho;
    r.p = e.p;
    r.q = e.q;
    r.log2_opacity = log2f(opacity);
    r.depth = p.p.z;
    r.red = color.x;
    r.green = color.y;
    r.blue = color.z;
    extent = radius(e);
    return bound(f, e.cov, r);
}

__device__ inline void count_fates(const Frame& f, int view, bool present, Fate fate) {
    for (int which = 0; which < FATES; ++which) {
        const u32 lanes = __ballot_sync(ALL_LANES, present && fate == which);
        if (lanes && threadIdx.x % WARP == 0) atomicAdd(f.counts + view * FATES + which, __popc(lanes));
    }
}

// Threads past the last Gaussian stay for what the warp does together.
__device__ inline void preprocess_gaussian(const Frame& f, i64 g) {
    const bool present = g < f.count;
    const bool usable = present && finite(f, g);
    const Shape shape = usable ? read_shape(f, g) : Shape{};
    for (int view = 0; view < f.views; ++view) {
        Record r{};
        float extent = 0.0f;
        const Fate fate = usable ? project_into(f, g, read_camera(f, view), shape, r, extent) : NONFINITE;
        const bool visible = usable && fate == VISIBLE;
        count_fates(f, view, present, fate);
        if (present) {
            const i64 i = view * f.count + g;
            f.radii[i] = visible ? static_cast<int>(ceilf(min(extent, 1e9f))) : 0;
            f.means2d[i * 2] = visible ? r.x : 0.0f;
            f.means2d[i * 2 + 1] = visible ? r.y : 0.0f;
            if (visible) f.records[i] = r;
        }
        u32* counts = f.tile_count + static_cast<i64>(view) * f.tiles();
        for_each_tile(visible, r, 0, f.tiles_x(), [counts](int tile, u64) { atomicAdd(counts + tile, 1u); });
    }
}

}  // namespace dgr
