// What the emulator found, in words: which kernel, block, thread and source line did what.
#pragma once
#include <stdint.h>

#include <string>

namespace emu {

// An address in kernel code, relative to the start of the library.
typedef uint32_t Pc;

// The code that called the engine function this is used in.
#define CALLER ::emu::code_offset(__builtin_return_address(0))
Pc code_offset(const void* address);
// Whether an address lies in this library: constants that kernels read.
bool is_in_library(const void* address);

// How bad a finding is decides which CUDA error the launch ends with.
enum class Severity { Race, IllegalAddress, Misaligned, Hang };

struct Finding {
    std::string kind;  // short and stable, for tests: "race-raw", "global-oob", "deadlock", ...
    std::string text;  // the whole report, one line
    Severity severity;
};

// Records a finding of the running launch; each kind is reported once per place.
__attribute__((format(printf, 3, 4))) void report(const char* kind, Pc pc, const char* format, ...);

// "kernels/matmul.cu:88", or the innermost frames of inlined code; "?" without debug information.
const std::string& source_line(Pc pc);

}  // namespace emu
