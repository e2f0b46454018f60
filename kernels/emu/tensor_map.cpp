// Rules from the driver API's documentation; the box is dense in shared memory, innermost dimension
// first, and swizzled by an XOR of absolute address bits. Elements outside the tensor read as zero
// and are not written; the byte count is always that of the whole box. (All high confidence.)
#include "tensor_map.h"

#include <string.h>

#include <algorithm>

namespace emu {

static constexpr u32 MAGIC = 0x70616d74;

static u32 span_of(TmaSwizzle swizzle) {
    return swizzle == TmaSwizzle::None ? 0 : 16u << (int)swizzle;
}

const char* encode_tensor_map(void* map, const TensorMapData& data) {
    if ((u64)map % 64) return "the tensor map is not 64-byte aligned";
    if (data.rank < 1 || data.rank > 5) return "the rank is not 1 to 5";
    if (data.base % 16) return "the global address is not 16-byte aligned";
    for (int i = 0; i < data.rank; i++) {
        if (!data.dims[i] || data.dims[i] > 1ull << 32) return "a dimension is not 1 to 2^32";
        if (!data.box[i] || data.box[i] > 256) return "a box dimension is not 1 to 256";
    }
    for (int i = 0; i + 1 < data.rank; i++)
        if (data.strides[i] % 16 || data.strides[i] >= 1ull << 40)
            return "a stride is not a multiple of 16 below 2^40";
    u32 inner = data.box[0] * data.element_bytes, span = span_of(data.swizzle);
    if (inner % 16) return "the inner box is not a multiple of 16 bytes";
    if (span && inner > span) return "the inner box exceeds the swizzle span";
    if (span && inner != span)
        return "not modelled by the emulator: an inner box smaller than the swizzle span";
    memset(map, 0, 128);
    memcpy(map, &data, sizeof data);
    ((TensorMapData*)map)->magic = MAGIC;
    return nullptr;
}

const TensorMapData* read_tensor_map(const void* map, int rank, Pc pc) {
    auto* data = (const TensorMapData*)map;
    if (data->magic == MAGIC && (rank == 0 || data->rank == rank)) return data;
    report("tensor-map", pc,
           data->magic == MAGIC ? "a tensor map of rank %d used with %d coordinates"
                                : "not a tensor map (magic %d, %d coordinates)",
           (int)data->rank, rank);
    return nullptr;
}

u32 box_bytes(const TensorMapData& map) {
    u32 bytes = map.element_bytes;
    for (int i = 0; i < map.rank; i++) bytes *= map.box[i];
    return bytes;
}

// A swizzled box must start where its pattern starts: what happens otherwise is not modelled.
u32 box_alignment(const TensorMapData& map) {
    return map.swizzle == TmaSwizzle::None ? 128 : 128u << (int)map.swizzle;
}

u32 apply_swizzle(u32 address, TmaSwizzle swizzle) {
    u32 mask = (1u << (int)swizzle) - 1;
    return address ^ ((address >> 7 & mask) << 4);
}

std::vector<BoxUnit> box_units(const TensorBox& box, u32 shared_offset) {
    std::vector<BoxUnit> units;
    if (box.rank == 0) {
        for (u32 i = 0; i < box.bytes; i += 16)
            units.push_back({shared_offset + i, box.global + i, 0, 16});
        return units;
    }
    auto& map = *(const TensorMapData*)box.map;
    const i64 element = map.element_bytes, per_unit = 16 / element;
    u32 inner = map.box[0] * map.element_bytes, rows = box_bytes(map) / inner;
    for (u32 row = 0; row < rows; row++) {
        u64 global = map.base;
        bool inside = true;
        u32 rest = row;
        for (int i = 1; i < map.rank; i++) {
            i64 x = (i64)box.coordinates[i] + rest % map.box[i];
            rest /= map.box[i];
            inside &= x >= 0 && (u64)x < map.dims[i];
            global += (u64)(x * (i64)map.strides[i - 1]);
        }
        for (u32 j = 0; j < inner / 16; j++) {
            i64 x = (i64)box.coordinates[0] + j * per_unit;
            i64 first = std::min(per_unit, std::max<i64>(0, -x));
            i64 last = std::max(first, std::min(per_unit, (i64)map.dims[0] - x));
            if (!inside) first = last = 0;
            u32 address = SHARED_BASE + shared_offset + row * inner + j * 16;
            units.push_back({apply_swizzle(address, map.swizzle) - SHARED_BASE,
                             global + (u64)(x * element), (u32)(first * element),
                             (u32)(last * element)});
        }
    }
    return units;
}

}  // namespace emu
