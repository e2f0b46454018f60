// Every plain load and store of a kernel arrives here: kernels are compiled with -fsanitize=thread,
// which makes the compiler call __tsan_* before each access, and these are linked in its place of
// the sanitizer's runtime. (The names are GCC's and clang's internal ABI, unchanged since GCC 4.8.)
#include "engine.h"
#include "fiber.h"
#include "global_memory.h"

namespace emu {

static void plain_access(const void* pointer, u32 bytes, bool write, const void* caller) {
    if (!launch) return;
    Thread* thread = launch->current;
    if (!thread) return;
    const u8* address = (const u8*)pointer;
    if ((size_t)(address - thread->stack) < STACK_BYTES) return;  // a local variable
    Pc pc = code_offset(caller);
    Block& block = *thread->block;
    size_t offset = (size_t)(address - block.shared);
    if (offset < SHARED_CAPACITY) {
        shared_access(*thread, block, (u32)offset, bytes, write ? Access::Write : Access::Read, pc);
        return;
    }
    if (in_device_arena(pointer)) {
        GlobalAccess access = write ? GlobalAccess::Write : GlobalAccess::Read;
        if (!global_access(*thread, pointer, bytes, access, pc)) abort_launch();
        return;
    }
    if (!write && is_in_library(pointer)) return;  // a constant table
    report("wild", pc, "%s of %u bytes at %s", write ? "write" : "read", bytes,
           address < (const u8*)4096 ? "a null pointer" : "an address of the host");
    abort_launch();
}

}  // namespace emu

#define CALLED_FROM __builtin_return_address(0)
#define HOOK(kind, bytes, write) \
    void __tsan_##kind##bytes(void* p) { emu::plain_access(p, bytes, write, CALLED_FROM); }
#define HOOKS(bytes)                   \
    HOOK(read, bytes, false)           \
    HOOK(write, bytes, true)           \
    HOOK(unaligned_read, bytes, false) \
    HOOK(unaligned_write, bytes, true) \
    HOOK(volatile_read, bytes, false)  \
    HOOK(volatile_write, bytes, true)

extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void* p, size_t bytes) {
    emu::plain_access(p, (uint32_t)bytes, false, CALLED_FROM);
}
void __tsan_write_range(void* p, size_t bytes) {
    emu::plain_access(p, (uint32_t)bytes, true, CALLED_FROM);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
}
