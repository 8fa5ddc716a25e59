// One tile, front to back again. With upstream gradient g, v_i = g . (color_i, depth_i) and
// S_i = sum_{j > i} w_j v_j + T_end (g . background - g_alpha), what is still to come after i:
//     dL/dalpha_i = T_i v_i - S_i / (1 - alpha_i).
#pragma once
#include "batch.cuh"

namespace dgr {

// Sums of ten numbers over the warp, by halving: of the numbers that a lane holds it keeps one half and hands the other to its
// partner. Twelve shuffles instead of fifty.
struct WarpSums {
    float value;

    __device__ explicit WarpSums(const float* m) {
        const int lane = threadIdx.x % WARP;
        const bool a = lane & 16, b = lane & 8, c = lane & 4, d = lane & 2;
        float five[5], three[3], two[2];
#pragma unroll
        for (int i = 0; i < 5; ++i) five[i] = halve(a, m[i], m[5 + i], 16);
#pragma unroll
        for (int i = 0; i < 2; ++i) three[i] = halve(b, five[i], five[3 + i], 8);
        three[2] = halve(b, five[2], 0.0f, 8);
        two[0] = halve(c, three[0], three[2], 4);
        two[1] = halve(c, three[1], 0.0f, 4);
        value = halve(d, two[0], two[1], 2);
        value += __shfl_xor_sync(ALL_LANES, value, 1);
    }

    // Which of the ten sums a lane holds, or -1.
    __device__ static int which(int lane) {
        const int half = lane >> 4 & 1, quarter = lane >> 3 & 1, eighth = lane >> 2 & 1, sixteenth = lane >> 1 & 1;
        const int of_three = eighth ? (sixteenth ? -1 : 2) : sixteenth;
        const int of_five = of_three < 0 ? -1 : quarter ? (of_three == 2 ? -1 : 3 + of_three) : of_three;
        return of_five < 0 || lane & 1 ? -1 : half * 5 + of_five;
    }

private:
    __device__ static float halve(bool upper, float low, float high, int mask) {
        const float kept = upper ? high : low, given = upper ? low : high;
        return kept + __shfl_xor_sync(ALL_LANES, given, mask);
    }
};

// What a pixel knows on its way back.
struct PixelGradient {
    float transmittance = 1.0f, rest = 0.0f, red = 0.0f, green = 0.0f, blue = 0.0f, depth = 0.0f;

    __device__ PixelGradient(const Frame& f, const TileList& list, const Pixel& pixel) {
        if (!pixel.inside) return;
        const i64 rgb = list.view * 3 * pixel.plane + pixel.at, single = list.view * pixel.plane + pixel.at;
        if (f.g_rgb) {
            red = f.g_rgb[rgb];
            green = f.g_rgb[rgb + pixel.plane];
            blue = f.g_rgb[rgb + 2 * pixel.plane];
            rest = red * f.rgb[rgb] + green * f.rgb[rgb + pixel.plane] + blue * f.rgb[rgb + 2 * pixel.plane];
        }
        if (f.g_depth) {
            depth = f.g_depth[single];
            rest += depth * f.depth[single];
        }
        if (f.g_alpha) rest -= f.g_alpha[single] * (1.0f - f.alpha[single]);
    }

    // Moves behind the record and gives its ten moments.
    __device__ void take(const Coverage& c, const float4& paint, float* m) {
        const float weight = transmittance * c.alpha;
        const float value = fma(red, paint.x, fma(green, paint.y, fma(blue, paint.z, depth * paint.w)));
        rest = fma(-weight, value, rest);
        const float q = keep(c.raw <= MAX_ALPHA, c.alpha * fma(transmittance, value, -(rest / (1.0f - c.alpha))));
        const float qx = q * c.dx, qt = q * c.t;
        m[Q] = q;
        m[Q_X] = qx;
        m[Q_T] = qt;
        m[Q_XX] = qx * c.dx;
        m[Q_XT] = qx * c.t;
        m[Q_TT] = qt * c.t;
        m[RED] = weight * red;
        m[GREEN] = weight * green;
        m[BLUE] = weight * blue;
        m[DEPTH] = weight * depth;
        transmittance = c.after;
    }
};

// The warp's moments of a record, one sum per lane; false if it touches no pixel of the warp.
__device__ inline bool warp_moments(const BatchShared& shared, int i, const Pixel& pixel, PixelGradient& gradient, bool& stopped,
                                    float& sum) {
    const Coverage c(staged_splat(shared, i), pixel, gradient.transmittance);
    const bool takes = !stopped && c.taken();
    stopped = stopped || c.stops;
    if (!__any_sync(ALL_LANES, takes)) return false;
    float m[MOMENTS] = {};
    if (takes) gradient.take(c, shared.paint[i], m);
    sum = WarpSums(m).value;
    return true;
}

// Adds every warp's sums to those of the Gaussian, in no particular order.
__device__ inline void render_tile_backward(const Frame& f, const TileList& list, BatchShared& shared) {
    const Pixel pixel(f, list);
    PixelGradient gradient(f, list, pixel);
    bool stopped = !pixel.inside;
    const int moment = WarpSums::which(threadIdx.x % WARP);
    float* moments = f.moments + list.view * f.count * MOMENT_STRIDE;
    for (u32 first = 0; first < list.count; first += THREADS) {
        if (__syncthreads_and(stopped)) break;
        stage(f, list, first, shared);
        __syncthreads();
        const int staged = list.count - first < THREADS ? static_cast<int>(list.count - first) : THREADS;
        for (int group = 0; group < staged && !__all_sync(ALL_LANES, stopped); group += WARP)
            for (u32 hits = records_in_patch(shared, group, staged, list); hits; hits &= hits - 1) {
                const int i = group + __ffs(hits) - 1;
                float sum;
                if (warp_moments(shared, i, pixel, gradient, stopped, sum) && moment >= 0)
                    atomicAdd(moments + static_cast<i64>(shared.gaussian[i]) * MOMENT_STRIDE + moment, sum);
            }
    }
    __syncthreads();  // another list may follow
}

struct DeterministicShared {
    BatchShared batch;
    float sums[WARPS][WARP][MOMENTS];
};

// Adds nothing up across tiles: an instance's moments, the warps in their order, go to its place in the lists.
__device__ inline void render_tile_backward_deterministic(const Frame& f, const TileList& list, DeterministicShared& shared) {
    const Pixel pixel(f, list);
    PixelGradient gradient(f, list, pixel);
    bool stopped = !pixel.inside;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, moment = WarpSums::which(lane);
    float* out = f.instance_moments + (list.keys - f.keys) * MOMENT_STRIDE;
    for (u32 first = 0; first < list.count; first += THREADS) {
        __syncthreads();
        stage(f, list, first, shared.batch);
        __syncthreads();
        const int staged = list.count - first < THREADS ? static_cast<int>(list.count - first) : THREADS;
        for (int group = 0; group < staged; group += WARP) {
            for (int m = 0; m < MOMENTS; ++m) shared.sums[warp][lane][m] = 0.0f;
            __syncwarp();
            for (u32 hits = records_in_patch(shared.batch, group, staged, list); hits; hits &= hits - 1) {
                const int i = __ffs(hits) - 1;
                float sum;
                if (warp_moments(shared.batch, group + i, pixel, gradient, stopped, sum) && moment >= 0)
                    shared.sums[warp][i][moment] = sum;
            }
            __syncthreads();
            for (int j = threadIdx.x; j < WARP * MOMENTS; j += THREADS) {
                const int i = j / MOMENTS, m = j % MOMENTS;
                if (group + i >= staged) break;
                float sum = 0.0f;
                for (int w = 0; w < WARPS; ++w) sum += shared.sums[w][i][m];
                out[static_cast<i64>(first + group + i) * MOMENT_STRIDE + m] = sum;
            }
            __syncthreads();
        }
    }
}

// Of one Gaussian in one view, the sum over its tiles in their order.
__device__ inline void gather_moments(const Frame& f, int view, i64 g) {
    const i64 i = view * f.count + g;
    if (f.radii[i] <= 0) return;
    const Record r = f.records[i];
    const u64 key = sort_key(r.depth, static_cast<u32>(g));
    const TileBox box(r);
    const Splat s = splat_of(r);
    float sums[MOMENTS] = {};
    for (int at = 0; at < box.count(); ++at) {
        const int column = box.column + at % box.columns, row = box.row + at / box.columns;
        if (!reaches_tile(s, column, row)) continue;
        const i64 tile = static_cast<i64>(view) * f.tiles() + row * f.tiles_x() + column;
        u32 low = f.tile_start[tile], high = f.tile_start[tile + 1];
        while (high - low > 1) {
            const u32 middle = low + (high - low) / 2;
            (f.keys[middle] <= key ? low : high) = middle;
        }
        const float* m = f.instance_moments + static_cast<i64>(low) * MOMENT_STRIDE;
#pragma unroll
        for (int k = 0; k < MOMENTS; ++k) sums[k] += m[k];
    }
#pragma unroll
    for (int k = 0; k < MOMENTS; ++k) f.moments[i * MOMENT_STRIDE + k] = sums[k];
}

}  // namespace dgr
