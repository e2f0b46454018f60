// Reads what nvcc made: a fatbin (a list of images per architecture) or one cubin (an ELF file).
//
// The image decides which kernels exist and how they look: `.text.NAME` sections, and per kernel
// the attributes in `.nv.info` (parameters 0x17, launch bounds 0x05, registers 0x2f, frame size
// 0x11).
#include <string.h>

#include "driver.h"

namespace emu {

namespace {

constexpr u32 FATBIN_MAGIC = 0xba55ed50;
enum FatbinKind : u16 { PTX = 1, CUBIN = 2 };
enum Attribute : u8 {
    MAX_THREADS = 0x05,
    FRAME_SIZE = 0x11,
    PARAMETER = 0x17,
    NUM_REGISTERS = 0x2f
};
enum SectionType : u32 { SYMTAB = 2, NOBITS = 8 };

template <class T>
T read(const u8* at) {
    T value;
    memcpy(&value, at, sizeof value);
    return value;
}

struct Section {
    std::string name;
    u32 type, link;
    u64 offset, bytes;
};

// The sections of an ELF file, or nothing if it is broken.
std::vector<Section> sections_of(const u8* elf, u64 size) {
    if (size < 64 || memcmp(elf, "\177ELF", 4)) return {};
    u64 table = read<u64>(elf + 0x28);
    u32 entry = read<u16>(elf + 0x3a), count = read<u16>(elf + 0x3c), names = read<u16>(elf + 0x3e);
    if (table + (u64)entry * count > size || names >= count) return {};
    const char* strings = (const char*)elf + read<u64>(elf + table + (u64)entry * names + 0x18);
    std::vector<Section> sections;
    for (u32 i = 0; i < count; i++) {
        const u8* s = elf + table + (u64)entry * i;
        sections.push_back({strings + read<u32>(s), read<u32>(s + 4), read<u32>(s + 0x28),
                            read<u64>(s + 0x18), read<u64>(s + 0x20)});
        const Section& last = sections.back();
        if (last.type != NOBITS && last.offset + last.bytes > size) return {};
    }
    return sections;
}

std::string after(const std::string& name, const char* prefix) {
    size_t n = strlen(prefix);
    return name.compare(0, n, prefix) == 0 ? name.substr(n) : std::string();
}

// One section of attributes: {format, id, size or value, data}. Only sized ones (format 4) matter.
template <class F>
void for_attributes(const u8* data, u64 bytes, F visit) {
    for (u64 at = 0; at + 4 <= bytes;) {
        u8 format = data[at], id = data[at + 1];
        u32 length = read<u16>(data + at + 2);
        at += 4;
        if (format != 4) continue;
        if (at + length > bytes) return;
        visit(id, data + at);
        at += length;
    }
}

void add_parameter(Function& function, const u8* data) {
    u32 ordinal = read<u16>(data + 4), offset = read<u16>(data + 6),
        bytes = read<u32>(data + 8) >> 18;
    if (function.parameters.size() <= ordinal) function.parameters.resize(ordinal + 1u);
    function.parameters[ordinal] = {bytes, offset};
}

bool read_cubin(const u8* elf, u64 size, Module& module) {
    std::vector<Section> sections = sections_of(elf, size);
    if (sections.empty()) return false;
    std::map<std::string, u32> symbols;
    for (const Section& s : sections) {
        if (s.type == SYMTAB)
            for (u64 i = 0; i * 24 < s.bytes; i++)
                symbols[(const char*)elf + sections[s.link].offset +
                        read<u32>(elf + s.offset + i * 24)] = (u32)i;
        std::string name = after(s.name, ".text.");
        if (name.empty()) continue;
        auto& function = module.functions[name];
        function = std::make_unique<Function>();
        function->name = name;
    }
    std::map<u32, u32> registers, frames;
    for (const Section& s : sections) {
        std::string shared = after(s.name, ".nv.shared."), info = after(s.name, ".nv.info.");
        if (module.functions.count(shared)) module.functions[shared]->static_shared = (u32)s.bytes;
        if (s.name.compare(0, 8, ".nv.info")) continue;
        Function* own = module.functions.count(info) ? module.functions[info].get() : nullptr;
        for_attributes(elf + s.offset, s.bytes, [&](u8 id, const u8* data) {
            if (id == NUM_REGISTERS) registers[read<u32>(data)] = read<u32>(data + 4);
            if (id == FRAME_SIZE) frames[read<u32>(data)] = read<u32>(data + 4);
            if (own && id == PARAMETER) add_parameter(*own, data);
            if (own && id == MAX_THREADS)
                own->max_threads = read<u32>(data) * read<u32>(data + 4) * read<u32>(data + 8);
        });
    }
    for (auto& [name, function] : module.functions) {
        function->registers = registers[symbols[name]];
        function->local_bytes = frames[symbols[name]];
    }
    return true;
}

}  // namespace

CUresult read_image(const void* image, int major, int minor, Module& module) {
    const u8* bytes = (const u8*)image;
    // A bare cubin has no length around it; its section table is trusted to lie inside.
    if (!memcmp(bytes, "\177ELF", 4))
        return read_cubin(bytes, ~0ull >> 1, module) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
    REQUIRE(read<u32>(bytes) == FATBIN_MAGIC, CUDA_ERROR_INVALID_IMAGE);
    u64 at = read<u16>(bytes + 6), end = at + read<u64>(bytes + 8);
    const u8* best = nullptr;
    u64 best_size = 0;
    u32 best_arch = 0;
    bool has_ptx = false;
    while (at < end) {
        u16 kind = read<u16>(bytes + at);
        u32 header = read<u32>(bytes + at + 4), arch = read<u32>(bytes + at + 28);
        u64 size = read<u64>(bytes + at + 8);
        bool fits = (int)arch / 10 == major && (int)arch % 10 <= minor;
        if (kind == CUBIN && fits && arch > best_arch) {
            best = bytes + at + header;
            best_size = size;
            best_arch = arch;
        }
        has_ptx |= kind == PTX && (int)arch <= major * 10 + minor;
        at += header + size;
    }
    REQUIRE(best || has_ptx, CUDA_ERROR_NO_BINARY_FOR_GPU);
    if (!best || memcmp(best, "\177ELF", 4)) {
        module.unchecked = true;
        return CUDA_SUCCESS;
    }
    return read_cubin(best, best_size, module) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

}  // namespace emu
