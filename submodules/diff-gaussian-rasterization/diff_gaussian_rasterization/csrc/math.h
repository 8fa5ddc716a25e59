// The mathematics of one Gaussian, forward and backward, for any number type F: a float, or a vector of floats with one
// Gaussian per lane. F brings min, max, fma, sqrt, select and keep (simd.h, cuda/scalar.h), to be included before this.
// Notation: EWA splatting (Zwicker et al. 2001), 3D Gaussian Splatting (Kerbl et al. 2023, section 4).
#pragma once

#if defined(__CUDACC__)
#define DGR_FN __host__ __device__ inline
#else
#define DGR_FN inline
#endif

namespace dgr {

constexpr float DILATION = 0.3f;         // px^2, added to the diagonal of the projected covariance
constexpr float MAX_ALPHA = 0.99f;
constexpr float MIN_ALPHA = 1.0f / 255.0f;
constexpr float LOG2_MIN_ALPHA = -7.99435343685885793770f;  // log2(1/255)
constexpr float MIN_TRANSMITTANCE = 1e-4f;
constexpr float LOG2_E = 1.44269504088896340736f;
constexpr float LN_2 = 0.69314718055994530942f;
// Rounding in a bound must not drop a pixel that the exact test takes: bounds are wider by so many pixels, and by so much in
// log2(alpha).
constexpr float BOUND_SLACK = 1e-2f;
constexpr float EXPONENT_SLACK = 1e-2f;
constexpr float HUGE_NUMBER = 3e38f;  // beyond it lies only infinity
constexpr int MAX_COEFFICIENTS = 16;  // spherical harmonics of degree 3

// What becomes of a Gaussian in a view: the first that holds (scene.py: COUNTS).
enum Fate { VISIBLE, NONFINITE, BEHIND, DEGENERATE, FAINT, OUTSIDE, FATES };

// Gradient sums over the pixels of a Gaussian, with q = dL/dalpha * alpha: Q, Q_X = sum q dx, ... and of the colour and depth.
enum Moment { Q, Q_X, Q_Y, Q_XX, Q_XY, Q_YY, RED, GREEN, BLUE, DEPTH, MOMENTS };

template <class F> struct Vec3 { F x, y, z; };
template <class F> struct Quaternion { F w, x, y, z; };
template <class F> struct Mat3 { F m[3][3]; };
template <class F> struct Sym3 { F xx, xy, xz, yy, yz, zz; };
template <class F> struct Sym2 { F xx, xy, yy; };

// World to camera x_cam = r x + t (OpenCV axes), focal lengths and principal point in pixels.
struct Camera {
    float r[3][3], t[3];
    float fx, fy, cx, cy;
    float limit_x, limit_y;  // |x/z|, |y/z| are clamped to 1.3 tan(fov / 2) in the Jacobian
    float centre[3];         // world position, -r^T t
};

template <class F> DGR_FN F dot(Vec3<F> a, Vec3<F> b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

template <class F> DGR_FN Vec3<F> times(const Sym3<F>& s, Vec3<F> v) {
    return {s.xx * v.x + s.xy * v.y + s.xz * v.z, s.xy * v.x + s.yy * v.y + s.yz * v.z,
            s.xz * v.x + s.yz * v.y + s.zz * v.z};
}

template <class F> DGR_FN Mat3<F> rotation_matrix(Quaternion<F> q) {
    const F xx = q.x * q.x, yy = q.y * q.y, zz = q.z * q.z;
    const F xy = q.x * q.y, xz = q.x * q.z, yz = q.y * q.z;
    const F wx = q.w * q.x, wy = q.w * q.y, wz = q.w * q.z;
    const F one(1.0f), two(2.0f);
    return {{{one - two * (yy + zz), two * (xy - wz), two * (xz + wy)},
             {two * (xy + wz), one - two * (xx + zz), two * (yz - wx)},
             {two * (xz - wy), two * (yz + wx), one - two * (xx + yy)}}};
}

template <class F> struct Rotation {
    Quaternion<F> unit;
    F inv_norm;
    Mat3<F> matrix;
};

// From a quaternion of any length but 0.
template <class F> DGR_FN Rotation<F> rotation(Quaternion<F> q) {
    Rotation<F> o;
    o.inv_norm = F(1.0f) / sqrt(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z);
    o.unit = {q.w * o.inv_norm, q.x * o.inv_norm, q.y * o.inv_norm, q.z * o.inv_norm};
    o.matrix = rotation_matrix(o.unit);
    return o;
}

// Gradient with respect to the unit quaternion from the gradient g of its matrix.
template <class F> DGR_FN Quaternion<F> rotation_matrix_backward(Quaternion<F> q, const Mat3<F>& g) {
    const auto& m = g.m;
    const F two(2.0f);
    return {two * (q.z * (m[1][0] - m[0][1]) + q.y * (m[0][2] - m[2][0]) + q.x * (m[2][1] - m[1][2])),
            two * (q.y * (m[0][1] + m[1][0]) + q.z * (m[0][2] + m[2][0]) + q.w * (m[2][1] - m[1][2]) -
                   two * q.x * (m[1][1] + m[2][2])),
            two * (q.x * (m[0][1] + m[1][0]) + q.z * (m[1][2] + m[2][1]) + q.w * (m[0][2] - m[2][0]) -
                   two * q.y * (m[0][0] + m[2][2])),
            two * (q.x * (m[0][2] + m[2][0]) + q.y * (m[1][2] + m[2][1]) + q.w * (m[1][0] - m[0][1]) -
                   two * q.z * (m[0][0] + m[1][1]))};
}

// The normalisation removes the part of the gradient along q.
template <class F> DGR_FN Quaternion<F> rotation_backward(const Rotation<F>& r, const Mat3<F>& g) {
    const Quaternion<F> u = r.unit, gq = rotation_matrix_backward(u, g);
    const F along = u.w * gq.w + u.x * gq.x + u.y * gq.y + u.z * gq.z;
    return {(gq.w - along * u.w) * r.inv_norm, (gq.x - along * u.x) * r.inv_norm, (gq.y - along * u.y) * r.inv_norm,
            (gq.z - along * u.z) * r.inv_norm};
}

// Sigma = R S S^T R^T (3DGS Eq. 6); s holds the scales with the modifier applied.
template <class F> DGR_FN Sym3<F> covariance(const Mat3<F>& rotation, Vec3<F> s) {
    const auto& r = rotation.m;
    const F a = s.x * s.x, b = s.y * s.y, c = s.z * s.z;
    return {r[0][0] * r[0][0] * a + r[0][1] * r[0][1] * b + r[0][2] * r[0][2] * c,
            r[0][0] * r[1][0] * a + r[0][1] * r[1][1] * b + r[0][2] * r[1][2] * c,
            r[0][0] * r[2][0] * a + r[0][1] * r[2][1] * b + r[0][2] * r[2][2] * c,
            r[1][0] * r[1][0] * a + r[1][1] * r[1][1] * b + r[1][2] * r[1][2] * c,
            r[1][0] * r[2][0] * a + r[1][1] * r[2][1] * b + r[1][2] * r[2][2] * c,
            r[2][0] * r[2][0] * a + r[2][1] * r[2][1] * b + r[2][2] * r[2][2] * c};
}

// g holds one number per stored entry (an off-diagonal entry stands for both of its places).
// Column k of R enters as s_k^2 r_k r_k^T, so d/ds_k = 2 s_k r_k^T G r_k and d/dr_k = 2 s_k^2 G r_k with G symmetric.
template <class F>
DGR_FN void covariance_backward(const Mat3<F>& rotation, Vec3<F> s, const Sym3<F>& g, Vec3<F>& g_s, Mat3<F>& g_rotation) {
    const F half(0.5f), two(2.0f);
    const Sym3<F> full{g.xx, half * g.xy, half * g.xz, g.yy, half * g.yz, g.zz};
    const F scale[3] = {s.x, s.y, s.z};
    F g_scale[3];
    for (int k = 0; k < 3; ++k) {
        const Vec3<F> column{rotation.m[0][k], rotation.m[1][k], rotation.m[2][k]};
        const Vec3<F> product = times(full, column);
        const F weight = two * scale[k];
        g_scale[k] = weight * dot(product, column);
        g_rotation.m[0][k] = weight * scale[k] * product.x;
        g_rotation.m[1][k] = weight * scale[k] * product.y;
        g_rotation.m[2][k] = weight * scale[k] * product.z;
    }
    g_s = {g_scale[0], g_scale[1], g_scale[2]};
}

// A Gaussian in one image: pixel mean, depth along the axis, projected covariance before the dilation.
template <class F> struct Projection {
    Vec3<F> p;       // camera frame
    F inv_z;
    F u, v;          // x/z and y/z, clamped for the Jacobian
    Vec3<F> m0, m1;  // rows of J R
    F x, y;          // pixels
    Sym2<F> cov;
};

template <class F> DGR_FN Vec3<F> to_camera(const Camera& c, Vec3<F> p) {
    return {F(c.r[0][0]) * p.x + F(c.r[0][1]) * p.y + F(c.r[0][2]) * p.z + F(c.t[0]),
            F(c.r[1][0]) * p.x + F(c.r[1][1]) * p.y + F(c.r[1][2]) * p.z + F(c.t[1]),
            F(c.r[2][0]) * p.x + F(c.r[2][1]) * p.y + F(c.r[2][2]) * p.z + F(c.t[2])};
}

// Sigma' = J R Sigma R^T J^T with J the Jacobian of the perspective division (3DGS Eq. 5).
template <class F> DGR_FN Projection<F> project(const Camera& c, Vec3<F> mean, const Sym3<F>& sigma) {
    Projection<F> o;
    o.p = to_camera(c, mean);
    o.inv_z = F(1.0f) / o.p.z;
    const F u = o.p.x * o.inv_z, v = o.p.y * o.inv_z;
    o.x = F(c.fx) * u + F(c.cx);
    o.y = F(c.fy) * v + F(c.cy);
    o.u = min(max(u, F(-c.limit_x)), F(c.limit_x));
    o.v = min(max(v, F(-c.limit_y)), F(c.limit_y));
    const F j0 = F(c.fx) * o.inv_z, j1 = F(c.fy) * o.inv_z;
    o.m0 = {j0 * (F(c.r[0][0]) - o.u * F(c.r[2][0])), j0 * (F(c.r[0][1]) - o.u * F(c.r[2][1])),
            j0 * (F(c.r[0][2]) - o.u * F(c.r[2][2]))};
    o.m1 = {j1 * (F(c.r[1][0]) - o.v * F(c.r[2][0])), j1 * (F(c.r[1][1]) - o.v * F(c.r[2][1])),
            j1 * (F(c.r[1][2]) - o.v * F(c.r[2][2]))};
    const Vec3<F> s0 = times(sigma, o.m0);
    o.cov = {dot(o.m0, s0), dot(o.m1, s0), dot(o.m1, times(sigma, o.m1))};
    return o;
}

// The dilated covariance Sigma' and its inverse.
template <class F> struct Footprint {
    Sym2<F> cov, inverse;
    F det, inv_det;
};

template <class F> DGR_FN Footprint<F> footprint(const Sym2<F>& sharp) {
    Footprint<F> o;
    o.cov = {sharp.xx + F(DILATION), sharp.xy, sharp.yy + F(DILATION)};
    o.det = o.cov.xx * o.cov.yy - o.cov.xy * o.cov.xy;
    o.inv_det = F(1.0f) / o.det;
    o.inverse = {o.cov.yy * o.inv_det, -(o.cov.xy * o.inv_det), o.cov.xx * o.inv_det};
    return o;
}

// a, b and c of log2(alpha) = log2(o) + a dx^2 + b dx dy + c dy^2, as xx, xy and yy.
template <class F> DGR_FN Sym2<F> log2_conic(const Footprint<F>& f) {
    return {F(-0.5f * LOG2_E) * f.inverse.xx, F(-LOG2_E) * f.inverse.xy, F(-0.5f * LOG2_E) * f.inverse.yy};
}

// Three standard deviations along the longer axis, in pixels.
template <class F> DGR_FN F radius(const Footprint<F>& f) {
    const F middle = F(0.5f) * (f.cov.xx + f.cov.yy);
    return F(3.0f) * sqrt(middle + sqrt(max(middle * middle - f.det, F(0.0f))));
}

// det Sigma'_0 / det Sigma', whose root scales the opacity (Mip-Splatting, Yu et al. 2024, the 2D filter).
template <class F> DGR_FN F mip_filter(const Sym2<F>& sharp, const Footprint<F>& f) {
    return max((sharp.xx * sharp.yy - sharp.xy * sharp.xy) * f.inv_det, F(0.0f));
}

// Gradients of the pixel mean and of the projected covariance (one number per stored entry).
template <class F> struct SplatGradient {
    F x, y;
    Sym2<F> cov;
};

// With Q = Sigma'^-1: d/dmean2d = Q sum q d, d/dSigma' = 1/2 Q (sum q d d^T) Q, d/d ln o = sum q.
template <class F>
DGR_FN SplatGradient<F> footprint_backward(const Footprint<F>& f, const Sym2<F>& sharp, const F* m, bool antialiasing) {
    const F half(0.5f), two(2.0f);
    const Sym2<F>& q = f.inverse;
    SplatGradient<F> g;
    g.x = q.xx * m[Q_X] + q.xy * m[Q_Y];
    g.y = q.xy * m[Q_X] + q.yy * m[Q_Y];
    const F ax = q.xx * m[Q_XX] + q.xy * m[Q_XY], ay = q.xx * m[Q_XY] + q.xy * m[Q_YY];  // rows of Q M
    const F bx = q.xy * m[Q_XX] + q.yy * m[Q_XY], by = q.xy * m[Q_XY] + q.yy * m[Q_YY];
    g.cov = {half * (ax * q.xx + ay * q.xy), ax * q.xy + ay * q.yy, half * (bx * q.xy + by * q.yy)};
    if (antialiasing) {  // ln o' = ln o + 1/2 (ln det Sigma'_0 - ln det Sigma')
        const F inv0 = F(1.0f) / (sharp.xx * sharp.yy - sharp.xy * sharp.xy), weight = half * m[Q];
        g.cov.xx += weight * (sharp.yy * inv0 - q.xx);
        g.cov.yy += weight * (sharp.xx * inv0 - q.yy);
        g.cov.xy += two * weight * sharp.xy * (f.inv_det - inv0);
    }
    return g;
}

// Adds to g_mean and g_sigma (one number per stored entry) from the gradients of pixel mean, depth and projected covariance.
template <class F>
DGR_FN void project_backward(const Camera& c, const Projection<F>& o, const Sym3<F>& sigma, F g_x, F g_y, F g_depth,
                             Sym2<F> g, Vec3<F>& g_mean, Sym3<F>& g_sigma) {
    const F two(2.0f);
    const Vec3<F>&a = o.m0, &b = o.m1;
    g_sigma.xx += g.xx * a.x * a.x + g.xy * a.x * b.x + g.yy * b.x * b.x;
    g_sigma.yy += g.xx * a.y * a.y + g.xy * a.y * b.y + g.yy * b.y * b.y;
    g_sigma.zz += g.xx * a.z * a.z + g.xy * a.z * b.z + g.yy * b.z * b.z;
    g_sigma.xy += two * (g.xx * a.x * a.y + g.yy * b.x * b.y) + g.xy * (a.x * b.y + a.y * b.x);
    g_sigma.xz += two * (g.xx * a.x * a.z + g.yy * b.x * b.z) + g.xy * (a.x * b.z + a.z * b.x);
    g_sigma.yz += two * (g.xx * a.y * a.z + g.yy * b.y * b.z) + g.xy * (a.y * b.z + a.z * b.y);

    const Vec3<F> s0 = times(sigma, a), s1 = times(sigma, b);
    const Vec3<F> g_m0{two * g.xx * s0.x + g.xy * s1.x, two * g.xx * s0.y + g.xy * s1.y, two * g.xx * s0.z + g.xy * s1.z};
    const Vec3<F> g_m1{g.xy * s0.x + two * g.yy * s1.x, g.xy * s0.y + two * g.yy * s1.y, g.xy * s0.z + two * g.yy * s1.z};
    const Vec3<F> r0{c.r[0][0], c.r[0][1], c.r[0][2]}, r1{c.r[1][0], c.r[1][1], c.r[1][2]},
        r2{c.r[2][0], c.r[2][1], c.r[2][2]};
    // m0 = (fx / z) (r0 - u r2), m1 = (fy / z) (r1 - v r2)
    const F along0 = dot(g_m0, r2), along1 = dot(g_m1, r2);
    F g_inv_z = F(c.fx) * (dot(g_m0, r0) - o.u * along0) + F(c.fy) * (dot(g_m1, r1) - o.v * along1);
    F g_u = -(F(c.fx) * o.inv_z * along0), g_v = -(F(c.fy) * o.inv_z * along1);
    const F raw_u = o.p.x * o.inv_z, raw_v = o.p.y * o.inv_z;
    g_u = keep((raw_u >= F(-c.limit_x)) & (raw_u <= F(c.limit_x)), g_u) + F(c.fx) * g_x;
    g_v = keep((raw_v >= F(-c.limit_y)) & (raw_v <= F(c.limit_y)), g_v) + F(c.fy) * g_y;
    g_inv_z += o.p.x * g_u + o.p.y * g_v;
    const Vec3<F> g_p{o.inv_z * g_u, o.inv_z * g_v, g_depth - o.inv_z * o.inv_z * g_inv_z};
    g_mean.x += r0.x * g_p.x + r1.x * g_p.y + r2.x * g_p.z;
    g_mean.y += r0.y * g_p.x + r1.y * g_p.y + r2.y * g_p.z;
    g_mean.z += r0.z * g_p.x + r1.z * g_p.y + r2.z * g_p.z;
}

}  // namespace dgr
