// What crosses the C ABI, and what lives between forward and backward.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "math.h"

namespace dgr {

constexpr int TILE_WIDTH = 64, TILE_HEIGHT = 64;  // pixels
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
    int32_t* counts;  // [V,FATES]
};

struct Gradients {
    const float *rgb, *depth, *alpha;  // upstream, null means zero
    float *means, *scales, *rotations, *opacities, *shs, *colors, *covariances, *means2d;  // null means not wanted
    float *viewmats, *focals, *principals;

    bool of_cameras() const { return viewmats || focals || principals; }
};

// One Gaussian in one view. With t = dy - rho dx, alpha(pixel) = 2^(log2_opacity - (p dx)^2 - (q t)^2) (math.h: Ellipse). It is
// 1/255 on an ellipse that reaches at dx from rho dx - w to rho dx + w, w^2 = height2 - bend dx^2, and is highest at dx = top.
struct alignas(64) Record {
    float x, y, rho, p, q, log2_opacity;
    float red, green, blue, depth;
    float top, height2, bend;
    float x0, x1;  // columns of pixels that it may reach, inclusive
    float unused;
};
constexpr int RECORD_FIELDS = sizeof(Record) / sizeof(float);

// A record in a tile: an instance.
struct Hit {
    uint32_t tile, record;
};

// So many instances of a tile, and the vectors of pixels that they are drawn to.
struct Stretch {
    uint32_t instances, visits;
};

// Of one (Gaussian, tile) pair.
struct alignas(64) Moments {
    float sum[16];
};

// What LANES Gaussians add to the gradients of one camera: of its 3x4 matrix, focal lengths and principal point.
constexpr int CAMERA_NUMBERS = 16;
struct alignas(64) CameraShare {
    float sum[CAMERA_NUMBERS];
};

// Grow-only and uninitialised: calls of similar size touch no new pages.
template <class T> class Buffer {
public:
    T* reserve(size_t n) {
        if (n > capacity_) {
#if defined(__SANITIZE_ADDRESS__)
            const size_t wanted = n;  // nothing to spare, where an overrun would go unseen
#else
            const size_t wanted = n + n / 4;
#endif
            // Instances lie in many places at once: with small pages much of the time would go into address translation.
            const size_t page = wanted * sizeof(T) < HUGE_PAGE ? 64 : HUGE_PAGE;
            const size_t bytes = (wanted * sizeof(T) + page - 1) / page * page;
            void* memory = nullptr;  // aligned_alloc is missing before macOS 10.15
            data_.reset(posix_memalign(&memory, page, bytes) == 0 ? static_cast<T*>(memory) : nullptr);
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
    const T* data() const { return data_.get(); }
    size_t capacity() const { return capacity_; }

private:
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data_;
    size_t capacity_ = 0;
};

// A list in such memory, of plain structs.
template <class T> class List {
public:
    // The end of the list, where n more may be written, before end_at(); null without memory.
    T* room(size_t n) {
        if (size_ + n >= buffer_.capacity()) {  // room for nothing is some too: null means none is to be had
            Buffer<T> larger;
            if (!larger.reserve(2 * (size_ + n) + 1)) return nullptr;
            if (size_) std::memcpy(larger.data(), buffer_.data(), size_ * sizeof(T));
            std::swap(buffer_, larger);
        }
        return buffer_.data() + size_;
    }
    void end_at(const T* end) { size_ = static_cast<size_t>(end - buffer_.data()); }
    void clear() { size_ = 0; }
    size_t size() const { return size_; }
    const T* data() const { return buffer_.data(); }
    const T* begin() const { return buffer_.data(); }
    const T* end() const { return buffer_.data() + size_; }

private:
    Buffer<T> buffer_;
    size_t size_ = 0;
};

// Gaussians [begin, end), which one thread works on at a time, and where they go.
struct Part {
    int64_t begin, end;
    List<Hit> hits;
    Buffer<uint32_t> per_tile;  // counts, then write positions
    std::vector<int32_t> fates;  // [V, FATES]
    uint32_t first_slot;
};

struct ThreadData {
    Buffer<uint64_t> keys, keys_swap;
    List<Stretch> stretches;  // of the tiles that it drew, in their order
    List<int32_t> visits;
    Buffer<float> state;
};

// Where a tile's visits are.
struct TileVisits {
    int thread;
    size_t stretch, last_stretch, visit;
};

// Everything that backward needs besides the inputs, and the scratch memory of both passes.
struct Workspace {
    std::vector<Camera> cameras;
    Buffer<Record> records;            // [N / LANES, V, LANES]
    Buffer<uint32_t> reached;          // tiles, of each record
    Buffer<uint32_t> first_slot;       // [N / LANES]: slots number the instances in the order of the records
    std::vector<uint32_t> tile_start;
    std::vector<uint32_t> tile_order;  // heaviest first
    std::vector<TileVisits> tile_visits;
    // The instances of one tile after another; within a tile in the order of the index.
    Buffer<Record> instances;    // means relative to the tile
    Buffer<uint32_t> order;      // which of its tile's instances comes first, second, ... in depth
    Buffer<Moments> moments;
    Buffer<uint32_t> positions;  // [slot]: of the instances of one record after another
    Buffer<CameraShare> camera_shares;  // [N / LANES, V]
    std::vector<Part> parts;
    std::vector<ThreadData> threads;
    int tiles_x = 0, tiles_y = 0;
    std::atomic<int> error{0};

    int tiles_per_view() const { return tiles_x * tiles_y; }
};

enum Error { OUT_OF_MEMORY = 1, TOO_MANY_INSTANCES = 2 };

void preprocess(const Scene&, const Images&, Workspace&, Part&);
void assign_tiles(Workspace&);
void scatter(Workspace&, Part&);
void sort_tile(Workspace&, ThreadData&, uint32_t tile);
void render_tile(const Scene&, const Images&, Workspace&, ThreadData&, uint32_t tile);
void render_tile_backward(const Scene&, const Images&, const Gradients&, Workspace&, ThreadData&, uint32_t tile);
void preprocess_backward(const Scene&, const Gradients&, Workspace&, const Part&);
void sum_camera_gradients(const Scene&, const Gradients&, const Workspace&, int64_t view);

}  // namespace dgr
