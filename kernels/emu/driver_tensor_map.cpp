// cuTensorMapEncodeTiled: a host-only function; what a real driver refuses is refused here.
#include <stdio.h>

#include "driver.h"
#include "tensor_map.h"

using namespace emu;

static int bytes_of(CUtensorMapDataType type) {
    switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8: return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: return 2;
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32: return 4;
    default: return 0;
    }
}

EXPORT CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank,
                                       void* base, const cuuint64_t* dims,
                                       const cuuint64_t* strides, const cuuint32_t* box,
                                       const cuuint32_t* element_strides,
                                       CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                       CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
    ENTER(Init);
    REQUIRE(map && rank >= 1 && rank <= 5, CUDA_ERROR_INVALID_VALUE);
    REQUIRE(bytes_of(type), CUDA_ERROR_NOT_SUPPORTED);
    REQUIRE(interleave == CU_TENSOR_MAP_INTERLEAVE_NONE && (int)swizzle <= 3 &&
                fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            CUDA_ERROR_NOT_SUPPORTED);
    for (cuuint32_t i = 0; i < rank; i++)
        REQUIRE(element_strides[i] == 1, CUDA_ERROR_NOT_SUPPORTED);
    TensorMapData data = {};
    data.rank = (u8)rank;
    data.element_bytes = (u8)bytes_of(type);
    data.is_float = type == CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    data.swizzle = (TmaSwizzle)swizzle;
    data.base = (u64)base;
    for (cuuint32_t i = 0; i < rank; i++) {
        data.dims[i] = dims[i];
        data.box[i] = box[i];
        if (i) data.strides[i - 1] = strides[i - 1];
    }
    const char* problem = encode_tensor_map(map, data);
    if (!problem) return CUDA_SUCCESS;
    fprintf(stderr, "hooke emulator: cuTensorMapEncodeTiled: %s\n", problem);
    return CUDA_ERROR_INVALID_VALUE;
}
