// Launches: checked and their arguments copied at the call, run when the stream gets there.
#include <string.h>

#include "driver.h"

namespace emu {

thread_local Trial trial;

namespace {

// The caller's argument values are gone when the kernel runs.
struct Arguments {
    std::vector<u8> bytes;
    std::vector<void*> pointers;

    Arguments(const KernelInfo& kernel, void** values) {
        constexpr size_t ALIGNMENT = 128;  // a tensor map's
        std::vector<size_t> offsets;
        size_t end = 0;
        for (u32 i = 0; i < kernel.num_params; i++) {
            size_t alignment = std::max<size_t>(8, kernel.alignments[i]);
            end = (end + alignment - 1) / alignment * alignment;
            offsets.push_back(end);
            end += kernel.sizes[i];
        }
        bytes.resize(end + ALIGNMENT);
        auto base = ((uintptr_t)bytes.data() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        for (u32 i = 0; i < kernel.num_params; i++) {
            pointers.push_back((void*)(base + offsets[i]));
            memcpy(pointers.back(), values[i], kernel.sizes[i]);
        }
    }
};

struct Geometry {
    Dim3 grid, block, cluster;
    u32 shared_bytes;
};

CUresult error_of(Severity severity) {
    switch (severity) {
    case Severity::IllegalAddress: return CUDA_ERROR_ILLEGAL_ADDRESS;
    case Severity::Misaligned: return CUDA_ERROR_MISALIGNED_ADDRESS;
    case Severity::Hang: return CUDA_ERROR_LAUNCH_TIMEOUT;
    case Severity::Race: break;
    }
    return CUDA_ERROR_LAUNCH_FAILED;
}

void run_kernel(const KernelInfo& kernel, const Geometry& geometry, Arguments& arguments) {
    Driver& d = driver();
    if (d.sticky) return;
    LaunchConfig config = {};
    config.name = kernel.name;
    config.call = kernel.call;
    config.body = kernel.body;
    config.arguments = arguments.pointers.data();
    config.grid = geometry.grid;
    config.block = geometry.block;
    config.cluster = geometry.cluster;
    config.shared_bytes = geometry.shared_bytes;
    // A trial's seed is the launch's own, so that seeds 0 to 8 are the nine combinations of modes.
    config.options.seed = trial.on ? trial.seed : d.seed * 1000003 + d.launches;
    config.options.check_races = d.checks;
    config.options.truncate_sums = d.truncate;
    d.launches++;
    for (const Finding& finding : run_launch(config))
        fail(error_of(finding.severity), finding.text);
}

CUresult check_geometry(const Function& f, const Geometry& g) {
    const Dim3 &grid = g.grid, &block = g.block, &cluster = g.cluster;
    REQUIRE(grid.count() && block.count() && cluster.count(), CUDA_ERROR_INVALID_VALUE);
    REQUIRE(grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535, CUDA_ERROR_INVALID_VALUE);
    REQUIRE(block.x <= 1024 && block.y <= 1024 && block.z <= 64, CUDA_ERROR_INVALID_VALUE);
    REQUIRE(block.count() <= f.max_threads, CUDA_ERROR_INVALID_VALUE);
    REQUIRE((int)g.shared_bytes <= f.dynamic_shared_limit, CUDA_ERROR_INVALID_VALUE);
    u64 padded = (block.count() + 31) / 32 * 32;
    REQUIRE(f.registers * padded <= (u64)REGISTERS, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    if (cluster.count() == 1) return CUDA_SUCCESS;
    REQUIRE(driver().major >= 9, CUDA_ERROR_NOT_SUPPORTED);
    REQUIRE(grid.x % cluster.x == 0 && grid.y % cluster.y == 0 && grid.z % cluster.z == 0,
            CUDA_ERROR_INVALID_CLUSTER_SIZE);
    REQUIRE(cluster.count() <= (f.non_portable_cluster ? (u64)MAX_CLUSTER : 8),
            CUDA_ERROR_INVALID_CLUSTER_SIZE);
    return CUDA_SUCCESS;
}

CUresult launch_function(CUfunction handle, const Geometry& geometry, CUstream stream_handle,
                         void** values, void** extra) {
    REQUIRE(driver().functions.count(handle), CUDA_ERROR_INVALID_HANDLE);
    const Function& f = *(Function*)handle;
    Stream* stream = find_stream(stream_handle);
    REQUIRE(stream, CUDA_ERROR_INVALID_HANDLE);
    if (CUresult result = check_geometry(f, geometry)) return result;
    REQUIRE(!extra, CUDA_ERROR_NOT_SUPPORTED);
    REQUIRE(values || !f.kernel->num_params, CUDA_ERROR_INVALID_VALUE);
    for (u32 i = 0; i < f.kernel->num_params; i++) REQUIRE(values[i], CUDA_ERROR_INVALID_VALUE);
    auto arguments = std::make_shared<Arguments>(*f.kernel, values);
    const KernelInfo* kernel = f.kernel;
    submit_run(*stream, kernel->name, [=] { run_kernel(*kernel, geometry, *arguments); });
    return CUDA_SUCCESS;
}

}  // namespace
}  // namespace emu

using namespace emu;

EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                               unsigned grid_z, unsigned block_x, unsigned block_y,
                               unsigned block_z, unsigned shared_bytes, CUstream stream,
                               void** values, void** extra) {
    ENTER(Context);
    Geometry geometry{{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, {}, shared_bytes};
    return launch_function(function, geometry, stream, values, extra);
}

EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** values,
                                 void** extra) {
    ENTER(Context);
    REQUIRE(config && (config->attrs || !config->numAttrs), CUDA_ERROR_INVALID_VALUE);
    Geometry geometry{{config->gridDimX, config->gridDimY, config->gridDimZ},
                      {config->blockDimX, config->blockDimY, config->blockDimZ},
                      {},
                      config->sharedMemBytes};
    for (unsigned i = 0; i < config->numAttrs; i++) {
        const CUlaunchAttribute& attribute = config->attrs[i];
        switch (attribute.id) {
        case CU_LAUNCH_ATTRIBUTE_IGNORE:
        // Overlap with the previous kernel is allowed, never promised.
        case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: break;
        case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION: {
            const auto& dims = attribute.value.clusterDim;
            geometry.cluster = {dims.x, dims.y, dims.z};
            break;
        }
        default: return CUDA_ERROR_NOT_SUPPORTED;
        }
    }
    return launch_function(function, geometry, config->hStream, values, extra);
}
