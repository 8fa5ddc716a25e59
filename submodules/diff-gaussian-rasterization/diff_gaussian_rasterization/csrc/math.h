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
constexpr float MAX_DEPTH = 1e15f;       // world units; the gradients of what is farther would overflow
constexpr float LOG2_E = 1.44269504088896340736f;
constexpr float LN_2 = 0.69314718055994530942f;
// Rounding in a bound must not drop a pixel that the exact test takes: bounds are wider by so many pixels, and by so much in
// log2(alpha).
constexpr float BOUND_SLACK = 1e-2f;
constexpr float EXPONENT_SLACK = 1e-2f;
constexpr float SMALLEST_NORMAL = 1.17549435e-38f, LARGEST = 3.40282347e38f;
constexpr float HUGE_NUMBER = 3e38f;  // beyond it lies little but infinity
constexpr int MAX_COEFFICIENTS = 16;  // spherical harmonics of degree 3

// What becomes of a Gaussian in a view: the first that holds (scene.py: COUNTS).
enum Fate { VISIBLE, NONFINITE, BEHIND, DEGENERATE, FAINT, OUTSIDE, FATES };

// Gradient sums over the pixels of a Gaussian, with q = dL/dalpha * alpha and t = dy - rho dx (Ellipse): Q, Q_X = sum q dx,
// Q_T = sum q t, Q_XX = sum q dx^2, ... and of the colour and depth.
enum Moment { Q, Q_X, Q_T, Q_XX, Q_XT, Q_TT, RED, GREEN, BLUE, DEPTH, MOMENTS };

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

// From a row-major [4,4] world to camera matrix.
DGR_FN Camera camera(const float* viewmat, const float* focal, const float* principal, int width, int height) {
    Camera c;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) c.r[i][j] = viewmat[i * 4 + j];
        c.t[i] = viewmat[i * 4 + 3];
    }
    for (int j = 0; j < 3; ++j) c.centre[j] = -(c.r[0][j] * c.t[0] + c.r[1][j] * c.t[1] + c.r[2][j] * c.t[2]);
    c.fx = focal[0];
    c.fy = focal[1];
    c.cx = principal[0];
    c.cy = principal[1];
    c.limit_x = 1.3f * 0.5f * static_cast<float>(width) / c.fx;
    c.limit_y = 1.3f * 0.5f * static_cast<float>(height) / c.fy;
    return c;
}

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

// det(M Sigma M^T), M = J R having rows m0 and m1, of Sigma = R S S^T R^T: the sum of the squared 2 x 2 minors of M R S
// (Cauchy-Binet). Nothing cancels, as it does in xx yy - xy^2 for a needle.
template <class F> DGR_FN F projected_determinant(const Projection<F>& p, const Mat3<F>& rotation, Vec3<F> s) {
    const auto& r = rotation.m;
    const Vec3<F> n{p.m0.y * p.m1.z - p.m0.z * p.m1.y, p.m0.z * p.m1.x - p.m0.x * p.m1.z, p.m0.x * p.m1.y - p.m0.y * p.m1.x};
    const F x = s.y * s.z * (r[0][0] * n.x + r[1][0] * n.y + r[2][0] * n.z);
    const F y = s.x * s.z * (r[0][1] * n.x + r[1][1] * n.y + r[2][1] * n.z);
    const F z = s.x * s.y * (r[0][2] * n.x + r[1][2] * n.y + r[2][2] * n.z);
    return x * x + y * y + z * z;
}

template <class F> DGR_FN F determinant(const Sym2<F>& m) { return m.xx * m.yy - m.xy * m.xy; }

// Sigma' = Sigma'_0 + DILATION I, factored: with t = dy - rho dx, d^T Sigma'^-1 d = inv_xx dx^2 + inv_tt t^2, and
// log2(alpha) = log2(o) - (p dx)^2 - (q t)^2. For a needle the rounding of this form grows with the root of Sigma''s condition,
// that of xx dx^2 + 2 xy dx dy + yy dy^2 with the condition itself.
template <class F> struct Ellipse {
    Sym2<F> sharp, cov;  // before and after the dilation
    F sharp_det, det;
    F rho, inv_xx, inv_tt, p, q;
};

template <class F> DGR_FN Ellipse<F> ellipse(const Sym2<F>& sharp, F sharp_det) {
    Ellipse<F> o;
    o.sharp = sharp;
    o.cov = {sharp.xx + F(DILATION), sharp.xy, sharp.yy + F(DILATION)};
    o.sharp_det = sharp_det;
    o.det = sharp_det + F(DILATION) * (sharp.xx + sharp.yy) + F(DILATION * DILATION);
    o.inv_xx = F(1.0f) / o.cov.xx;
    o.inv_tt = o.cov.xx / o.det;
    o.rho = o.cov.xy * o.inv_xx;
    o.p = sqrt(F(0.5f * LOG2_E) * o.inv_xx);
    o.q = sqrt(F(0.5f * LOG2_E) * o.inv_tt);
    return o;
}

// Whether it is an ellipse, and small enough for float32 to hold its gradients.
template <class F> DGR_FN auto proper(const Ellipse<F>& e) {
    return (e.det > F(0.0f)) & (e.cov.xx * e.cov.yy < F(HUGE_NUMBER));
}

// Three standard deviations along the longer axis, in pixels.
template <class F> DGR_FN F radius(const Ellipse<F>& e) {
    const F middle = F(0.5f) * (e.cov.xx + e.cov.yy);
    return F(3.0f) * sqrt(middle + sqrt(max(middle * middle - e.det, F(0.0f))));
}

// det Sigma'_0 / det Sigma', whose root scales the opacity (Mip-Splatting, Yu et al. 2024, the 2D filter).
template <class F> DGR_FN F mip_filter(const Ellipse<F>& e) { return max(e.sharp_det / e.det, F(0.0f)); }

// Gradients of the pixel mean and of the projected covariance (one number per stored entry).
template <class F> struct SplatGradient {
    F x, y;
    Sym2<F> cov;
};

// With Q = Sigma'^-1: d/dmean2d = sum q Q d, d/dSigma' = 1/2 sum q (Q d)(Q d)^T, d/d ln o = sum q, from the moments of dx and t.
// (Those of dx and dy, with Q applied on both sides, would be the same on paper; for needles they cancel, with an error that
// grows as the square of the condition.)
template <class F> DGR_FN SplatGradient<F> ellipse_backward(const Ellipse<F>& e, const F* m, bool antialiasing) {
    const F half(0.5f), a = e.inv_xx, b = e.inv_tt, c = b * e.rho;  // Q d = (a dx - c t, b t)
    const F x = a * m[Q_XX] - c * m[Q_XT], t = a * m[Q_XT] - c * m[Q_TT];
    SplatGradient<F> g{a * m[Q_X] - c * m[Q_T], b * m[Q_T], {half * (a * x - c * t), b * t, half * b * b * m[Q_TT]}};
    if (antialiasing) {  // ln o' = ln o + 1/2 (ln det Sigma'_0 - ln det Sigma')
        const F inv0 = F(1.0f) / e.sharp_det, inv = F(1.0f) / e.det, weight = half * m[Q];
        g.cov.xx += weight * (e.sharp.yy * inv0 - e.cov.yy * inv);
        g.cov.yy += weight * (e.sharp.xx * inv0 - e.cov.xx * inv);
        g.cov.xy += F(2.0f) * weight * e.sharp.xy * (inv - inv0);
    }
    return g;
}

// Gradients within a projection: of the point in the camera's frame, of the rows of J R, and of u and v where they are clamped.
template <class F> struct ProjectionGradient {
    Vec3<F> p, m0, m1;
    F limit_u, limit_v;
};

// Adds to g_mean and g_sigma (one number per stored entry) from the gradients of pixel mean, depth and projected covariance.
template <class F>
DGR_FN ProjectionGradient<F> project_backward(const Camera& c, const Projection<F>& o, const Sym3<F>& sigma, F g_x, F g_y, F g_depth,
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
    const F free_u = keep((raw_u >= F(-c.limit_x)) & (raw_u <= F(c.limit_x)), g_u);
    const F free_v = keep((raw_v >= F(-c.limit_y)) & (raw_v <= F(c.limit_y)), g_v);
    const F limit_u = g_u - free_u, limit_v = g_v - free_v;
    g_u = free_u + F(c.fx) * g_x;
    g_v = free_v + F(c.fy) * g_y;
    g_inv_z += o.p.x * g_u + o.p.y * g_v;
    const Vec3<F> g_p{o.inv_z * g_u, o.inv_z * g_v, g_depth - o.inv_z * o.inv_z * g_inv_z};
    g_mean.x += r0.x * g_p.x + r1.x * g_p.y + r2.x * g_p.z;
    g_mean.y += r0.y * g_p.x + r1.y * g_p.y + r2.y * g_p.z;
    g_mean.z += r0.z * g_p.x + r1.z * g_p.y + r2.z * g_p.z;
    return {g_p, g_m0, g_m1, limit_u, limit_v};
}

// Gradients of a camera: rows of its rotation, translation, and intrinsics.
template <class F> struct CameraGradient {
    Vec3<F> r[3], t;
    F fx, fy, cx, cy;
};

// What one Gaussian adds; g_x and g_y are those of its pixel mean.
template <class F>
DGR_FN CameraGradient<F> camera_backward(const Camera& c, const Projection<F>& o, Vec3<F> mean, const ProjectionGradient<F>& g, F g_x, F g_y) {
    const F j0 = F(c.fx) * o.inv_z, j1 = F(c.fy) * o.inv_z, j0u = j0 * o.u, j1v = j1 * o.v;
    const Vec3<F> r0{c.r[0][0], c.r[0][1], c.r[0][2]}, r1{c.r[1][0], c.r[1][1], c.r[1][2]}, r2{c.r[2][0], c.r[2][1], c.r[2][2]};
    CameraGradient<F> a;
    a.r[0] = {g.p.x * mean.x + j0 * g.m0.x, g.p.x * mean.y + j0 * g.m0.y, g.p.x * mean.z + j0 * g.m0.z};
    a.r[1] = {g.p.y * mean.x + j1 * g.m1.x, g.p.y * mean.y + j1 * g.m1.y, g.p.y * mean.z + j1 * g.m1.z};
    a.r[2] = {g.p.z * mean.x - j0u * g.m0.x - j1v * g.m1.x, g.p.z * mean.y - j0u * g.m0.y - j1v * g.m1.y,
              g.p.z * mean.z - j0u * g.m0.z - j1v * g.m1.z};
    a.t = g.p;
    // The limits of u and v fall with the focal length: du / dfx = -u / fx where u is clamped.
    a.fx = g_x * o.p.x * o.inv_z + o.inv_z * (dot(g.m0, r0) - o.u * dot(g.m0, r2)) - g.limit_u * o.u / F(c.fx);
    a.fy = g_y * o.p.y * o.inv_z + o.inv_z * (dot(g.m1, r1) - o.v * dot(g.m1, r2)) - g.limit_v * o.v / F(c.fy);
    a.cx = g_x;
    a.cy = g_y;
    return a;
}

// Adds what the harmonics' direction gives: d = mean - centre with centre = -R^T t, g_d its gradient.
template <class F> DGR_FN void direction_backward(const Camera& c, Vec3<F> g_d, CameraGradient<F>& a) {
    F* t[3] = {&a.t.x, &a.t.y, &a.t.z};
    for (int i = 0; i < 3; ++i) {
        const F ti(c.t[i]);
        a.r[i].x += ti * g_d.x;
        a.r[i].y += ti * g_d.y;
        a.r[i].z += ti * g_d.z;
        *t[i] += dot(Vec3<F>{F(c.r[i][0]), F(c.r[i][1]), F(c.r[i][2])}, g_d);
    }
}

}  // namespace dgr
