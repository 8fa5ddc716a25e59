// Per tile, the list of the Gaussians that reach it, front to back; equal depths stay in the order of the index.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "types.h"

namespace dgr {

// One thread: where each tile's list starts, and where each thread writes in it. Threads hold ascending ranges of Gaussians,
// so every list comes out in ascending index whatever their number.
void assign_tiles(Workspace& w) {
    const size_t tiles = w.cameras.size() * w.tiles_per_view();
    w.tile_start.resize(tiles + 1);
    uint64_t position = 0;
    for (size_t tile = 0; tile < tiles; ++tile) {
        w.tile_start[tile] = static_cast<uint32_t>(position);
        for (auto& thread : w.threads) {
            const uint32_t count = thread.per_tile[tile];
            thread.per_tile[tile] = static_cast<uint32_t>(position);
            position += count;
        }
    }
    if (position > UINT32_MAX) {
        w.error = TOO_MANY_INSTANCES;
        return;
    }
    w.tile_start[tiles] = static_cast<uint32_t>(position);
    uint32_t slot = 0;
    for (auto& thread : w.threads) {
        thread.first_slot = slot;
        slot += static_cast<uint32_t>(thread.hits.size());
    }
    w.tile_order.resize(tiles);
    std::iota(w.tile_order.begin(), w.tile_order.end(), 0u);
    const auto size = [&w](uint32_t tile) { return w.tile_start[tile + 1] - w.tile_start[tile]; };
    std::stable_sort(w.tile_order.begin(), w.tile_order.end(), [&](uint32_t a, uint32_t b) { return size(a) > size(b); });
    w.next = 0;
    if (position && (!w.instances.reserve(position) || !w.depths.reserve(position))) w.error = OUT_OF_MEMORY;
}

void scatter(Workspace& w, int thread) {
    ThreadData& own = w.threads[thread];
    uint32_t slot = own.first_slot;
    uint32_t last = UINT32_MAX;
    for (const Hit& hit : own.hits) {
        if (hit.record != last) {
            w.records[hit.record].slot = slot;
            last = hit.record;
        }
        const uint32_t position = own.per_tile[hit.tile]++;
        w.instances[position] = {hit.record, slot++};
        w.depths[position] = hit.depth;
    }
}

// Stable radix sort of a tile's list by depth. Depths are positive, so their bits order as they do; only the digits in
// which the tile's depths differ are sorted.
void sort_tile(Workspace& w, ThreadData& own, uint32_t tile) {
    const uint32_t begin = w.tile_start[tile], count = w.tile_start[tile + 1] - begin;
    if (count < 2) return;
    uint64_t* keys = own.keys.reserve(count);
    uint64_t* other = own.keys_swap.reserve(count);
    Instance* unsorted = own.unsorted.reserve(count);
    if (!keys || !other || !unsorted) {
        w.error = OUT_OF_MEMORY;
        return;
    }
    uint32_t smallest = UINT32_MAX, largest = 0;
    for (uint32_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, &w.depths[begin + i], sizeof bits);
        smallest = std::min(smallest, bits);
        largest = std::max(largest, bits);
        keys[i] = static_cast<uint64_t>(bits) << 32 | i;
    }
    std::memcpy(unsorted, &w.instances[begin], count * sizeof(Instance));
    if (count <= 32) {
        for (uint32_t i = 1; i < count; ++i) {
            const uint64_t key = keys[i];
            uint32_t j = i;
            for (; j > 0 && keys[j - 1] > key; --j) keys[j] = keys[j - 1];
            keys[j] = key;
        }
    } else {
        const uint32_t span = largest - smallest;
        for (int shift = 0; shift < 32 && span >> shift; shift += 8) {
            uint32_t start[257] = {0};
            const auto digit = [&](uint64_t key) { return ((static_cast<uint32_t>(key >> 32) - smallest) >> shift) & 255u; };
            for (uint32_t i = 0; i < count; ++i) ++start[digit(keys[i]) + 1];
            for (int d = 0; d < 256; ++d) start[d + 1] += start[d];
            for (uint32_t i = 0; i < count; ++i) other[start[digit(keys[i])]++] = keys[i];
            std::swap(keys, other);
        }
    }
    for (uint32_t i = 0; i < count; ++i) w.instances[begin + i] = unsorted[static_cast<uint32_t>(keys[i])];
}

}  // namespace dgr
