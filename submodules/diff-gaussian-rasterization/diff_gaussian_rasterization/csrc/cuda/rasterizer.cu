// The kernels. Every one takes a Frame; grids and blocks have one dimension.
#include "binning.cuh"
#include "blend.cuh"
#include "blend_backward.cuh"
#include "cameras_backward.cuh"
#include "overflow.cuh"
#include "preprocess.cuh"
#include "preprocess_backward.cuh"

using dgr::Frame;

#define DGR_KERNELS(X)                 \
    X(preprocess)                      \
    X(scan)                            \
    X(scatter)                         \
    X(sort)                            \
    X(sort_long)                       \
    X(render)                          \
    X(render_overflowed)               \
    X(render_backward)                 \
    X(render_backward_overflowed)      \
    X(render_backward_deterministic)   \
    X(gather_moments)                  \
    X(cameras_backward)                \
    X(preprocess_backward_colors)      \
    X(preprocess_backward_sh0)         \
    X(preprocess_backward_sh1)         \
    X(preprocess_backward_sh2)         \
    X(preprocess_backward_sh3)

#define DGR_KERNEL(name, threads) extern "C" __global__ void __launch_bounds__(threads) name(const Frame f)

__device__ inline long long thread_index() { return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; }

// A thread per Gaussian.
DGR_KERNEL(preprocess, 256) { dgr::preprocess_gaussian(f, thread_index()); }

// One block.
DGR_KERNEL(scan, 1024) {
    __shared__ dgr::ScanShared shared;
    dgr::scan_tiles(f, shared);
}

// A thread per Gaussian.
DGR_KERNEL(scatter, 256) {
    if (!f.overflowed()) dgr::scatter_gaussian(f, thread_index());
}

// A block per tile of every view, as are all down to render_backward_deterministic.
DGR_KERNEL(sort, 256) {
    __shared__ dgr::SortShared<4> shared;
    if (f.overflowed()) return;
    const unsigned first = f.tile_start[blockIdx.x], count = f.tile_start[blockIdx.x + 1] - first;
    if (count > 1 && count <= dgr::SHORT_LIST) dgr::sort_short(f.keys + first, count, shared);
}

DGR_KERNEL(sort_long, 256) {
    __shared__ dgr::SortShared<dgr::MOST_ITEMS> shared;
    if (f.overflowed()) return;
    const unsigned first = f.tile_start[blockIdx.x], count = f.tile_start[blockIdx.x + 1] - first;
    if (count > dgr::SHORT_LIST) dgr::sort_long(f.keys + first, count, shared);
}

DGR_KERNEL(render, 256) {
    __shared__ dgr::BatchShared shared;
    if (!f.overflowed()) dgr::render_tile(f, dgr::tile_list(f, blockIdx.x), shared);
}

DGR_KERNEL(render_backward, 256) {
    __shared__ dgr::BatchShared shared;
    if (blockIdx.x == 0 && threadIdx.x == 0) f.status->next_backward = 0;
    if (!f.overflowed()) dgr::render_tile_backward(f, dgr::tile_list(f, blockIdx.x), shared);
}

DGR_KERNEL(render_backward_deterministic, 256) {
    __shared__ dgr::DeterministicShared shared;
    if (blockIdx.x == 0 && threadIdx.x == 0) f.status->next_backward = 0;
    if (!f.overflowed()) dgr::render_tile_backward_deterministic(f, dgr::tile_list(f, blockIdx.x), shared);
}

struct OverflowShared {
    dgr::GatherShared gather;
    dgr::BatchShared batch;
};

// A few blocks, which find nothing to do unless the lists overflow.
DGR_KERNEL(render_overflowed, 256) {
    __shared__ OverflowShared shared;
    if (!f.overflowed()) return;
    dgr::for_each_gathered_list(f, &f.status->next_forward, shared.gather,
                                [&](const dgr::TileList& list) { dgr::render_tile(f, list, shared.batch); });
}

DGR_KERNEL(render_backward_overflowed, 256) {
    __shared__ OverflowShared shared;
    if (!f.overflowed()) return;
    dgr::for_each_gathered_list(f, &f.status->next_backward, shared.gather,
                                [&](const dgr::TileList& list) { dgr::render_tile_backward(f, list, shared.batch); });
}

// A thread per Gaussian of every view.
DGR_KERNEL(gather_moments, 256) {
    const long long i = thread_index();
    if (i < f.count * f.views && !f.overflowed()) dgr::gather_moments(f, static_cast<int>(i / f.count), i % f.count);
}

// The same, in blocks of their own for each view.
DGR_KERNEL(cameras_backward, 256) {
    __shared__ dgr::CameraShared shared;
    const unsigned blocks = gridDim.x / f.views;
    dgr::cameras_backward(f, static_cast<int>(blockIdx.x / blocks), blockIdx.x % blocks, blocks, shared);
}

// A thread per Gaussian.
#define DGR_PREPROCESS_BACKWARD(name, degree)                                                                        \
    extern "C" __global__ void __launch_bounds__(128, 2) name(const Frame f) {                                       \
        if (thread_index() < f.count) dgr::preprocess_gaussian_backward<degree>(f, thread_index());                  \
    }
DGR_PREPROCESS_BACKWARD(preprocess_backward_colors, dgr::PLAIN_COLORS)
DGR_PREPROCESS_BACKWARD(preprocess_backward_sh0, 0)
DGR_PREPROCESS_BACKWARD(preprocess_backward_sh1, 1)
DGR_PREPROCESS_BACKWARD(preprocess_backward_sh2, 2)
DGR_PREPROCESS_BACKWARD(preprocess_backward_sh3, 3)
