// Initialisation, the device, its one (primary) context, and errors in words.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "global_memory.h"

using namespace emu;

static const CUcontext CONTEXT = (CUcontext)0x684b4354;
static const CUmemoryPool POOL = (CUmemoryPool)0x68504f4c;

EXPORT CUresult cuInit(unsigned flags) {
    ENTER(Nothing);
    REQUIRE(flags == 0, CUDA_ERROR_INVALID_VALUE);
    REQUIRE(!getenv("HOOKE_EMU_NO_DEVICE"), CUDA_ERROR_NO_DEVICE);
    driver().initialised = true;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDriverGetVersion(int* version) {
    ENTER(Nothing);
    const char* pretend = getenv("HOOKE_EMU_DRIVER_VERSION");
    *version = pretend ? atoi(pretend) : CUDA_VERSION;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    ENTER(Init);
    REQUIRE(ordinal == 0, CUDA_ERROR_INVALID_DEVICE);
    *device = ordinal;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int* count) {
    ENTER(Init);
    *count = 1;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
    ENTER(Init);
    REQUIRE(device == 0 && length > 0, CUDA_ERROR_INVALID_VALUE);
    snprintf(name, (size_t)length, "hooke emulated device");
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
    ENTER(Init);
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    memset(uuid, 7, sizeof *uuid);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem(size_t* bytes, CUdevice device) {
    ENTER(Init);
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    *bytes = device_memory_bytes();
    return CUDA_SUCCESS;
}

static bool attribute_value(CUdevice_attribute attribute, int* value) {
    const Driver& d = driver();
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = d.major; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = d.minor; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 4; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: *value = 64; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: *value = 0x7fffffff; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y: *value = 65535; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: *value = 65535; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: *value = 2048; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: *value = REGISTERS; break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: *value = REGISTERS; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *value = SHARED_DEFAULT; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = SHARED_OPT_IN; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = 228 * 1024; break;
    case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 1 << 20; break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = 1000; break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = 1000; break;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *value = 64; break;
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: *value = 2; break;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_INTEGRATED: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_ECC_ENABLED: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH: *value = d.major >= 9; break;
    case CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED: *value = d.major >= 9; break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *value = !getenv("HOOKE_EMU_NO_POOLS"); break;
    default: return false;
    }
    return true;
}

EXPORT CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
    ENTER(Init);
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    if (attribute_value(attribute, value)) return CUDA_SUCCESS;
    fprintf(stderr, "hooke emulator: device attribute %d is not modelled\n", (int)attribute);
    return CUDA_ERROR_NOT_SUPPORTED;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    ENTER(Init);
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    driver().context_references++;
    *context = CONTEXT;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    ENTER(Init);
    REQUIRE(device == 0, CUDA_ERROR_INVALID_DEVICE);
    REQUIRE(driver().context_references > 0, CUDA_ERROR_INVALID_CONTEXT);
    drain_all();
    driver().context_references--;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext* context) {
    ENTER(Init);
    *context = current_context;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
    ENTER(Init);
    REQUIRE(!context || context == CONTEXT, CUDA_ERROR_INVALID_CONTEXT);
    current_context = context;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSynchronize(void) {
    ENTER(Context);
    return drain_all();
}

EXPORT CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice) {
    ENTER(Init);
    *pool = POOL;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice) {
    ENTER(Init);
    *pool = POOL;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute, void*) {
    ENTER(Init);
    REQUIRE(pool == POOL, CUDA_ERROR_INVALID_HANDLE);
    return CUDA_SUCCESS;
}

static const char* name_of(CUresult code) {
    switch (code) {
#define NAME(x) \
    case x: return #x;
        NAME(CUDA_SUCCESS)
        NAME(CUDA_ERROR_INVALID_VALUE)
        NAME(CUDA_ERROR_OUT_OF_MEMORY)
        NAME(CUDA_ERROR_NOT_INITIALIZED)
        NAME(CUDA_ERROR_NO_DEVICE)
        NAME(CUDA_ERROR_INVALID_DEVICE)
        NAME(CUDA_ERROR_INVALID_IMAGE)
        NAME(CUDA_ERROR_INVALID_CONTEXT)
        NAME(CUDA_ERROR_NO_BINARY_FOR_GPU)
        NAME(CUDA_ERROR_INVALID_HANDLE)
        NAME(CUDA_ERROR_NOT_FOUND)
        NAME(CUDA_ERROR_NOT_READY)
        NAME(CUDA_ERROR_ILLEGAL_STATE)
        NAME(CUDA_ERROR_ILLEGAL_ADDRESS)
        NAME(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES)
        NAME(CUDA_ERROR_LAUNCH_TIMEOUT)
        NAME(CUDA_ERROR_LAUNCH_FAILED)
        NAME(CUDA_ERROR_MISALIGNED_ADDRESS)
        NAME(CUDA_ERROR_NOT_SUPPORTED)
        NAME(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        NAME(CUDA_ERROR_INVALID_CLUSTER_SIZE)
        NAME(CUDA_ERROR_UNKNOWN)
#undef NAME
    default: return "an error the emulator does not name";
    }
}

EXPORT CUresult cuGetErrorName(CUresult code, const char** text) {
    *text = name_of(code);
    return CUDA_SUCCESS;
}

// The first report is part of the text, so it shows in the product's own error message.
EXPORT CUresult cuGetErrorString(CUresult code, const char** text) {
    // Never destroyed: a caller's own thread-locals may still ask while they are dropped.
    static thread_local std::string& sentence = *new std::string;
    std::lock_guard<std::recursive_mutex> lock(driver().mutex);
    Driver& d = driver();
    sentence = std::string("emulated driver: ") + name_of(code);
    if (d.sticky == code && !d.reports.empty()) sentence += ": " + d.reports[0];
    *text = sentence.c_str();
    return CUDA_SUCCESS;
}
