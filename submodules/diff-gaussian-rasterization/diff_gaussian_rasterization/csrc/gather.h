// Rows of a [N, C] array, one Gaussian per lane.
#pragma once
#include "simd.h"
#include "math.h"
#include "types.h"

namespace dgr {

// dst[c * LANES + lane] = src[(first + lane) * stride + c]; lanes past the last row repeat it.
inline void gather_rows(float* dst, const float* src, int stride, int columns, int64_t first, int lanes) {
    for (int lane = 0; lane < LANES; ++lane) {
        const float* row = src + (first + (lane < lanes ? lane : lanes - 1)) * stride;
        for (int c = 0; c < columns; ++c) dst[c * LANES + lane] = row[c];
    }
}
// The same for rows of C numbers without others between them.
template <int C> void gather_rows(float (&dst)[C * LANES], const float* src, int64_t first, int lanes) {
    for (int lane = 0; lane < LANES; ++lane)
        for (int c = 0; c < C; ++c) dst[c * LANES + lane] = src[(first + (lane < lanes ? lane : lanes - 1)) * C + c];
}

inline F column(const float* rows, int c) { return load(rows + c * LANES); }

struct Shape {
    Rotation<F> rotation;
    Vec3<F> s;  // scales times the modifier
    Sym3<F> sigma;

    Ellipse<F> ellipse(const Scene& scene, const Projection<F>& p) const {
        return dgr::ellipse(p.cov, scene.covariances ? determinant(p.cov) : projected_determinant(p, rotation.matrix, s));
    }
};

// The parameters of LANES Gaussians.
struct Lanes {
    alignas(64) float mean[3 * LANES], scale[3 * LANES], rotation[4 * LANES], covariance[6 * LANES], opacity[LANES],
        color[3 * MAX_COEFFICIENTS * LANES];
    int used_coefficients;

    Lanes(const Scene& s, int64_t first, int lanes) {
        used_coefficients = (s.sh_degree + 1) * (s.sh_degree + 1);
        gather_rows<3>(mean, s.means, first, lanes);
        gather_rows<1>(opacity, s.opacities, first, lanes);
        if (s.covariances) {
            gather_rows<6>(covariance, s.covariances, first, lanes);
        } else {
            gather_rows<3>(scale, s.scales, first, lanes);
            gather_rows<4>(rotation, s.rotations, first, lanes);
        }
        if (s.shs)
            gather_rows(color, s.shs, s.sh_coefficients * 3, used_coefficients * 3, first, lanes);
        else
            gather_rows(color, s.colors, 3, 3, first, lanes);
    }

    F coefficient(int k, int channel) const { return column(color, k * 3 + channel); }

    Vec3<F> position() const { return {column(mean, 0), column(mean, 1), column(mean, 2)}; }

    Shape shape(const Scene& s) const {
        Shape o{};
        if (s.covariances) {
            o.sigma = {column(covariance, 0), column(covariance, 1), column(covariance, 2),
                       column(covariance, 3), column(covariance, 4), column(covariance, 5)};
            return o;
        }
        o.rotation = dgr::rotation(Quaternion<F>{column(rotation, 0), column(rotation, 1), column(rotation, 2), column(rotation, 3)});
        const F modifier(s.scale_modifier);
        o.s = {column(scale, 0) * modifier, column(scale, 1) * modifier, column(scale, 2) * modifier};
        o.sigma = dgr::covariance(o.rotation.matrix, o.s);
        return o;
    }

    // Lanes whose parameters are all finite (0 * x is 0 for finite x only), and whose rotation has a direction.
    M finite(const Scene& s) const {
        const F zero(0.0f);
        F probe = zero;
        for (int c = 0; c < 3; ++c) probe += column(mean, c) * zero;
        probe += column(opacity, 0) * zero;
        const int colors = s.shs ? used_coefficients * 3 : 3;
        for (int c = 0; c < colors; ++c) probe += column(color, c) * zero;
        if (s.covariances) {
            for (int c = 0; c < 6; ++c) probe += column(covariance, c) * zero;
            return (probe >= zero) & (probe <= zero);
        }
        F length = zero;  // squared; without all of its digits the rotation would be none
        for (int c = 0; c < 3; ++c) probe += column(scale, c) * zero;
        for (int c = 0; c < 4; ++c) {
            probe += column(rotation, c) * zero;
            length += column(rotation, c) * column(rotation, c);
        }
        return (probe >= zero) & (probe <= zero) & (length >= F(SMALLEST_NORMAL)) & (length <= F(LARGEST));
    }
};

}  // namespace dgr
