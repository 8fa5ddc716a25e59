// What crosses the C ABI, and what lives between forward and backward.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "math.h"

namespace dgr {

constexpr int TILE = 64;           // pixels
constexpr size_t HUGE_PAGE = size_t{1} << 21;

// Mirrored field by field in cpu.py. All tensors are contiguous float32; a null pointer means "not given".
struct Scene {
    int64_t count, views;
    int32_t width, height, sh_degree, sh_coefficients, antialiasing, threads;
    float scale_modifier, near_plane;
    const float* means;        // [N,3]
    const float* scales;       // [N,3]
    const float* rotations;    // [N,4] (w,x,y,z)
    const float* opacities;    // [N]
    const float* shs;          // [N,K,3]
    const float* colors;       // [N,3]
    const float* covariances;  // [N,6] xx xy xz yy yz zz
    const float* viewmats;     // [V,4,4]
    const float* focals;       // [V,2]
    const float* principals;   // [V,2]
    const float* backgrounds;  // [V,3]
};

struct Images {
    float* rgb;      // [V,3,H,W]
    float* depth;    // [V,1,H,W]
    float* alpha;    // [V,1,H,W]
    int32_t* radii;  // [V,N]
    float* means2d;  // [V,N,2]
    int32_t* fates;  // [V,FATES]
};

struct Gradients {
    const float *rgb, *depth, *alpha;  // upstream, null means zero
    float *means, *scales, *rotations, *opacities, *shs, *colors, *covariances, *means2d;  // null means not wanted
};

// One Gaussian in one view. alpha(pixel) = 2^(log2_opacity + a dx^2 + b dx dy + c dy^2).
struct alignas(64) Record {
    float x, y, a, b, c, log2_opacity;
    float red, green, blue, depth;
    uint16_t x0, y0, x1, y1;  // pixels that it may reach, inclusive
    uint32_t slot, tiles;     // its instances are slot .. slot + tiles - 1
};

struct Hit {
    uint32_t tile, record;
    float depth;
};

struct Instance {
    uint32_t record, slot;
};

// Of one (Gaussian, tile) pair.
struct alignas(64) Moments {
    float sum[16];
};

// Grow-only and uninitialised: calls of similar size touch no new pages.
template <class T> class Buffer {
public:
    T* reserve(size_t n) {
        if (n > capacity_) {
            const size_t wanted = n + n / 4;
            // Lists visit records in no order: with small pages most of the time would go into address translation.
            const size_t page = wanted * sizeof(T) < HUGE_PAGE ? 64 : HUGE_PAGE;
            const size_t bytes = (wanted * sizeof(T) + page - 1) / page * page;
            data_.reset(static_cast<T*>(std::aligned_alloc(page, bytes)));
#if defined(MADV_HUGEPAGE)
            if (data_ && page == HUGE_PAGE) madvise(data_.get(), bytes, MADV_HUGEPAGE);
#endif
            capacity_ = data_ ? wanted : 0;
        }
        return data_.get();
    }
    T& operator[](size_t i) { return data_.get()[i]; }
    const T& operator[](size_t i) const { return data_.get()[i]; }
    T* data() { return data_.get(); }

private:
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data_;
    size_t capacity_ = 0;
};

struct ThreadData {
    std::vector<Hit> hits;
    Buffer<uint32_t> per_tile;  // counts, then write positions
    Buffer<uint64_t> keys, keys_swap;
    Buffer<Instance> unsorted;
    Buffer<float> state;
    std::vector<int32_t> fates;  // [V, FATES]
    uint32_t first_slot = 0;
};

// Everything that backward needs besides the inputs, and the scratch memory of both passes.
struct Workspace {
    std::vector<Camera> cameras;
    Buffer<Record> records;  // [N, V]
    std::vector<uint32_t> tile_start;
    std::vector<uint32_t> tile_order;  // heaviest first
    Buffer<Instance> instances;        // per tile, front to back once sorted
    Buffer<float> depths;              // of the instances, before sorting
    Buffer<Moments> moments;           // [slot]
    std::vector<ThreadData> threads;
    int tiles_x = 0, tiles_y = 0;
    std::atomic<uint32_t> next{0};
    std::atomic<int> error{0};

    int tiles_per_view() const { return tiles_x * tiles_y; }
};

enum Error { OUT_OF_MEMORY = 1, TOO_MANY_INSTANCES = 2 };

// Thread t of n works on Gaussians [begin, end); multiples of 16, so that slots do not depend on the number of threads.
struct Range {
    int64_t begin, end;
};
inline Range share(int64_t count, int t, int n) {
    const int64_t chunks = (count + 15) / 16;
    const int64_t begin = chunks * t / n * 16, end = chunks * (t + 1) / n * 16;
    return {begin, end < count ? end : count};
}

void preprocess(const Scene&, const Images&, Workspace&, int thread);
void assign_tiles(Workspace&);
void scatter(Workspace&, int thread);
void sort_tile(Workspace&, ThreadData&, uint32_t tile);
void render_tile(const Scene&, const Images&, Workspace&, ThreadData&, uint32_t tile);
void render_tile_backward(const Scene&, const Images&, const Gradients&, Workspace&, ThreadData&, uint32_t tile);
void preprocess_backward(const Scene&, const Gradients&, const Workspace&, int thread);

}  // namespace dgr
