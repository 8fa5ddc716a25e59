// The C ABI that cpu.py loads.
#include <algorithm>
#include <cmath>
#include <new>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "parallel.h"
#include "simd.h"
#include "types.h"

namespace dgr {
namespace {

Camera read_camera(const Scene& s, int64_t view) {
    Camera c;
    const float* m = s.viewmats + view * 16;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) c.r[i][j] = m[i * 4 + j];
        c.t[i] = m[i * 4 + 3];
    }
    for (int j = 0; j < 3; ++j) c.centre[j] = -(c.r[0][j] * c.t[0] + c.r[1][j] * c.t[1] + c.r[2][j] * c.t[2]);
    c.fx = s.focals[view * 2];
    c.fy = s.focals[view * 2 + 1];
    c.cx = s.principals[view * 2];
    c.cy = s.principals[view * 2 + 1];
    c.limit_x = 1.3f * 0.5f * static_cast<float>(s.width) / c.fx;
    c.limit_y = 1.3f * 0.5f * static_cast<float>(s.height) / c.fy;
    return c;
}

void prepare(const Scene& s, Workspace& w) {
    w.error = 0;
    w.cameras.resize(s.views);
    for (int64_t v = 0; v < s.views; ++v) w.cameras[v] = read_camera(s, v);
    w.tiles_x = (s.width + TILE - 1) / TILE;
    w.tiles_y = (s.height + TILE - 1) / TILE;
    w.threads.resize(s.threads);
    for (auto& thread : w.threads)
        if (!thread.per_tile.reserve(static_cast<size_t>(s.views) * w.tiles_per_view())) throw std::bad_alloc();
    if (s.count && !w.records.reserve(static_cast<size_t>(s.count) * s.views)) throw std::bad_alloc();
}

void count_fates(const Scene& s, const Images& out, const Workspace& w) {
    for (int64_t i = 0; i < s.views * FATES; ++i) {
        out.fates[i] = 0;
        for (const auto& thread : w.threads) out.fates[i] += thread.fates[i];
    }
}

void forward(const Scene& s, const Images& out, Workspace& w) {
    prepare(s, w);
    run_team(s.threads, [&](int thread, Barrier& barrier) {
        preprocess(s, out, w, thread);
        barrier.wait();
        if (thread == 0) {
            assign_tiles(w);
            count_fates(s, out, w);
        }
        barrier.wait();
        if (w.error) return;
        scatter(w, thread);
        barrier.wait();
        for (uint32_t i; (i = w.next++) < w.tile_order.size();) {
            sort_tile(w, w.threads[thread], w.tile_order[i]);
            render_tile(s, out, w, w.threads[thread], w.tile_order[i]);
        }
    });
}

void backward(const Scene& s, const Images& out, const Gradients& g, Workspace& w) {
    w.error = 0;
    w.next = 0;
    const size_t instances = w.tile_start.back();
    if (instances && !w.moments.reserve(instances)) throw std::bad_alloc();
    w.threads.resize(std::max<size_t>(w.threads.size(), s.threads));
    run_team(s.threads, [&](int thread, Barrier& barrier) {
        for (uint32_t i; (i = w.next++) < w.tile_order.size();)
            render_tile_backward(s, out, g, w, w.threads[thread], w.tile_order[i]);
        barrier.wait();
        if (w.error) return;
        preprocess_backward(s, g, w, thread);
    });
}

// Runs the work on as many threads as it can use: no more than there are tiles, and one if the system has no others left.
template <class Work> int guarded(const Scene& given, Workspace& w, const Work& work) {
    const int64_t tiles = given.views * ((given.width + TILE - 1) / TILE) * ((given.height + TILE - 1) / TILE);
    Scene s = given;
    s.threads = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(given.threads, tiles)));
    try {
        try {
            work(s);
        } catch (const std::system_error&) {
            s.threads = 1;
            work(s);
        }
    } catch (const std::bad_alloc&) {
        return OUT_OF_MEMORY;
    }
    return w.error;
}

}  // namespace
}  // namespace dgr

#define DGR_API extern "C" __attribute__((visibility("default")))

// The best instruction set of this processor that the system saves the registers of: 0 portable, 1 AVX2, 2 AVX-512.
DGR_API int dgr_processor_level() {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const bool fma = c & bit_FMA, saves = c & bit_OSXSAVE;
    if (!fma || !saves || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    unsigned saved, high;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    constexpr unsigned YMM = 0x6, ZMM = 0xE6;
    constexpr unsigned AVX512 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    if ((saved & ZMM) == ZMM && (b & AVX512) == AVX512) return 2;
    if ((saved & YMM) == YMM && (b & bit_AVX2)) return 1;
#endif
    return 0;
}

DGR_API void* dgr_create() { return new (std::nothrow) dgr::Workspace; }
DGR_API void dgr_destroy(void* workspace) { delete static_cast<dgr::Workspace*>(workspace); }

DGR_API int dgr_forward(void* workspace, const dgr::Scene* scene, const dgr::Images* images) {
    auto& w = *static_cast<dgr::Workspace*>(workspace);
    return dgr::guarded(*scene, w, [&](const dgr::Scene& s) { dgr::forward(s, *images, w); });
}

DGR_API int dgr_backward(void* workspace, const dgr::Scene* scene, const dgr::Images* images, const dgr::Gradients* gradients) {
    auto& w = *static_cast<dgr::Workspace*>(workspace);
    return dgr::guarded(*scene, w, [&](const dgr::Scene& s) { dgr::backward(s, *images, *gradients, w); });
}
