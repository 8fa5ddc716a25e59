// Real spherical harmonics up to degree 3 with the signs that 3DGS files use (Condon-Shortley phase kept), and their
// derivatives with respect to the direction.
#pragma once
#include "math.h"

namespace dgr {

constexpr float SH0 = 0.28209479177387814f;  // 1/2 sqrt(1/pi)
constexpr float SH1 = 0.48860251190291992f;  // sqrt(3/(4 pi))
constexpr float SH2_XY = 1.0925484305920792f, SH2_ZZ = 0.31539156525252005f, SH2_XX = 0.54627421529603959f;
constexpr float SH3_3 = 0.59004358992664352f, SH3_2 = 1.4453057213202769f, SH3_1 = 0.45704579946446573f,
                SH3_0 = 0.37317633259011541f;

// y[k] for k < (degree + 1)^2; d is a unit vector.
template <class F> DGR_FN void sh_basis(int degree, Vec3<F> d, F* y) {
    y[0] = F(SH0);
    if (degree < 1) return;
    y[1] = F(-SH1) * d.y;
    y[2] = F(SH1) * d.z;
    y[3] = F(-SH1) * d.x;
    if (degree < 2) return;
    const F xx = d.x * d.x, yy = d.y * d.y, zz = d.z * d.z;
    y[4] = F(SH2_XY) * d.x * d.y;
    y[5] = F(-SH2_XY) * d.y * d.z;
    y[6] = F(SH2_ZZ) * (F(2.0f) * zz - xx - yy);
    y[7] = F(-SH2_XY) * d.x * d.z;
    y[8] = F(SH2_XX) * (xx - yy);
    if (degree < 3) return;
    y[9] = F(-SH3_3) * d.y * (F(3.0f) * xx - yy);
    y[10] = F(2.0f * SH3_2) * d.x * d.y * d.z;
    y[11] = F(-SH3_1) * d.y * (F(4.0f) * zz - xx - yy);
    y[12] = F(SH3_0) * d.z * (F(2.0f) * zz - F(3.0f) * (xx + yy));
    y[13] = F(-SH3_1) * d.x * (F(4.0f) * zz - xx - yy);
    y[14] = F(SH3_2) * d.z * (xx - yy);
    y[15] = F(-SH3_3) * d.x * (xx - F(3.0f) * yy);
}

// Gradient with respect to d (taken as three free numbers) of sum_k w[k] y[k].
template <class F> DGR_FN Vec3<F> sh_basis_backward(int degree, Vec3<F> d, const F* w) {
    Vec3<F> g{F(0.0f), F(0.0f), F(0.0f)};
    if (degree < 1) return g;
    g = {F(-SH1) * w[3], F(-SH1) * w[1], F(SH1) * w[2]};
    if (degree < 2) return g;
    const F x = d.x, y = d.y, z = d.z, two(2.0f);
    g.x += F(SH2_XY) * (y * w[4] - z * w[7]) + two * x * (F(SH2_XX) * w[8] - F(SH2_ZZ) * w[6]);
    g.y += F(SH2_XY) * (x * w[4] - z * w[5]) - two * y * (F(SH2_XX) * w[8] + F(SH2_ZZ) * w[6]);
    g.z += F(4.0f * SH2_ZZ) * z * w[6] - F(SH2_XY) * (y * w[5] + x * w[7]);
    if (degree < 3) return g;
    const F xx = x * x, yy = y * y, zz = z * z, xy = x * y, xz = x * z, yz = y * z, three(3.0f), six(6.0f), eight(8.0f);
    g.x += F(-SH3_3) * (six * xy * w[9] + three * (xx - yy) * w[15]) + F(2.0f * SH3_2) * (yz * w[10] + xz * w[14]) +
           F(SH3_1) * (two * xy * w[11] - (F(4.0f) * zz - three * xx - yy) * w[13]) - F(SH3_0) * six * xz * w[12];
    g.y += F(-SH3_3) * (three * (xx - yy) * w[9] - six * xy * w[15]) + F(2.0f * SH3_2) * (xz * w[10] - yz * w[14]) +
           F(SH3_1) * (two * xy * w[13] - (F(4.0f) * zz - xx - three * yy) * w[11]) - F(SH3_0) * six * yz * w[12];
    g.z += F(SH3_2) * (two * xy * w[10] + (xx - yy) * w[14]) - F(SH3_1) * eight * (yz * w[11] + xz * w[13]) +
           F(SH3_0) * (six * zz - three * (xx + yy)) * w[12];
    return g;
}

// From the camera to the Gaussian: unit vector and 1 / length.
template <class F> struct Direction {
    Vec3<F> unit;
    F inv_length;
};

template <class F> DGR_FN Direction<F> direction(const Camera& c, Vec3<F> mean) {
    const Vec3<F> d{mean.x - F(c.centre[0]), mean.y - F(c.centre[1]), mean.z - F(c.centre[2])};
    const F inv = F(1.0f) / sqrt(dot(d, d));
    return {{d.x * inv, d.y * inv, d.z * inv}, inv};
}

// The harmonics in this direction plus 0.5, not below 0 (not a number stays so); sh(k, channel) gives a coefficient.
template <class F, class Coefficients> DGR_FN Vec3<F> sh_color(int degree, const Direction<F>& d, const Coefficients& sh) {
    F basis[MAX_COEFFICIENTS];
    sh_basis(degree, d.unit, basis);
    F sum[3] = {F(0.5f), F(0.5f), F(0.5f)};
    for (int k = 0; k < (degree + 1) * (degree + 1); ++k)
        for (int ch = 0; ch < 3; ++ch) sum[ch] = fma(basis[k], sh(k, ch), sum[ch]);
    for (F& channel : sum) channel = select(channel < F(0.0f), F(0.0f), channel);
    return {sum[0], sum[1], sum[2]};
}

// Adds to the gradients of the coefficients, g_sh[3 k + channel], and of the mean, from the gradient of the colour in which
// clamped channels are 0.
template <class F, class Coefficients>
DGR_FN void sh_color_backward(int degree, const Direction<F>& d, const Coefficients& sh, const F* g_rgb, F* g_sh, Vec3<F>& g_mean) {
    F basis[MAX_COEFFICIENTS], weight[MAX_COEFFICIENTS];
    sh_basis(degree, d.unit, basis);
    for (int k = 0; k < (degree + 1) * (degree + 1); ++k) {
        weight[k] = F(0.0f);
        for (int ch = 0; ch < 3; ++ch) {
            g_sh[k * 3 + ch] = fma(basis[k], g_rgb[ch], g_sh[k * 3 + ch]);
            weight[k] = fma(g_rgb[ch], sh(k, ch), weight[k]);
        }
    }
    if (degree == 0) return;
    const Vec3<F> g_unit = sh_basis_backward(degree, d.unit, weight);
    const F along = dot(g_unit, d.unit);
    g_mean.x += d.inv_length * (g_unit.x - along * d.unit.x);
    g_mean.y += d.inv_length * (g_unit.y - along * d.unit.y);
    g_mean.z += d.inv_length * (g_unit.z - along * d.unit.z);
}

}  // namespace dgr
