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

inline F column(const float* rows, int c) { return load(rows + c * LANES); }

struct Shape {
    Rotation<F> rotation;
    Vec3<F> s;  // scales times the modifier
    Sym3<F> sigma;
};

// The parameters of LANES Gaussians.
struct Lanes {
    alignas(64) float mean[3 * LANES], scale[3 * LANES], rotation[4 * LANES], covariance[6 * LANES], opacity[LANES],
        color[3 * MAX_COEFFICIENTS * LANES];
    int used_coefficients;

    Lanes(const Scene& s, int64_t first, int lanes) {
        used_coefficients = (s.sh_degree + 1) * (s.sh_degree + 1);
        gather_rows(mean, s.means, 3, 3, first, lanes);
        gather_rows(opacity, s.opacities, 1, 1, first, lanes);
        if (s.covariances) {
            gather_rows(covariance, s.covariances, 6, 6, first, lanes);
        } else {
            gather_rows(scale, s.scales, 3, 3, first, lanes);
            gather_rows(rotation, s.rotations, 4, 4, first, lanes);
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

    // Lanes whose parameters are all finite (0 * x is 0 for finite x only); a rotation of length 0 has no direction.
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
        F length = zero;
        for (int c = 0; c < 3; ++c) probe += column(scale, c) * zero;
        for (int c = 0; c < 4; ++c) {
            probe += column(rotation, c) * zero;
            length += column(rotation, c) * column(rotation, c);
        }
        return (probe >= zero) & (probe <= zero) & (length > zero);
    }
};

}  // namespace dgr
