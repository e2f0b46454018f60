// Tensor maps: what cuTensorMapEncodeTiled makes and the TMA engine reads.
#pragma once
#include "engine.h"

namespace emu {

enum class TmaSwizzle : u8 { None, B32, B64, B128 };  // CUtensorMapSwizzle's values

struct TensorMapData {
    u32 magic;
    u8 rank, element_bytes;
    TmaSwizzle swizzle;
    bool is_float;
    u64 base, dims[5], strides[4];  // strides in bytes, of dimensions 1 and up
    u32 box[5];
};
static_assert(sizeof(TensorMapData) <= 128, "fits a CUtensorMap");

// Fills a CUtensorMap; returns null, or why the driver would refuse it.
const char* encode_tensor_map(void* map, const TensorMapData& data);

// Null after a report if it is not a map of this rank.
const TensorMapData* read_tensor_map(const void* map, int rank, Pc pc);

u32 box_bytes(const TensorMapData& map);
u32 box_alignment(const TensorMapData& map);

// 16-byte unit j of the box: where it lies in shared memory, and which bytes of it exist in global
// memory at `global`: [first, last).
struct BoxUnit {
    u32 shared_offset;
    u64 global;
    u32 first, last;
};
std::vector<BoxUnit> box_units(const TensorBox& box, u32 shared_offset);

u32 apply_swizzle(u32 address, TmaSwizzle swizzle);

}  // namespace emu
