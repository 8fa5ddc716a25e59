// Random scenes that misbehave in every way a caller's can: what a seed draws is the same everywhere.
#pragma once
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

#include "types.h"

namespace fuzz {

class Random {
public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t bits() {  // SplitMix64 (Steele et al. 2014)
        uint64_t z = state_ += 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }
    int below(int n) { return static_cast<int>(bits() % static_cast<uint64_t>(n)); }
    bool chance(double p) { return unit() < p; }
    double unit() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
    float uniform(double low, double high) { return static_cast<float>(low + (high - low) * unit()); }
    float normal() { return static_cast<float>((unit() + unit() + unit() + unit() - 2.0) * 1.7320508); }  // nearly
    template <class T> T any(std::initializer_list<T> of) { return of.begin()[below(static_cast<int>(of.size()))]; }

private:
    uint64_t state_;
};

constexpr float NAN_ = std::numeric_limits<float>::quiet_NaN(), INF = std::numeric_limits<float>::infinity();

inline float special(Random& r) {
    const float value = r.any({NAN_, INF, 0.0f, FLT_TRUE_MIN, FLT_MIN, FLT_MAX, FLT_EPSILON, 1e30f, 1e19f, 1e10f, 1e5f, 1e-5f,
                               1e-10f, 1e-19f, 1e-30f, 1.0f, 0.2f, 65536.0f, 16777216.0f});
    return r.chance(0.5) ? -value : value;
}

// The tensors of one call. Vectors hold exactly what the call may read, an empty one has no address, as in torch.
struct RandomScene {
    int count, views, width, height, degree, coefficients, antialiasing;
    float scale_modifier = 1.0f, near_plane = 0.2f;
    std::vector<float> means, scales, rotations, opacities, shs, colors, covariances;
    std::vector<float> viewmats, focals, principals, backgrounds;
    std::vector<float> upstream_rgb, upstream_depth, upstream_alpha;  // empty where the loss leaves the image out
    uint64_t wanted = ~uint64_t{0};                                   // a bit for each gradient

    explicit RandomScene(uint64_t seed) : random_(seed) {
        const double wild = random_.any({0.0, 0.0, 0.1, 0.6});  // how many Gaussians misbehave
        views = 1 + random_.below(3);
        width = side();
        height = side();
        count = random_.any({0, 1, 3, 16, 17, 40, 40, 150, 300});
        degree = random_.below(4);
        coefficients = used_coefficients() + random_.any({0, 0, 1, 7});
        antialiasing = random_.below(2);
        draw_cameras();
        draw_gaussians();
        for (int i = 0; i < count; ++i)
            if (random_.chance(wild)) misbehave(i);
        if (random_.chance(0.1)) scale_modifier = random_.any({0.0f, -1.0f, 3.0f, 1e-20f, 1e20f, special(random_)});
        if (random_.chance(0.1)) near_plane = random_.any({FLT_TRUE_MIN, 1e-10f, 3.0f, 1e30f, INF});
        if (random_.chance(0.1)) camera_misbehaves();
        const int64_t pixels = int64_t{1} * views * width * height;
        if (random_.chance(0.8)) upstream_rgb = normals(3 * pixels);
        if (random_.chance(0.8)) upstream_depth = normals(pixels);
        if (random_.chance(0.8)) upstream_alpha = normals(pixels);
        if (random_.chance(0.3)) wanted = random_.bits();
    }

    int used_coefficients() const { return (degree + 1) * (degree + 1); }

    dgr::Scene with_threads(int threads) const {
        const auto given = [](const std::vector<float>& v) { return v.empty() ? nullptr : v.data(); };
        dgr::Scene s{};
        s.count = count;
        s.views = views;
        s.width = width;
        s.height = height;
        s.sh_degree = shs.empty() ? 0 : degree;
        s.sh_coefficients = shs.empty() ? 0 : coefficients;
        s.antialiasing = antialiasing;
        s.threads = threads;
        s.scale_modifier = scale_modifier;
        s.near_plane = near_plane;
        s.means = given(means);
        s.scales = given(scales);
        s.rotations = given(rotations);
        s.opacities = given(opacities);
        s.shs = given(shs);
        s.colors = given(colors);
        s.covariances = given(covariances);
        s.viewmats = given(viewmats);
        s.focals = given(focals);
        s.principals = given(principals);
        s.backgrounds = given(backgrounds);
        return s;
    }

private:
    Random random_;

    int side() {
        if (random_.chance(0.5)) return 1 + random_.below(200);
        return random_.any({1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193});
    }

    std::vector<float> normals(int64_t n) {
        std::vector<float> v(static_cast<size_t>(n));
        for (float& x : v) x = random_.normal();
        return v;
    }

    void draw_cameras() {
        viewmats.assign(16 * static_cast<size_t>(views), 0.0f);
        for (int v = 0; v < views; ++v) {
            float* m = &viewmats[16 * static_cast<size_t>(v)];
            const double a = 6.2831853 * random_.unit(), c = std::cos(a), s = std::sin(a);
            const int about = random_.below(3), i = (about + 1) % 3, j = (about + 2) % 3;
            m[about * 5] = m[15] = 1.0f;
            m[i * 5] = m[j * 5] = static_cast<float>(c);
            m[i * 4 + j] = static_cast<float>(-s);
            m[j * 4 + i] = static_cast<float>(s);
            m[11] = 3.0f;
            for (int axis = 0; axis < 2; ++axis) focals.push_back(random_.uniform(0.8, 1.5) * static_cast<float>(width));
            principals.push_back(0.5f * static_cast<float>(width));
            principals.push_back(0.5f * static_cast<float>(height));
            for (int ch = 0; ch < 3; ++ch) backgrounds.push_back(random_.uniform(0, 1));
        }
    }

    void draw_gaussians() {
        means = normals(3 * count);
        for (float& x : means) x *= 0.6f;
        opacities = normals(count);
        for (float& o : opacities) o = random_.uniform(0, 1);
        if (random_.chance(0.5)) {
            shs = normals(3 * count * coefficients);
        } else {
            colors = normals(3 * count);
        }
        const double size = random_.any({0.003, 0.05, 0.05, 0.5});
        if (random_.chance(0.7)) {
            rotations = normals(4 * count);
            scales = normals(3 * count);
            for (float& s : scales) s = static_cast<float>(size * std::exp(0.7 * s));
        } else {
            for (int i = 0; i < count; ++i) {  // L L^T
                float l[3][3];
                for (auto& row : l)
                    for (float& x : row) x = static_cast<float>(size) * random_.normal();
                for (int a = 0; a < 3; ++a)
                    for (int b = a; b < 3; ++b) covariances.push_back(l[a][0] * l[b][0] + l[a][1] * l[b][1] + l[a][2] * l[b][2]);
            }
        }
    }

    float* row(std::vector<float>& v, int i) { return v.data() + v.size() / static_cast<size_t>(count) * static_cast<size_t>(i); }

    void place_in_camera(int i, float x, float y, float z) {  // of the first view; rigid
        const float* m = viewmats.data();
        const float p[3] = {x - m[3], y - m[7], z - m[11]};
        for (int j = 0; j < 3; ++j) row(means, i)[j] = m[j] * p[0] + m[4 + j] * p[1] + m[8 + j] * p[2];
    }

    void set_scales(int i, float a, float b, float c) {
        if (scales.empty()) return;
        float* s = row(scales, i);
        s[0] = a;
        s[1] = b;
        s[2] = c;
    }

    void misbehave(int i) {
        const int other = random_.below(count);
        switch (random_.below(15)) {
        case 0:
        case 1:
        case 2: {  // one number of one parameter
            auto* of = random_.any({&means, &opacities, &scales, &rotations, &shs, &colors, &covariances});
            if (!of->empty()) row(*of, i)[random_.below(static_cast<int>(of->size()) / count)] = special(random_);
            break;
        }
        case 14: {  // all numbers of one parameter
            auto* of = random_.any({&means, &scales, &rotations, &shs, &colors, &covariances});
            if (!of->empty()) std::fill_n(row(*of, i), static_cast<int>(of->size()) / count, special(random_));
            break;
        }
        case 3: place_in_camera(i, random_.normal(), random_.normal(), -3.0f); break;
        case 4: place_in_camera(i, random_.normal(), random_.normal(), near_plane); break;
        case 5: place_in_camera(i, 0.0f, 0.0f, 0.0f); break;
        case 6: place_in_camera(i, 1e3f * random_.normal(), 0.0f, random_.any({1e-30f, 0.2000001f, 1e10f, 1e30f})); break;
        case 7: std::copy_n(row(means, other), 3, row(means, i)); break;  // the same depth exactly
        case 8: std::copy_n(row(means, 0), 3, row(means, i)); break;      // and many in one pixel
        case 9: set_scales(i, random_.any({1.0f, 30.0f, 1e4f, 1e18f}), 1e-6f, random_.any({0.0f, 1e-6f, 1e-25f})); break;
        case 10: set_scales(i, random_.any({50.0f, 1e15f, 1e30f}), 50.0f, 50.0f); break;
        case 11: set_scales(i, 0.0f, random_.any({0.0f, -1.0f}), random_.any({0.0f, FLT_TRUE_MIN})); break;
        case 12:
            opacities[static_cast<size_t>(i)] =
                random_.any({0.0f, 1.0f, 2.0f, -1.0f, 1e30f, FLT_MAX, 0.99f, dgr::MIN_ALPHA, 0.0039215684f, 0.00392157f});
            break;
        case 13:
            if (rotations.empty())
                row(covariances, i)[random_.below(6)] *= random_.any({-1.0f, 0.0f, 1e6f});  // no square of anything
            else
                std::fill_n(row(rotations, i), 4, random_.any({0.0f, 1e-30f, 1e-19f, 1e19f, 1e30f, FLT_TRUE_MIN}));
            break;
        }
    }

    void camera_misbehaves() {
        const size_t v = static_cast<size_t>(random_.below(views));
        switch (random_.below(6)) {
        case 0: viewmats[v * 16 + static_cast<size_t>(random_.below(12))] = special(random_); break;
        case 1: std::fill_n(&viewmats[v * 16], 16, 0.0f); break;
        case 2: std::for_each(&viewmats[v * 16], &viewmats[v * 16] + 12, [k = special(random_)](float& x) { x *= k; }); break;
        case 3: focals[v * 2 + static_cast<size_t>(random_.below(2))] = special(random_); break;
        case 4: principals[v * 2 + static_cast<size_t>(random_.below(2))] = special(random_); break;
        case 5: backgrounds[v * 3 + static_cast<size_t>(random_.below(3))] = special(random_); break;
        }
    }
};

}  // namespace fuzz
