// The pixels of one tile, and which of them a splat reaches. A tile is cut into strips four pixels wide. A strip keeps each of
// its quantities row after row, so that ROWS rows from any one on are a vector of LANES pixels: that is a visit.
#pragma once
#include "simd.h"
#include "types.h"

namespace dgr {

constexpr int STRIP = 4, STRIPS = TILE_WIDTH / STRIP, ROWS = LANES / STRIP;
constexpr int STRIP_ROWS = TILE_HEIGHT + ROWS;  // the last ones fill a vector that starts in the tile's last row

template <int PLANES> struct alignas(64) Strip {
    float plane[PLANES][STRIP_ROWS * STRIP];
};

// A visit in one number: of which of a stretch of instances, in which strip, from which row.
constexpr int ROW_BITS = 6, STRIP_BITS = 4, INSTANCE_BITS = 6, VISIT_BITS = ROW_BITS + STRIP_BITS + INSTANCE_BITS;
static_assert(TILE_HEIGHT <= 1 << ROW_BITS && STRIPS <= 1 << STRIP_BITS && VISIT_BITS + ROW_BITS < 24, "floats must hold them");
inline int row_of(int32_t visit) { return visit & ((1 << ROW_BITS) - 1); }
inline int strip_of(int32_t visit) { return visit >> ROW_BITS & ((1 << STRIP_BITS) - 1); }
inline int instance_of(int32_t visit) { return visit >> (ROW_BITS + STRIP_BITS); }

// Pixel coordinates inside the tile, laid out like a strip's planes.
struct PixelTable {
    alignas(64) float x[STRIPS][LANES], y[STRIP_ROWS * STRIP];
    PixelTable() {
        for (int s = 0; s < STRIPS; ++s)
            for (int i = 0; i < LANES; ++i) x[s][i] = static_cast<float>(s * STRIP + i % STRIP);
        for (int i = 0; i < STRIP_ROWS * STRIP; ++i) y[i] = static_cast<float>(i / STRIP);
    }
};
inline const PixelTable PIXEL;

struct TileArea {
    int64_t view;
    int x, y, width, height;  // first pixel; size inside the image

    TileArea(const Scene& s, const Workspace& w, uint32_t tile) {
        const uint32_t per_view = static_cast<uint32_t>(w.tiles_per_view());
        view = tile / per_view;
        const int local = static_cast<int>(tile % per_view);
        x = local % w.tiles_x * TILE_WIDTH;
        y = local / w.tiles_x * TILE_HEIGHT;
        width = s.width - x < TILE_WIDTH ? s.width - x : TILE_WIDTH;
        height = s.height - y < TILE_HEIGHT ? s.height - y : TILE_HEIGHT;
    }
};

// Of four pixels of which the first `count` lie inside the image: a pixel outside has stopped, which a negative number means.
inline Row starting_transmittance(int count) {
    return Row{count > 0 ? 1.0f : -1.0f, count > 1 ? 1.0f : -1.0f, count > 2 ? 1.0f : -1.0f, count > 3 ? 1.0f : -1.0f};
}

// The rows that a splat reaches within columns left .. left + width - 1 of pixels; none if first > last.
struct RowSpan {
    F first, last;
};
inline RowSpan row_span(const Record& r, F left, float width) {
    const F top(r.top), rho(r.rho), height2(r.height2), bend(r.bend);
    const F from = left - F(r.x), to = from + F(width - 1.0f);
    const F high = max(from, min(to, top)), low = max(from, min(to, -top));
    const F above = near_sqrt(fnma(bend * high, high, height2)), below = near_sqrt(fnma(bend * low, low, height2));
    return {ceil(fma(rho, low, F(r.y - BOUND_SLACK)) - below), floor(fma(rho, high, F(r.y + BOUND_SLACK)) + above)};
}

// A tile is worked on in stretches of its list, in one loop for each step, so that the processor overlaps many visits. A stretch
// ends when it has so many instances or touches so many strips.
constexpr uint32_t MOST_INSTANCES = 1 << INSTANCE_BITS, ENOUGH_STRIPS = 64;
constexpr int MOST_VISITS = (ENOUGH_STRIPS + STRIPS) * ((TILE_HEIGHT + ROWS - 1) / ROWS);

struct alignas(64) Workbench {
    Record records[MOST_INSTANCES];
    int32_t strips[ENOUGH_STRIPS + STRIPS + LANES];
    int32_t visits[MOST_VISITS + LANES];
    float alphas[MOST_VISITS * LANES];
};

// Reads through a tile's instances, which the processor fetches ahead of such a loop, before they are needed in another order.
inline void read_through(const Record* instances, uint32_t count) {
    float sum = 0.0f;
    for (uint32_t i = 0; i < count; ++i) sum += instances[i].x;
    volatile float sink = sum;
    (void)sink;
}

// Appends to `out` for each strip that instance i reaches its first visit, and above those bits the last row there;
// returns the new end. LANES numbers after it are lost.
inline int32_t* list_strips(const Record& r, int i, const TileArea& area, int32_t* out) {
    const int x0 = static_cast<int>(r.x0) - area.x, x1 = static_cast<int>(r.x1) - area.x;
    const F last_strip(static_cast<float>((x1 < TILE_WIDTH ? x1 : TILE_WIDTH - 1) / STRIP));
    for (int s = x0 < 0 ? 0 : x0 / STRIP; s < STRIPS && s * STRIP <= x1; s += LANES) {
        const F strip = F(static_cast<float>(s)) + load(LANE_NUMBERS);
        const RowSpan rows = row_span(r, strip * F(STRIP), STRIP);
        const F first = max(rows.first, F(0.0f)), last = min(rows.last, F(static_cast<float>(area.height - 1)));
        const F visit = first + fma(strip, F(1 << ROW_BITS), F(static_cast<float>(i << (ROW_BITS + STRIP_BITS))));
        out += append(out, (first <= last) & (strip <= last_strip), fma(last, F(1 << VISIT_BITS), visit));
    }
    return out;
}

// Writes the visits of such strips to `out`; returns their end.
inline int32_t* list_visits(const int32_t* strip, const int32_t* end, int32_t* out) {
    for (; strip != end; ++strip) {
        const int visit = *strip & ((1 << VISIT_BITS) - 1), last = *strip >> VISIT_BITS, first = row_of(visit);
        // Vectors that start at a multiple of ROWS lie in one cache line: from there on unless that takes one more.
        const int whole = first & -ROWS, more = (last - first) / ROWS, start = (last - whole) / ROWS == more ? whole : first;
        const F visits = fma(load(LANE_NUMBERS), F(ROWS), F(static_cast<float>(visit - first + start)));
        store_integers(out, visits);
        for (int done = LANES; done <= more; done += LANES)
            store_integers(out + done, visits + F(static_cast<float>(done * ROWS)));
        out += more + 1;
    }
    return out;
}

// alpha at the pixels of the visits, LANES numbers for each; 0 where it lies below 1/255. Forward and backward must take the
// same pixels: they share this, and its products are fused explicitly and not as the compiler likes.
inline void list_alphas(const Record* records, const int32_t* visit, const int32_t* end, float* out) {
    for (; visit != end; ++visit, out += LANES) {
        const Record& r = records[instance_of(*visit)];
        const F dx = load(PIXEL.x[strip_of(*visit)]) - F(r.x), dy = load(PIXEL.y + row_of(*visit) * STRIP) - F(r.y);
        const F along = F(r.p) * dx, across = F(r.q) * fnma(F(r.rho), dx, dy);
        const F exponent = fnma(along, along, fnma(across, across, F(r.log2_opacity)));
        store(out, keep(exponent >= F(LOG2_MIN_ALPHA), min(exp2(exponent), F(MAX_ALPHA))));
    }
}

}  // namespace dgr
