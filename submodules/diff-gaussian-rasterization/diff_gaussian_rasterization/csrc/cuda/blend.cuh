// One tile, front to back (3DGS Eq. 3).
#pragma once
#include "batch.cuh"

namespace dgr {

__device__ inline void render_tile(const Frame& f, const TileList& list, BatchShared& shared) {
    const Pixel pixel(f, list);
    float transmittance = 1.0f, red = 0.0f, green = 0.0f, blue = 0.0f, depth = 0.0f;
    bool stopped = !pixel.inside;
    for (u32 first = 0; first < list.count; first += THREADS) {
        if (__syncthreads_and(stopped)) break;
        stage(f, list, first, shared);
        __syncthreads();
        const int staged = list.count - first < THREADS ? static_cast<int>(list.count - first) : THREADS;
        for (int group = 0; group < staged && !__all_sync(ALL_LANES, stopped); group += WARP)
            for (u32 hits = records_in_patch(shared, group, staged, list); hits; hits &= hits - 1) {
                const int i = group + __ffs(hits) - 1;
                const Coverage c(staged_splat(shared, i), pixel, transmittance);
                if (stopped || !c.reached) continue;
                if (c.stops) {
                    stopped = true;
                    continue;
                }
                const float weight = transmittance * c.alpha;
                const float4 paint = shared.paint[i];
                red = fma(weight, paint.x, red);
                green = fma(weight, paint.y, green);
                blue = fma(weight, paint.z, blue);
                depth = fma(weight, paint.w, depth);
                transmittance = c.after;
            }
    }
    __syncthreads();  // another list may follow
    if (!pixel.inside) return;
    const float* background = f.backgrounds + list.view * 3;
    float* rgb = f.rgb + list.view * 3 * pixel.plane + pixel.at;
    rgb[0] = fma(transmittance, background[0], red);
    rgb[pixel.plane] = fma(transmittance, background[1], green);
    rgb[2 * pixel.plane] = fma(transmittance, background[2], blue);
    f.depth[list.view * pixel.plane + pixel.at] = depth;
    f.alpha[list.view * pixel.plane + pixel.at] = 1.0f - transmittance;
}

}  // namespace dgr
