#include "report.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <unordered_map>

#include "engine.h"

extern "C" __attribute__((visibility("hidden"))) char __ehdr_start, _end;

namespace emu {

namespace {

constexpr size_t MAX_FINDINGS = 40;

Severity severity_of(const std::string& kind) {
    if (kind == "global-oob" || kind == "wild" || kind == "global-freed")
        return Severity::IllegalAddress;
    if (kind == "align") return Severity::Misaligned;
    if (kind == "deadlock" || kind == "hang") return Severity::Hang;
    return Severity::Race;
}

// Frames that are the emulator's or a wrapper's say nothing; the kernel's own line is wanted.
bool is_kernel_frame(const std::string& frame) {
    return frame.find("/ptx/") == std::string::npos &&
           frame.find("kernels/emu/") == std::string::npos &&
           frame.find("/../emu/") == std::string::npos && frame.find("??") == std::string::npos;
}

std::string from_kernels_on(const std::string& frame) {
    size_t at = frame.rfind("kernels/");
    std::string path = at == std::string::npos ? frame : frame.substr(at);
    return path.substr(0, path.find(" ("));  // addr2line adds " (discriminator 3)"
}

std::string ask_addr2line(Pc pc) {
    Dl_info info;
    if (!dladdr(&__ehdr_start, &info) || !info.dli_fname) return "?";
    char command[1024];
    snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%x 2>/dev/null", info.dli_fname, pc);
    FILE* pipe = popen(command, "r");
    if (!pipe) return "?";
    std::string lines;
    int kept = 0;
    char line[512];
    while (fgets(line, sizeof line, pipe)) {
        line[strcspn(line, "\n")] = 0;
        if (kept == 3 || !is_kernel_frame(line)) continue;
        lines += (kept++ ? " < " : "") + from_kernels_on(line);
    }
    pclose(pipe);
    return lines.empty() ? "?" : lines;
}

}  // namespace

Pc code_offset(const void* address) { return (Pc)((const char*)address - &__ehdr_start); }

bool is_in_library(const void* address) {
    return (const char*)address >= &__ehdr_start && (const char*)address < &_end;
}

const std::string& source_line(Pc pc) {
    static std::unordered_map<Pc, std::string> known;
    auto found = known.find(pc);
    // A return address belongs to the instruction before it.
    if (found == known.end()) found = known.emplace(pc, pc ? ask_addr2line(pc - 1) : "?").first;
    return found->second;
}

void report(const char* kind, Pc pc, const char* format, ...) {
    if (launch->seen[{kind, pc}]++ || launch->findings.size() >= MAX_FINDINGS) return;
    char what[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    std::string text = std::string("[") + kind + "] " + launch->config.name;
    if (Thread* thread = launch->current) {
        const Context& c = *thread->context;
        char where[160];
        snprintf(where, sizeof where, " block (%u,%u,%u) thread (%u,%u,%u)", c.block.x, c.block.y,
                 c.block.z, c.thread.x, c.thread.y, c.thread.z);
        text += where;
    }
    if (pc) text += " at " + source_line(pc);
    launch->findings.push_back({kind, text + ": " + what, severity_of(kind)});
}

}  // namespace emu
