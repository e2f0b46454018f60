// Modules and functions. A kernel is refused unless nvcc and g++ agree on its parameters and launch
// bounds: drift between the two compilations is found when the module is loaded.
#include <stdio.h>

#include "driver.h"

namespace emu {

static std::map<std::string, const KernelInfo*>& registry() {
    static auto* kernels = new std::map<std::string, const KernelInfo*>();
    return *kernels;
}

void register_kernel(const KernelInfo* kernel) {
    auto& known = registry()[kernel->name];
    if (known)
        fprintf(stderr, "hooke emulator: kernel %s is defined in %s and in %s\n", kernel->name,
                known->file, kernel->file);
    known = kernel;
}

const KernelInfo* find_kernel(const std::string& name) {
    auto found = registry().find(name);
    return found == registry().end() ? nullptr : found->second;
}

// Why the two compilers' views of a kernel differ; empty if they do not.
static std::string difference(const Function& f, const KernelInfo& kernel) {
    if (f.max_threads != kernel.threads)
        return "launch bounds " + std::to_string(f.max_threads) + " and " +
               std::to_string(kernel.threads);
    if (f.parameters.size() != kernel.num_params)
        return std::to_string(f.parameters.size()) + " and " + std::to_string(kernel.num_params) +
               " parameters";
    for (u32 i = 0; i < kernel.num_params; i++)
        if (f.parameters[i].bytes != kernel.sizes[i])
            return "parameter " + std::to_string(i) + " of " +
                   std::to_string(f.parameters[i].bytes) + " and " +
                   std::to_string(kernel.sizes[i]) + " bytes";
    return "";
}

// What g++ knows, for an image that cannot be read.
static Function& from_registry(Module& module, const KernelInfo& kernel) {
    auto& function = module.functions[kernel.name];
    if (function) return *function;
    function = std::make_unique<Function>();
    function->name = kernel.name;
    function->max_threads = kernel.threads;
    u32 offset = 0;
    for (u32 i = 0; i < kernel.num_params; i++) {
        offset = (offset + kernel.alignments[i] - 1) / kernel.alignments[i] * kernel.alignments[i];
        function->parameters.push_back({kernel.sizes[i], offset});
        offset += kernel.sizes[i];
    }
    return *function;
}

}  // namespace emu

using namespace emu;

static CUresult load_module(CUmodule* out, const void* image) {
    REQUIRE(image, CUDA_ERROR_INVALID_VALUE);
    auto module = std::make_unique<Module>();
    CUresult result = read_image(image, driver().major, driver().minor, *module);
    if (result) return result;
    driver().modules.insert(module.get());
    *out = (CUmodule)module.release();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleLoadData(CUmodule* out, const void* image) {
    ENTER(Context);
    return load_module(out, image);
}

EXPORT CUresult cuModuleLoadDataEx(CUmodule* out, const void* image, unsigned, CUjit_option*,
                                   void**) {
    ENTER(Context);
    return load_module(out, image);
}

EXPORT CUresult cuModuleUnload(CUmodule handle) {
    ENTER(Context);
    REQUIRE(driver().modules.erase(handle), CUDA_ERROR_INVALID_HANDLE);
    drain_all();
    auto* module = (Module*)handle;
    for (auto& [name, function] : module->functions) driver().functions.erase(function.get());
    delete module;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleGetFunction(CUfunction* out, CUmodule handle, const char* name) {
    ENTER(Context);
    REQUIRE(driver().modules.count(handle), CUDA_ERROR_INVALID_HANDLE);
    Module& module = *(Module*)handle;
    const KernelInfo* kernel = find_kernel(name);
    if (module.unchecked && kernel) from_registry(module, *kernel);
    auto found = module.functions.find(name);
    REQUIRE(found != module.functions.end(), CUDA_ERROR_NOT_FOUND);
    if (!kernel) {
        fprintf(stderr, "hooke emulator: kernel %s is in the image but not in this library\n",
                name);
        return CUDA_ERROR_NOT_FOUND;
    }
    Function& function = *found->second;
    function.kernel = kernel;
    std::string differs = difference(function, *kernel);
    if (!differs.empty()) {
        fprintf(stderr, "hooke emulator: nvcc and g++ compiled different kernels %s: %s\n", name,
                differs.c_str());
        return CUDA_ERROR_INVALID_IMAGE;
    }
    driver().functions.insert(&function);
    *out = (CUfunction)&function;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction handle) {
    ENTER(Context);
    REQUIRE(driver().functions.count(handle), CUDA_ERROR_INVALID_HANDLE);
    const Function& f = *(Function*)handle;
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = (int)f.max_threads; break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = (int)f.registers; break;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: *value = (int)f.local_bytes; break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *value = (int)f.static_shared; break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = f.dynamic_shared_limit; break;
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *value = driver().major * 10 + driver().minor; break;
    default: return CUDA_ERROR_NOT_SUPPORTED;
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
    ENTER(Context);
    REQUIRE(driver().functions.count(handle), CUDA_ERROR_INVALID_HANDLE);
    Function& f = *(Function*)handle;
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        REQUIRE(value >= 0 && value + (int)f.static_shared <= SHARED_OPT_IN,
                CUDA_ERROR_INVALID_VALUE);
        f.dynamic_shared_limit = value;
        break;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        REQUIRE(value >= -1 && value <= 100, CUDA_ERROR_INVALID_VALUE);
        f.carveout = value;
        break;
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
        f.non_portable_cluster = value != 0;
        break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

// Offsets are those of the image: they are not the offsets of a C struct.
EXPORT CUresult cuFuncGetParamInfo(CUfunction handle, size_t index, size_t* offset, size_t* bytes) {
    ENTER(Context);
    REQUIRE(driver().functions.count(handle), CUDA_ERROR_INVALID_HANDLE);
    const Function& f = *(Function*)handle;
    REQUIRE(index < f.parameters.size(), CUDA_ERROR_INVALID_VALUE);
    if (offset) *offset = f.parameters[index].offset;
    if (bytes) *bytes = f.parameters[index].bytes;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, CUfunction handle,
                                                                     int threads, size_t shared,
                                                                     unsigned) {
    ENTER(Context);
    REQUIRE(driver().functions.count(handle) && threads > 0, CUDA_ERROR_INVALID_VALUE);
    const Function& f = *(Function*)handle;
    int padded = (threads + 31) / 32 * 32;
    int by_registers = f.registers ? REGISTERS / ((int)f.registers * padded) : 32;
    int by_shared = (int)(228 * 1024 / (shared + 1024));
    *blocks = std::min({by_registers, by_shared, 2048 / padded, 32});
    return CUDA_SUCCESS;
}
