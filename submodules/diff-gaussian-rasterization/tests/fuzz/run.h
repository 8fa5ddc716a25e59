// One forward and backward of a random scene through the C ABI, into buffers that show what was not written.
#pragma once
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "scenes.h"

extern "C" {
void* dgr_create();
void dgr_destroy(void*);
int dgr_forward(void*, const dgr::Scene*, const dgr::Images*);
int dgr_backward(void*, const dgr::Scene*, const dgr::Images*, const dgr::Gradients*);
}

namespace fuzz {

struct Workspace {
    void* handle = dgr_create();
    Workspace() = default;
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    ~Workspace() { dgr_destroy(handle); }
};

// A quiet NaN that no arithmetic gives.
inline const float UNTOUCHED = [] {
    const uint32_t bits = 0x7FC0DEAD;
    float f;
    std::memcpy(&f, &bits, sizeof f);
    return f;
}();

template <class T> bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

struct Result {
    std::vector<float> rgb, depth, alpha, means2d;
    std::vector<int32_t> radii, counts;
    std::vector<float> g_means, g_scales, g_rotations, g_opacities, g_shs, g_colors, g_covariances;  // empty: not wanted
    std::vector<float> g_means2d, g_viewmats, g_focals, g_principals;

    explicit Result(const RandomScene& s) {
        const size_t pixels = static_cast<size_t>(s.views) * s.width * s.height, seen = static_cast<size_t>(s.views) * s.count;
        rgb.assign(3 * pixels, UNTOUCHED);
        depth.assign(pixels, UNTOUCHED);
        alpha.assign(pixels, UNTOUCHED);
        radii.assign(seen, INT32_MIN);
        counts.assign(static_cast<size_t>(s.views) * dgr::FATES, INT32_MIN);
        means2d.assign(2 * seen, UNTOUCHED);
        uint64_t wanted = s.wanted;
        const auto want = [&wanted](std::vector<float>& gradient, size_t size) {
            if (wanted & 1) gradient.assign(size, UNTOUCHED);
            wanted >>= 1;
        };
        want(g_means, s.means.size());
        want(g_scales, s.scales.size());
        want(g_rotations, s.rotations.size());
        want(g_opacities, s.opacities.size());
        want(g_shs, s.shs.size());
        want(g_colors, s.colors.size());
        want(g_covariances, s.covariances.size());
        want(g_means2d, means2d.size());
        want(g_viewmats, s.viewmats.size());
        want(g_focals, s.focals.size());
        want(g_principals, s.principals.size());
    }

    // Every float that the call writes, by name.
    std::vector<std::pair<std::string, const std::vector<float>*>> floats() const {
        return {{"rgb", &rgb},
                {"depth", &depth},
                {"alpha", &alpha},
                {"means2d", &means2d},
                {"gradient of means", &g_means},
                {"gradient of scales", &g_scales},
                {"gradient of rotations", &g_rotations},
                {"gradient of opacities", &g_opacities},
                {"gradient of shs", &g_shs},
                {"gradient of colors", &g_colors},
                {"gradient of covariances", &g_covariances},
                {"gradient of means2d", &g_means2d},
                {"gradient of viewmats", &g_viewmats},
                {"gradient of focals", &g_focals},
                {"gradient of principals", &g_principals}};
    }

    bool operator==(const Result& other) const {
        const auto mine = floats(), theirs = other.floats();
        bool same = same_bytes(radii, other.radii) && same_bytes(counts, other.counts);
        for (size_t i = 0; i < mine.size(); ++i) same = same && same_bytes(*mine[i].second, *theirs[i].second);
        return same;
    }
};

// Returns the first error code that is not 0.
inline int run(const RandomScene& random, int threads, Workspace& space, Result& r) {
    const auto given = [](auto& v) { return v.empty() ? nullptr : v.data(); };
    const dgr::Scene scene = random.with_threads(threads);
    const dgr::Images images{r.rgb.data(), r.depth.data(), r.alpha.data(), r.radii.data(), r.means2d.data(), r.counts.data()};
    if (const int code = dgr_forward(space.handle, &scene, &images)) return code;
    const dgr::Gradients gradients{given(random.upstream_rgb), given(random.upstream_depth), given(random.upstream_alpha),
                                   given(r.g_means),           given(r.g_scales),            given(r.g_rotations),
                                   given(r.g_opacities),       given(r.g_shs),               given(r.g_colors),
                                   given(r.g_covariances),     given(r.g_means2d),           given(r.g_viewmats),
                                   given(r.g_focals),          given(r.g_principals)};
    return dgr_backward(space.handle, &scene, &images, &gradients);
}

inline Result expect_run(const RandomScene& random, int threads, Workspace& space) {
    Result result(random);
    if (const int code = run(random, threads, space, result)) throw std::runtime_error("error code " + std::to_string(code));
    return result;
}

}  // namespace fuzz
