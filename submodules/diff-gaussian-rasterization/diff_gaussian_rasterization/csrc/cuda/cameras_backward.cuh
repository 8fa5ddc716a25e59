// Gradients of the cameras, for callers that ask: a thread per Gaussian of a view, and per block one sum in a fixed order.
#pragma once
#include "preprocess_backward.cuh"

namespace dgr {

struct CameraShared {
    float sums[WARPS][CAMERA_STRIDE];
};

// The part that reaches the camera through the harmonics' direction.
template <int DEGREE> __device__ Vec3<float> direction_gradient(const Frame& f, i64 g, const ViewBackward& here, Vec3<float> mean) {
    float unused[3 * coefficients(DEGREE)] = {};
    Vec3<float> g_direction{};
    here.harmonics<DEGREE>(f, g, mean, unused, g_direction);
    return g_direction;
}

__device__ inline CameraGradient<float> camera_gradient(const Frame& f, i64 g, int view) {
    const Vec3<float> mean = read_mean(f, g);
    const Shape shape = read_shape(f, g);
    const ViewBackward here(f, g, view, mean, shape);
    Vec3<float> g_mean{};
    Sym3<float> g_sigma{};
    const ProjectionGradient<float> g_projection = here.geometry(shape, g_mean, g_sigma);
    CameraGradient<float> out = camera_backward(here.camera, here.projection, mean, g_projection, here.splat.x, here.splat.y);
    if (f.shs && f.sh_degree == 1) direction_backward(here.camera, direction_gradient<1>(f, g, here, mean), out);
    if (f.shs && f.sh_degree == 2) direction_backward(here.camera, direction_gradient<2>(f, g, here, mean), out);
    if (f.shs && f.sh_degree == 3) direction_backward(here.camera, direction_gradient<3>(f, g, here, mean), out);
    return out;
}

__device__ inline void cameras_backward(const Frame& f, int view, i64 block, i64 blocks, CameraShared& shared) {
    const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    const i64 g = block * THREADS + thread;
    CameraGradient<float> out{};
    if (g < f.count && f.radii[view * f.count + g] > 0) out = camera_gradient(f, g, view);
    const float values[CAMERA_STRIDE] = {out.r[0].x, out.r[0].y, out.r[0].z, out.r[1].x, out.r[1].y, out.r[1].z, out.r[2].x, out.r[2].y,
                                         out.r[2].z, out.t.x,    out.t.y,    out.t.z,    out.fx,     out.fy,     out.cx,     out.cy};
#pragma unroll
    for (int i = 0; i < CAMERA_STRIDE; ++i) {
        float sum = values[i];
        for (int mask = WARP / 2; mask > 0; mask /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, mask);
        if (lane == 0) shared.sums[warp][i] = sum;
    }
    __syncthreads();
    if (thread >= CAMERA_STRIDE) return;
    float sum = 0.0f;
    for (int w = 0; w < WARPS; ++w) sum += shared.sums[w][thread];
    f.g_cameras[(view * blocks + block) * CAMERA_STRIDE + thread] = sum;
}

}  // namespace dgr
