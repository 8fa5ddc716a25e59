// The one argument of every kernel, and what lives in device memory between them.
#pragma once
#include "scalar.h"

#include "../math.h"
#include "../sh.h"

namespace dgr {

constexpr int TILE = 16;  // pixels; a block of threads per tile
constexpr int THREADS = TILE * TILE;
constexpr int WARP = 32, WARPS = THREADS / WARP;
constexpr int PATCH_WIDTH = 8, PATCH_HEIGHT = 4;  // a warp's pixels
constexpr u32 ALL_LANES = 0xffffffffu;
constexpr int MOMENT_STRIDE = 12;  // floats; ten are used
constexpr int CAMERA_STRIDE = 16;  // floats: rotation by rows, translation, fx, fy, cx, cy

// One Gaussian in one view, written only if the view sees it (radii > 0).
struct alignas(16) Record {
    float x, y, rho, p;  // mean; Ellipse
    float q, log2_opacity, depth;
    u32 columns;  // first and last tile that its bounds meet, in 16 bits each
    float red, green, blue;
    u32 rows;
};

struct Status {
    u64 total;    // instances: pairs of a Gaussian and a tile
    u32 longest;  // list of a tile
    u32 next_forward, next_backward;  // work queues of the slow path
    u32 unused;
};

// Mirrored field by field in cuda.py. All tensors are contiguous; a null pointer means "not given" or "not wanted".
struct Frame {
    i64 count, capacity;  // capacity: instances that `keys` holds
    int views, width, height, sh_degree, sh_coefficients, antialiasing;
    float scale_modifier, near_plane;

    const float *means, *scales, *rotations, *opacities, *shs, *colors, *covariances;  // [N,...]
    const float *viewmats, *focals, *principals, *backgrounds;                          // [V,...]

    float *rgb, *depth, *alpha;  // [V,3,H,W], [V,1,H,W], [V,1,H,W]
    int* radii;                  // [V,N]
    float* means2d;              // [V,N,2]
    int* counts;                 // [V,FATES], zero before

    Record* records;   // [V,N]
    u32* tile_count;   // [V,tiles], zero before; then where the next key of a tile goes
    u32* tile_start;   // [V,tiles + 1]
    u64* keys;         // [capacity]: depth in the upper half, Gaussian in the lower; per tile, front to back once sorted
    Status* status;

    const float *g_rgb, *g_depth, *g_alpha;  // upstream
    float* moments;                          // [V,N,MOMENT_STRIDE], zero before
    float* instance_moments;                 // [total,MOMENT_STRIDE], of the deterministic backward
    float *g_means, *g_scales, *g_rotations, *g_opacities, *g_shs, *g_colors, *g_covariances, *g_means2d;
    float* g_cameras;  // [V,blocks,CAMERA_STRIDE]: the share of each block of Gaussians

    __device__ int tiles_x() const { return (width + TILE - 1) / TILE; }
    __device__ int tiles_y() const { return (height + TILE - 1) / TILE; }
    __device__ int tiles() const { return tiles_x() * tiles_y(); }  // of one view
    __device__ bool overflowed() const { return status->total > static_cast<u64>(capacity); }
};

__device__ inline u64 sort_key(float depth, u32 gaussian) {
    return static_cast<u64>(__float_as_uint(depth)) << 32 | gaussian;  // depths are positive: their bits order as they do
}

__device__ inline Camera read_camera(const Frame& f, int view) {
    return camera(f.viewmats + view * 16, f.focals + view * 2, f.principals + view * 2, f.width, f.height);
}

struct Shape {
    Rotation<float> rotation;
    Vec3<float> s;  // scales times the modifier
    Sym3<float> sigma;
};

__device__ inline Vec3<float> read_mean(const Frame& f, i64 g) { return {f.means[g * 3], f.means[g * 3 + 1], f.means[g * 3 + 2]}; }

__device__ inline Shape read_shape(const Frame& f, i64 g) {
    Shape o{};
    if (f.covariances) {
        const float* c = f.covariances + g * 6;
        o.sigma = {c[0], c[1], c[2], c[3], c[4], c[5]};
        return o;
    }
    const float *q = f.rotations + g * 4, *s = f.scales + g * 3;
    o.rotation = rotation(Quaternion<float>{q[0], q[1], q[2], q[3]});
    o.s = {s[0] * f.scale_modifier, s[1] * f.scale_modifier, s[2] * f.scale_modifier};
    o.sigma = covariance(o.rotation.matrix, o.s);
    return o;
}

__device__ inline Ellipse<float> read_ellipse(const Frame& f, const Projection<float>& p, const Shape& shape) {
    return ellipse(p.cov, f.covariances ? determinant(p.cov) : projected_determinant(p, shape.rotation.matrix, shape.s));
}

}  // namespace dgr
