// Fibers: one stack per CUDA thread, and a switch between them in a dozen instructions.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace emu {

constexpr size_t STACK_BYTES = 64 * 1024;

// The stack of the index-th fiber, with a guard page below it; kept for later launches.
uint8_t* fiber_stack(size_t index);

// Prepares a stack so that switching to the result runs `entry`, which must never return.
// `colour` staggers the stack tops, which would otherwise fight for the same cache sets.
void* prepare_fiber(uint8_t* stack, size_t colour, void (*entry)());

// Where prepare_fiber leaves room for the thread's indices (on its own stack, where the compiler's
// instrumentation does not check them).
void* fiber_local(uint8_t* stack, size_t colour);

// Saves the running stack in *save and continues at `to`.
extern "C" void emu_switch(void** save, void* to);

}  // namespace emu
