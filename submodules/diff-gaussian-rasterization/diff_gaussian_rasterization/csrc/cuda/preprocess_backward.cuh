// From the moments of a Gaussian in every view to the gradients of its parameters, each written once.
#pragma once
#include "frame.h"

namespace dgr {

constexpr int PLAIN_COLORS = -1;  // instead of a degree

__device__ constexpr int coefficients(int degree) { return degree == PLAIN_COLORS ? 1 : (degree + 1) * (degree + 1); }

template <int DEGREE> struct ParameterGradients {
    static constexpr int COEFFICIENTS = coefficients(DEGREE);
    Vec3<float> mean{};
    Sym3<float> sigma{};
    float log_opacity = 0.0f;
    float color[3 * COEFFICIENTS] = {};
};

// What one view says of one Gaussian that it sees.
struct ViewBackward {
    Camera camera;
    Projection<float> projection;
    SplatGradient<float> splat;
    float opacity, g_depth, g_rgb[3];  // opacity: of its logarithm; clamped channels are 0

    __device__ ViewBackward(const Frame& f, i64 g, int view, Vec3<float> mean, const Shape& shape) {
        const i64 i = view * f.count + g;
        const float4* row = reinterpret_cast<const float4*>(f.moments + i * MOMENT_STRIDE);
        const float4 first = row[0], second = row[1], third = row[2];
        float m[MOMENTS];
        m[Q] = first.x, m[Q_X] = first.y, m[Q_T] = first.z, m[Q_XX] = first.w;
        m[Q_XT] = second.x, m[Q_TT] = second.y;
        camera = read_camera(f, view);
        projection = project(camera, mean, shape.sigma);
        splat = ellipse_backward(read_ellipse(f, projection, shape), m, f.antialiasing);
        opacity = m[Q];
        g_depth = third.y;
        const Record& r = f.records[i];
        g_rgb[0] = keep(f.colors || r.red > 0.0f, second.z);
        g_rgb[1] = keep(f.colors || r.green > 0.0f, second.w);
        g_rgb[2] = keep(f.colors || r.blue > 0.0f, third.x);
    }

    __device__ ProjectionGradient<float> geometry(const Shape& shape, Vec3<float>& g_mean, Sym3<float>& g_sigma) const {
        return project_backward(camera, projection, shape.sigma, splat.x, splat.y, g_depth, splat.cov, g_mean, g_sigma);
    }

    template <int DEGREE>
    __device__ void harmonics(const Frame& f, i64 g, Vec3<float> mean, float* g_sh, Vec3<float>& g_mean) const {
        const float* sh = f.shs + g * f.sh_coefficients * 3;
        sh_color_backward(DEGREE, direction(camera, mean), [sh](int k, int ch) { return sh[k * 3 + ch]; }, g_rgb, g_sh, g_mean);
    }
};

__device__ inline void write_row(float* out, i64 g, const float* values, int columns) {
    if (!out) return;
#pragma unroll
    for (int c = 0; c < columns; ++c) out[g * columns + c] = values[c];
}

__device__ inline void write_shape(const Frame& f, i64 g, const Shape& shape, const Sym3<float>& g_sigma) {
    if (f.covariances) {
        const float values[6] = {g_sigma.xx, g_sigma.xy, g_sigma.xz, g_sigma.yy, g_sigma.yz, g_sigma.zz};
        write_row(f.g_covariances, g, values, 6);
        return;
    }
    Vec3<float> g_s;
    Mat3<float> g_matrix;
    covariance_backward(shape.rotation.matrix, shape.s, g_sigma, g_s, g_matrix);
    const float scale[3] = {g_s.x * f.scale_modifier, g_s.y * f.scale_modifier, g_s.z * f.scale_modifier};
    write_row(f.g_scales, g, scale, 3);
    const Quaternion<float> q = rotation_backward(shape.rotation, g_matrix);
    const float quaternion[4] = {q.w, q.x, q.y, q.z};
    write_row(f.g_rotations, g, quaternion, 4);
}

__device__ inline void write_zeros(const Frame& f, i64 g) {
    const float zeros[6] = {};
    write_row(f.g_means, g, zeros, 3);
    write_row(f.g_opacities, g, zeros, 1);
    write_row(f.g_scales, g, zeros, 3);
    write_row(f.g_rotations, g, zeros, 4);
    write_row(f.g_covariances, g, zeros, 6);
    write_row(f.g_colors, g, zeros, 3);
    for (int c = 0; f.g_shs && c < f.sh_coefficients * 3; ++c) f.g_shs[g * f.sh_coefficients * 3 + c] = 0.0f;
}

template <int DEGREE> __device__ void preprocess_gaussian_backward(const Frame& f, i64 g) {
    bool seen = false;
    for (int view = 0; view < f.views; ++view) {
        const i64 i = view * f.count + g;
        const bool here = f.radii[i] > 0;
        seen = seen || here;
        if (!here && f.g_means2d) f.g_means2d[i * 2] = f.g_means2d[i * 2 + 1] = 0.0f;
    }
    if (!seen) {
        write_zeros(f, g);  // its parameters may be anything
        return;
    }
    const Vec3<float> mean = read_mean(f, g);
    const Shape shape = read_shape(f, g);
    ParameterGradients<DEGREE> out;
    for (int view = 0; view < f.views; ++view) {
        const i64 i = view * f.count + g;
        if (f.radii[i] <= 0) continue;
        const ViewBackward here(f, g, view, mean, shape);
        here.geometry(shape, out.mean, out.sigma);
        out.log_opacity += here.opacity;
        if (f.g_means2d) {
            f.g_means2d[i * 2] = here.splat.x;
            f.g_means2d[i * 2 + 1] = here.splat.y;
        }
        if constexpr (DEGREE == PLAIN_COLORS)
            for (int ch = 0; ch < 3; ++ch) out.color[ch] += here.g_rgb[ch];
        else
            here.harmonics<DEGREE>(f, g, mean, out.color, out.mean);
    }
    const float g_mean[3] = {out.mean.x, out.mean.y, out.mean.z}, g_opacity = out.log_opacity / f.opacities[g];
    write_row(f.g_means, g, g_mean, 3);
    write_row(f.g_opacities, g, &g_opacity, 1);
    write_shape(f, g, shape, out.sigma);
    if constexpr (DEGREE == PLAIN_COLORS) {
        write_row(f.g_colors, g, out.color, 3);
    } else if (f.g_shs) {
        float* row = f.g_shs + g * f.sh_coefficients * 3;
#pragma unroll
        for (int c = 0; c < 3 * out.COEFFICIENTS; ++c) row[c] = out.color[c];
        for (int c = 3 * out.COEFFICIENTS; c < f.sh_coefficients * 3; ++c) row[c] = 0.0f;
    }
}

}  // namespace dgr
