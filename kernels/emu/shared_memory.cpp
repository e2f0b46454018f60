// Shared memory and its shadow: bounds, never-written bytes and races.
//
// Per byte the shadow keeps the last writer, and per warp the last lane that read since. A second
// reader in the same warp replaces the first, so a write-after-read race inside a warp can be
// missed; nothing is ever reported that is ordered. Rules for the async proxy are in the PTX memory
// model
// ("proxies"); how sure each is stands beside it.
#include <string.h>

#include <algorithm>

#include "engine.h"

namespace emu {

namespace {

const char* writer_name(WriterKind kind) {
    static const char* const names[] = {"nothing",
                                        "a write",
                                        "an atomic",
                                        "a TMA write",
                                        "an unfinished cp.async",
                                        "an unfinished TMA write",
                                        "mbarrier storage"};
    return names[(int)kind];
}

// "by thread 37 of block 1 at kernels/x.cu:12"
std::string writer_description(const Block& block, u64 writer, Pc pc) {
    int agent = writer_agent(writer), threads = block.num_threads;
    bool is_thread = writer_kind(writer) == WriterKind::Thread ||
                     writer_kind(writer) == WriterKind::Atomic ||
                     writer_kind(writer) == WriterKind::OpenCopy;
    std::string text = writer_name(writer_kind(writer));
    if (is_thread) text += " by thread " + std::to_string(agent % threads);
    if (is_thread && agent / threads != block.rank)
        text += " of block " + std::to_string(agent / threads) + " of the cluster";
    return pc ? text + " at " + source_line(pc) : text;
}

}  // namespace

unsigned char* dynamic_shared() { return self()->block->shared; }

uint32_t shared_address(const void* pointer) {
    size_t offset = (size_t)((const u8*)pointer - self()->block->shared);
    if (offset > SHARED_CAPACITY) {
        report("wild", CALLER, "the address of something that is not in shared memory");
        return 0;
    }
    return SHARED_BASE + (u32)offset;
}

bool resolve_shared(u32 shared, u32 bytes, u32 alignment, Pc pc, const char* what, Block** block,
                    u32* offset) {
    Block* own = self()->block;
    u32 rank = shared >> RANK_SHIFT;
    *block = rank == 0 ? own : &own->cluster->blocks[rank - 1];
    *offset = (shared & ((1u << RANK_SHIFT) - 1)) - SHARED_BASE;
    if (shared % alignment) {
        report("align", pc, "%s: shared address 0x%x is not %u-byte aligned", what, shared,
               alignment);
        return false;
    }
    if ((shared & ((1u << RANK_SHIFT) - 1)) < SHARED_BASE ||
        (u64)*offset + bytes > (*block)->shared_bytes) {
        report("shared-oob", pc, "%s: %u bytes at shared+%d, outside the %u bytes of the launch",
               what, bytes, (int)*offset, (*block)->shared_bytes);
        return false;
    }
    if (*block != own && (*block)->running == 0) {
        report("cluster-exit", pc, "%s: block %d of the cluster has already exited", what,
               (*block)->rank);
        return false;
    }
    return true;
}

void start_shared(Block& block) {
    if (!launch->config.options.check_races) return;
    SharedShadow& s = block.shadow;
    size_t bytes = block.shared_bytes, chunks = bytes / 16 + 1, warps = (size_t)block.num_warps;
    s.bytes = bytes;
    s.writer.assign(bytes, 0);
    s.writer_pc.resize(bytes);
    s.reader_warps.assign(bytes, 0);
    s.async_readers.assign(bytes, 0);
    s.read_tick.resize(bytes * warps);
    s.read_lane.resize(bytes * warps);
    s.wgmma_warps.assign(chunks, 0);
    s.wgmma_group.resize(chunks * warps);
    s.remote_reads.clear();
}

void mark_written(Block& block, u32 offset, u32 bytes, u64 writer, Pc pc) {
    SharedShadow& s = block.shadow;
    std::fill_n(s.writer.begin() + offset, bytes, writer);
    std::fill_n(s.writer_pc.begin() + offset, bytes, pc);
    std::fill_n(s.reader_warps.begin() + offset, bytes, 0u);
    for (u32 chunk = offset / 16; chunk < (offset + bytes + 15) / 16; chunk++)
        s.wgmma_warps[chunk] = 0;
    if (!s.remote_reads.empty())
        for (u32 i = offset; i < offset + bytes; i++) s.remote_reads.erase(i);
}

bool write_is_ordered(u64 writer, const Tick* general, int self_agent) {
    switch (writer_kind(writer)) {
    case WriterKind::Nobody: return true;
    case WriterKind::Thread:
    case WriterKind::Atomic:
        return writer_agent(writer) == self_agent ||
               general[writer_agent(writer)] >= writer_tick(writer);
    case WriterKind::Tma: return general[writer_agent(writer)] >= writer_tick(writer);
    default: return false;
    }
}

// The readers since the last write must be ordered before the next one, seen from `general`.
void check_readers(Block& block, u32 offset, u32 bytes, const Tick* general, int self_agent, Pc pc,
                   const char* what) {
    SharedShadow& s = block.shadow;
    int first_agent = block.rank * block.num_threads;
    for (u32 i = offset; i < offset + bytes; i++) {
        if (s.async_readers[i]) {
            report("race-war", pc, "%s to shared+%u while a bulk store may still read it", what, i);
            return;
        }
        for (u32 warps = s.reader_warps[i]; warps; warps &= warps - 1) {
            size_t warp = (size_t)__builtin_ctz(warps), at = warp * s.bytes + i;
            int reader = first_agent + (int)warp * WARP + s.read_lane[at];
            if (reader == self_agent || general[reader] >= s.read_tick[at]) continue;
            report("race-war", pc, "%s to shared+%u is not ordered after the read by thread %d",
                   what, i, reader - first_agent);
            return;
        }
    }
    for (u32 chunk = offset / 16; chunk < (offset + bytes + 15) / 16; chunk++)
        for (u32 warps = s.wgmma_warps[chunk]; warps; warps &= warps - 1) {
            size_t warp = (size_t)__builtin_ctz(warps);
            if (general[block.warps[warp].agent] >=
                s.wgmma_group[warp * (s.bytes / 16 + 1) + chunk])
                continue;
            report("race-war", pc, "%s to shared+%u while the wgmma of warp %zu may still read it",
                   what, chunk * 16, warp);
            return;
        }
    if (s.remote_reads.empty()) return;
    for (u32 i = offset; i < offset + bytes; i++)
        for (auto& [reader, tick] : s.remote_reads[i])
            if (reader != self_agent && general[reader] < tick) {
                report(
                    "race-war", pc,
                    "%s to shared+%u is not ordered after a read by another block of the cluster",
                    what, i);
                return;
            }
}

void record_read(Thread& thread, Block& block, u32 offset, u32 bytes) {
    SharedShadow& s = block.shadow;
    Tick now = thread.clock.general[thread.agent];
    if (&block != thread.block) {
        for (u32 i = offset; i < offset + bytes; i++)
            s.remote_reads[i].push_back({thread.agent, now});
        return;
    }
    size_t row = (size_t)thread.warp->id * s.bytes;
    u32 bit = 1u << thread.warp->id;
    for (u32 i = offset; i < offset + bytes; i++) {
        s.reader_warps[i] |= bit;
        s.read_tick[row + i] = now;
        s.read_lane[row + i] = (u8)thread.lane;
    }
}

void shared_access(Thread& thread, Block& block, u32 offset, u32 bytes, Access access, Pc pc) {
    if ((u64)offset + bytes > block.shared_bytes) {
        report("shared-oob", pc, "%u bytes at shared+%u, outside the %u bytes of the launch", bytes,
               offset, block.shared_bytes);
        return;
    }
    if (!launch->config.options.check_races) return;
    SharedShadow& s = block.shadow;
    const char* verb = access == Access::Read    ? "read"
                       : access == Access::Write ? "write"
                                                 : "atomic";
    u64 checked = ~0ull;
    for (u32 i = offset; i < offset + bytes; i++) {
        u64 writer = s.writer[i];
        if (writer == checked) continue;
        checked = writer;
        WriterKind kind = writer_kind(writer);
        if (kind == WriterKind::MbarrierStorage) {
            report("mbarrier-raw", pc, "plain %s of a live mbarrier at shared+%u", verb, i);
            return;
        }
        if (kind == WriterKind::Nobody) {
            if (access == Access::Write) continue;
            report("uninitialised", pc, "%s of shared+%u, which nobody has written", verb, i);
            break;
        }
        if (kind == WriterKind::Atomic && access == Access::Atomic) continue;
        if (write_is_ordered(writer, thread.clock.general, thread.agent)) continue;
        report(access == Access::Read ? "race-raw" : "race-waw", pc,
               "%s of shared+%u races with %s", verb, i,
               writer_description(block, writer, s.writer_pc[i]).c_str());
        break;
    }
    if (access == Access::Read) {
        record_read(thread, block, offset, bytes);
        return;
    }
    check_readers(block, offset, bytes, thread.clock.general, thread.agent, pc, verb);
    WriterKind kind = access == Access::Atomic ? WriterKind::Atomic : WriterKind::Thread;
    mark_written(block, offset, bytes,
                 pack_writer(kind, thread.agent, thread.clock.general[thread.agent]), pc);
}

// A read by TMA or wgmma. Ordinary writes must be ordered *and* fenced by their writer (PTX
// proxies; high confidence); TMA writes only ordered.
bool check_async_read(Block& block, u32 offset, u32 bytes, const Tick* general, const Tick* async,
                      Pc pc, const char* what) {
    SharedShadow& s = block.shadow;
    u64 checked = ~0ull;
    for (u32 i = offset; i < offset + bytes; i++) {
        u64 writer = s.writer[i];
        if (writer == checked) continue;
        checked = writer;
        WriterKind kind = writer_kind(writer);
        if (kind == WriterKind::Nobody) {
            report("uninitialised", pc, "%s reads shared+%u, which nobody has written", what, i);
            return false;
        }
        bool ordinary = kind == WriterKind::Thread || kind == WriterKind::Atomic;
        if (ordinary ? async[writer_agent(writer)] >= writer_tick(writer)
                     : write_is_ordered(writer, general, -1))
            continue;
        bool only_fence = ordinary && general[writer_agent(writer)] >= writer_tick(writer);
        report(only_fence ? "proxy-raw" : "race-raw", pc, "%s reads shared+%u %s %s", what, i,
               only_fence ? "without a fence.proxy.async after" : "racing with",
               writer_description(block, writer, s.writer_pc[i]).c_str());
        return false;
    }
    return true;
}

// A write by TMA, issued by the running thread. That ordinary writes before it need a proxy fence
// follows from the memory model (medium to high confidence); reads before it need only order
// (CUTLASS practice, medium).
void check_async_write(Block& block, u32 offset, u32 bytes, Pc pc) {
    SharedShadow& s = block.shadow;
    const ThreadClock& clock = self()->clock;
    u64 checked = ~0ull;
    for (u32 i = offset; i < offset + bytes; i++) {
        u64 writer = s.writer[i];
        if (writer == checked) continue;
        checked = writer;
        WriterKind kind = writer_kind(writer);
        bool ordinary = kind == WriterKind::Thread || kind == WriterKind::Atomic;
        if (ordinary ? clock.async[writer_agent(writer)] >= writer_tick(writer)
                     : write_is_ordered(writer, clock.general, -1))
            continue;
        report(ordinary ? "proxy-waw" : "race-waw", pc,
               "TMA write to shared+%u not ordered after %s%s", i,
               writer_description(block, writer, s.writer_pc[i]).c_str(),
               ordinary ? " (the writer needs fence.proxy.async, then a barrier)" : "");
        break;
    }
    check_readers(block, offset, bytes, clock.general, -1, pc, "TMA write");
}

}  // namespace emu
