// The C ABI that cpu.py loads.
#include <algorithm>
#include <cmath>
#include <new>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "simd.h"
#include "team.h"
#include "types.h"

namespace dgr {
namespace {

// More parts than threads, for threads do not start at the same time nor run at the same speed. A part begins at a multiple of
// LANES, so that slots do not depend on their number.
void divide(const Scene& s, Workspace& w) {
    constexpr int64_t ENOUGH = 1024, PER_THREAD = 8;  // Gaussians, parts
    const int64_t most = s.threads == 1 ? 1 : PER_THREAD * s.threads;
    const int64_t parts = std::max<int64_t>(1, std::min(most, s.count / ENOUGH)), chunks = (s.count + LANES - 1) / LANES;
    w.parts.resize(parts);
    for (int64_t i = 0; i < parts; ++i) {
        w.parts[i].begin = std::min(s.count, chunks * i / parts * LANES);
        w.parts[i].end = std::min(s.count, chunks * (i + 1) / parts * LANES);
    }
}

void prepare(const Scene& s, Workspace& w) {
    w.error = 0;
    w.cameras.resize(s.views);
    for (int64_t v = 0; v < s.views; ++v)
        w.cameras[v] = camera(s.viewmats + v * 16, s.focals + v * 2, s.principals + v * 2, s.width, s.height);
    w.tiles_x = (s.width + TILE_WIDTH - 1) / TILE_WIDTH;
    w.tiles_y = (s.height + TILE_HEIGHT - 1) / TILE_HEIGHT;
    w.threads.resize(s.threads);
    divide(s, w);
    for (Part& part : w.parts)
        if (!part.per_tile.reserve(static_cast<size_t>(s.views) * w.tiles_per_view())) throw std::bad_alloc();
    const size_t chunks = (s.count + LANES - 1) / LANES, records = chunks * LANES * s.views;
    if (chunks && (!w.records.reserve(records) || !w.reached.reserve(records) || !w.first_slot.reserve(chunks)))
        throw std::bad_alloc();
}

void count_fates(const Scene& s, const Images& out, const Workspace& w) {
    for (int64_t i = 0; i < s.views * FATES; ++i) {
        out.counts[i] = 0;
        for (const Part& part : w.parts) out.counts[i] += part.fates[i];
    }
}

// Runs a step, which must not throw: out of memory becomes the call's error.
template <class Step> void attempt(Workspace& w, const Step& step) {
    try {
        step();
    } catch (const std::bad_alloc&) {
        w.error = OUT_OF_MEMORY;
    }
}

void forward(const Scene& s, const Images& out, Workspace& w) {
    prepare(s, w);
    share(s.threads, w.parts.size(), [&](int, uint32_t i) { attempt(w, [&] { preprocess(s, out, w, w.parts[i]); }); });
    if (w.error) return;
    assign_tiles(w);
    count_fates(s, out, w);
    if (w.error) return;
    share(s.threads, w.parts.size(), [&](int, uint32_t i) { scatter(w, w.parts[i]); });
    for (ThreadData& own : w.threads) {
        own.stretches.clear();
        own.visits.clear();
    }
    share(s.threads, w.tile_order.size(), [&](int thread, uint32_t i) {
        ThreadData& own = w.threads[thread];
        const uint32_t tile = w.tile_order[i];
        const size_t stretch = own.stretches.size(), visit = own.visits.size();
        sort_tile(w, own, tile);
        render_tile(s, out, w, own, tile);
        w.tile_visits[tile] = {thread, stretch, own.stretches.size(), visit};
    });
}

void backward(const Scene& s, const Images& out, const Gradients& g, Workspace& w) {
    w.error = 0;
    const size_t instances = w.tile_start.back();
    if (instances && !w.moments.reserve(instances)) throw std::bad_alloc();
    const size_t shares = (s.count + LANES - 1) / LANES * s.views;
    if (g.of_cameras() && shares && !w.camera_shares.reserve(shares)) throw std::bad_alloc();
    w.threads.resize(std::max<size_t>(w.threads.size(), s.threads));
    divide(s, w);
    share(s.threads, w.tile_order.size(),
          [&](int thread, uint32_t i) { render_tile_backward(s, out, g, w, w.threads[thread], w.tile_order[i]); });
    if (w.error) return;
    share(s.threads, w.parts.size(), [&](int, uint32_t i) { preprocess_backward(s, g, w, w.parts[i]); });
    if (g.of_cameras()) share(s.threads, s.views, [&](int, uint32_t view) { sum_camera_gradients(s, g, w, view); });
}

// Runs the work on as many threads as it can use: no more than there are tiles.
template <class Work> int guarded(const Scene& given, Workspace& w, const Work& work) {
    const int64_t tiles_x = (given.width + TILE_WIDTH - 1) / TILE_WIDTH, tiles_y = (given.height + TILE_HEIGHT - 1) / TILE_HEIGHT;
    const int64_t tiles = given.views * tiles_x * tiles_y;
    Scene s = given;
    s.threads = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(given.threads, tiles)));
    try {
        work(s);
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
