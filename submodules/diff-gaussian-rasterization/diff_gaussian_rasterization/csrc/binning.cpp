// Per tile, the list of the Gaussians that reach it, front to back; equal depths stay in the order of the index.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "simd.h"
#include "types.h"

namespace dgr {

// One thread: where each tile's list starts, and where each part writes in it. Parts hold ascending ranges of Gaussians, so
// every list comes out in ascending index whatever their number.
void assign_tiles(Workspace& w) {
    const size_t tiles = w.cameras.size() * w.tiles_per_view();
    w.tile_start.resize(tiles + 1);
    uint64_t position = 0;
    for (size_t tile = 0; tile < tiles; ++tile) {
        w.tile_start[tile] = static_cast<uint32_t>(position);
        for (Part& part : w.parts) {
            const uint32_t count = part.per_tile[tile];
            part.per_tile[tile] = static_cast<uint32_t>(position);
            position += count;
        }
    }
    if (position > UINT32_MAX) {
        w.error = TOO_MANY_INSTANCES;
        return;
    }
    w.tile_start[tiles] = static_cast<uint32_t>(position);
    uint32_t slot = 0;
    for (Part& part : w.parts) {
        part.first_slot = slot;
        slot += static_cast<uint32_t>(part.hits.size());
    }
    w.tile_order.resize(tiles);
    std::iota(w.tile_order.begin(), w.tile_order.end(), 0u);
    const auto size = [&w](uint32_t tile) { return w.tile_start[tile + 1] - w.tile_start[tile]; };
    std::sort(w.tile_order.begin(), w.tile_order.end(),
              [&](uint32_t a, uint32_t b) { return size(a) != size(b) ? size(a) > size(b) : a < b; });
    w.tile_visits.resize(tiles);
    if (position && (!w.instances.reserve(position) || !w.order.reserve(position) || !w.positions.reserve(position)))
        w.error = OUT_OF_MEMORY;
}

void scatter(Workspace& w, Part& own) {
    for (int64_t first = own.begin; first < own.end; first += LANES) w.first_slot[first / LANES] += own.first_slot;
    uint32_t* slot = w.positions.data() + own.first_slot;
    for (const Hit& hit : own.hits) {
        const uint32_t position = own.per_tile[hit.tile]++;
        *slot++ = position;
        __builtin_prefetch(&w.instances[position + 4], 1);
        w.instances[position] = w.records[hit.record];
        const int tile = static_cast<int>(hit.tile % static_cast<uint32_t>(w.tiles_per_view()));
        w.instances[position].x -= static_cast<float>(tile % w.tiles_x * TILE_WIDTH);
        w.instances[position].y -= static_cast<float>(tile / w.tiles_x * TILE_HEIGHT);
    }
}

// Stable radix sort of a tile's list by depth. Depths are positive, so their bits order as they do; only the digits in
// which the tile's depths differ are sorted.
void sort_tile(Workspace& w, ThreadData& own, uint32_t tile) {
    const uint32_t begin = w.tile_start[tile], count = w.tile_start[tile + 1] - begin;
    if (count == 0) return;
    uint64_t* keys = own.keys.reserve(count);
    uint64_t* other = own.keys_swap.reserve(count);
    if (!keys || !other) {
        w.error = OUT_OF_MEMORY;
        return;
    }
    uint32_t smallest = UINT32_MAX, largest = 0;
    for (uint32_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, &w.instances[begin + i].depth, sizeof bits);
        smallest = std::min(smallest, bits);
        largest = std::max(largest, bits);
        keys[i] = static_cast<uint64_t>(bits) << 32 | i;
    }
    if (count <= 32) {
        for (uint32_t i = 1; i < count; ++i) {
            const uint64_t key = keys[i];
            uint32_t j = i;
            for (; j > 0 && keys[j - 1] > key; --j) keys[j] = keys[j - 1];
            keys[j] = key;
        }
    } else {
        const auto digit = [&](uint64_t key, int d) { return ((static_cast<uint32_t>(key >> 32) - smallest) >> 8 * d) & 255u; };
        uint32_t start[4][256] = {};
        for (uint32_t i = 0; i < count; ++i)
            for (int d = 0; d < 4; ++d) ++start[d][digit(keys[i], d)];
        for (int d = 0; d < 4 && (largest - smallest) >> 8 * d; ++d) {
            std::exclusive_scan(start[d], start[d] + 256, start[d], 0u);
            for (uint32_t i = 0; i < count; ++i) other[start[d][digit(keys[i], d)]++] = keys[i];
            std::swap(keys, other);
        }
    }
    for (uint32_t i = 0; i < count; ++i) w.order[begin + i] = static_cast<uint32_t>(keys[i]);
}

}  // namespace dgr
