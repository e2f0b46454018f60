// Device memory and copies. Copies from pageable memory are staged at the call and happen late;
// copies to pageable memory block; copies of pinned memory are late both ways.
#include <string.h>

#include "driver.h"
#include "global_memory.h"

using namespace emu;

// Whether the running copy or memset may touch this range; also tells the order check.
static bool may_touch(const void* pointer, size_t bytes, bool write) {
    if (bytes && !is_device_range(pointer, bytes)) {
        fail(CUDA_ERROR_ILLEGAL_ADDRESS,
             "[global-oob] " + driver().running + (write ? " writes " : " reads ") +
                 std::to_string(bytes) + " bytes at arena+" +
                 std::to_string(device_offset(pointer)) + ", outside any live allocation");
        return false;
    }
    touch_operation(pointer, bytes, write, 0);
    return true;
}

EXPORT CUresult cuMemGetInfo(size_t* free_bytes, size_t* total) {
    ENTER(Context);
    size_t used;
    live_allocations(&used);
    *total = device_memory_bytes();
    *free_bytes = *total - used;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAllocAsync(CUdeviceptr* out, size_t bytes, CUstream handle) {
    ENTER(Context);
    Stream* stream = find_stream(handle);
    REQUIRE(stream && bytes, CUDA_ERROR_INVALID_VALUE);
    void* memory = device_alloc(bytes);
    REQUIRE(memory, CUDA_ERROR_OUT_OF_MEMORY);
    *out = (CUdeviceptr)memory;
    submit_run(*stream, "allocation", [=] {
        if (is_device_range(memory, bytes)) touch_operation(memory, bytes, true, 0);
    });
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAlloc(CUdeviceptr* out, size_t bytes) {
    ENTER(Context);
    REQUIRE(bytes, CUDA_ERROR_INVALID_VALUE);
    void* memory = device_alloc(bytes);
    REQUIRE(memory, CUDA_ERROR_OUT_OF_MEMORY);
    *out = (CUdeviceptr)memory;
    return CUDA_SUCCESS;
}

static void free_now(void* memory) {
    size_t bytes = device_alloc_size(memory);
    if (!bytes) {
        fail(CUDA_ERROR_INVALID_VALUE, "[free] of something that is not a live allocation");
        return;
    }
    touch_operation(memory, bytes, true, 0);
    device_free(memory);
}

EXPORT CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream handle) {
    ENTER(Context);
    Stream* stream = find_stream(handle);
    void* memory = (void*)pointer;
    REQUIRE(stream && device_alloc_size(memory), CUDA_ERROR_INVALID_VALUE);
    submit_run(*stream, "free", [=] { free_now(memory); });
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFree(CUdeviceptr pointer) {
    ENTER(Context);
    REQUIRE(device_alloc_size((void*)pointer), CUDA_ERROR_INVALID_VALUE);
    drain_all();
    Stream& stream = *driver().streams[0];
    submit_run(stream, "free", [=] { free_now((void*)pointer); });
    return drain(stream);
}

static void copy_to_device(Stream& stream, CUdeviceptr to, const void* from, size_t bytes) {
    void* target = (void*)to;
    const char* what = "copy host to device";
    if (is_pinned(from, bytes)) {
        submit_run(
            stream, what,
            [=] {
                if (may_touch(target, bytes, true)) memcpy(target, from, bytes);
            },
            from, bytes);
        return;
    }
    auto staged = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + bytes);
    submit_run(stream, what, [=] {
        if (may_touch(target, bytes, true)) memcpy(target, staged->data(), bytes);
    });
}

static CUresult copy_to_host(Stream& stream, void* to, CUdeviceptr from, size_t bytes) {
    const void* source = (const void*)from;
    submit_run(
        stream, "copy device to host",
        [=] {
            if (may_touch(source, bytes, false)) memcpy(to, source, bytes);
        },
        to, bytes, true);
    return is_pinned(to, bytes) ? CUDA_SUCCESS : drain(stream);
}

EXPORT CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream handle) {
    ENTER(Context);
    Stream* stream = find_stream(handle);
    REQUIRE(stream, CUDA_ERROR_INVALID_HANDLE);
    copy_to_device(*stream, to, from, bytes);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream handle) {
    ENTER(Context);
    Stream* stream = find_stream(handle);
    REQUIRE(stream, CUDA_ERROR_INVALID_HANDLE);
    return copy_to_host(*stream, to, from, bytes);
}

EXPORT CUresult cuMemcpyHtoD(CUdeviceptr to, const void* from, size_t bytes) {
    ENTER(Context);
    Stream& stream = *driver().streams[0];
    copy_to_device(stream, to, from, bytes);
    return drain(stream);
}

EXPORT CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, size_t bytes) {
    ENTER(Context);
    Stream& stream = *driver().streams[0];
    copy_to_host(stream, to, from, bytes);
    return drain(stream);
}

EXPORT CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream handle) {
    ENTER(Context);
    Stream* stream = find_stream(handle);
    REQUIRE(stream, CUDA_ERROR_INVALID_HANDLE);
    submit_run(*stream, "copy device to device", [=] {
        if (may_touch((void*)from, bytes, false) && may_touch((void*)to, bytes, true))
            memmove((void*)to, (void*)from, bytes);
    });
    return CUDA_SUCCESS;
}

template <class T>
static CUresult set_memory(CUdeviceptr to, T value, size_t count, CUstream handle) {
    Stream* stream = find_stream(handle);
    REQUIRE(stream, CUDA_ERROR_INVALID_HANDLE);
    REQUIRE(to % sizeof(T) == 0, CUDA_ERROR_INVALID_VALUE);
    submit_run(*stream, "memset", [=] {
        if (!may_touch((void*)to, count * sizeof(T), true)) return;
        for (size_t i = 0; i < count; i++) ((T*)to)[i] = value;
    });
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count,
                                CUstream stream) {
    ENTER(Context);
    return set_memory(to, value, count, stream);
}

EXPORT CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count,
                                 CUstream stream) {
    ENTER(Context);
    return set_memory(to, value, count, stream);
}

EXPORT CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
    ENTER(Context);
    return set_memory(to, value, count, stream);
}
