#include "fiber.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <vector>

// System V x86-64: the six callee-saved registers and the stack pointer are all there is to keep.
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
.size emu_switch, . - emu_switch
)");

namespace emu {

namespace {
constexpr size_t GUARD_BYTES = 4096;
constexpr size_t LOCAL_BYTES = 128;

size_t stagger(size_t colour) { return colour * 320 % 8192; }
}  // namespace

uint8_t* fiber_stack(size_t index) {
    static auto* stacks = new std::vector<uint8_t*>();
    while (stacks->size() <= index) {
        void* memory = mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            fprintf(stderr, "hooke emulator: no memory for the stack of thread %zu\n", index);
            abort();
        }
        mprotect(memory, GUARD_BYTES, PROT_NONE);
        stacks->push_back((uint8_t*)memory + GUARD_BYTES);
    }
    return (*stacks)[index];
}

void* fiber_local(uint8_t* stack, size_t colour) {
    return stack + STACK_BYTES - LOCAL_BYTES - stagger(colour);
}

void* prepare_fiber(uint8_t* stack, size_t colour, void (*entry)()) {
    auto* top = (uint64_t*)(stack + STACK_BYTES - 2 * LOCAL_BYTES - stagger(colour));
    *--top = 0;  // where entry's return address would be: keeps the ABI's alignment
    *--top = (uint64_t)entry;
    for (int i = 0; i < 6; i++) *--top = 0;
    return top;
}

}  // namespace emu
