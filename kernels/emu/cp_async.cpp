// cp.async: an ordinary write of the issuing thread that happens somewhere between the issue and
// that thread's wait (PTX: generic proxy; only the issuing thread's wait orders it).
#include <string.h>

#include "engine.h"
#include "global_memory.h"

namespace emu {

void cp_async(uint32_t shared, const void* global, uint32_t bytes, uint32_t source_bytes) {
    Pc pc = CALLER;
    Thread& thread = *self();
    Block* block;
    u32 offset;
    if (!resolve_shared(shared, bytes, bytes, pc, "cp.async", &block, &offset)) return;
    if ((uintptr_t)global % bytes) {
        report("align", pc, "cp.async: the source is not %u-byte aligned", bytes);
        return;
    }
    if (source_bytes > bytes) {
        report("cp-async-size", pc, "cp.async: %u source bytes of a copy of %u", source_bytes,
               bytes);
        source_bytes = bytes;
    }
    // A source of no bytes is not read (assumption, medium confidence), only its alignment counts.
    if (source_bytes && !in_device_arena(global)) {
        report("wild", pc, "cp.async reads an address that is not device memory");
        abort_launch();
    }
    if (source_bytes) {
        // Checked in parts of natural size, so that a tail of 6 or 12 bytes is not "misaligned".
        u32 part = source_bytes & ~(source_bytes - 1);
        for (u32 i = 0; i < source_bytes; i += part)
            if (!global_access(thread, (const u8*)global + i, part, GlobalAccess::Read, pc))
                abort_launch();
    }
    if (launch->config.options.check_races) {
        shared_access(thread, *block, offset, bytes, Access::Write, pc);
        mark_written(*block, offset, bytes, pack_writer(WriterKind::OpenCopy, thread.agent, 0), pc);
    }
    memset(block->shared + offset, 0xff, bytes);
    thread.open_copies.push_back({offset, (const u8*)global, bytes, source_bytes, false});
}

void apply_copy(Thread& thread, CopyOp& op) {
    if (op.done) return;
    op.done = true;
    u8* destination = thread.block->shared + op.offset;
    memcpy(destination, op.source, op.source_bytes);
    memset(destination + op.source_bytes, 0, op.bytes - op.source_bytes);
}

// The copies of a group become ordinary writes of the thread, as of now.
static void finish_copies(Thread& thread, std::vector<CopyOp>& copies) {
    SharedShadow& shadow = thread.block->shadow;
    u64 open = pack_writer(WriterKind::OpenCopy, thread.agent, 0);
    for (CopyOp& op : copies) {
        apply_copy(thread, op);
        if (!launch->config.options.check_races) continue;
        u64 written =
            pack_writer(WriterKind::Thread, thread.agent, thread.clock.general[thread.agent]);
        for (u32 i = op.offset; i < op.offset + op.bytes; i++)
            if (shadow.writer[i] == open) shadow.writer[i] = written;
    }
}

void cp_async_commit() {
    Thread& thread = *self();
    thread.copy_groups.push_back(std::move(thread.open_copies));
    thread.open_copies.clear();
}

void cp_async_wait(int pending) {
    Thread& thread = *self();
    while ((int)thread.copy_groups.size() > pending) {
        finish_copies(thread, thread.copy_groups.front());
        thread.copy_groups.pop_front();
    }
    if (launch->one_in(4)) yield();
}

// The hardware arrives later, when the copies are done. Doing both now is one legal outcome; the
// waiters' side is checked all the same.
void cp_async_mbarrier_arrive(uint32_t mbarrier) {
    Thread& thread = *self();
    for (auto& group : thread.copy_groups) finish_copies(thread, group);
    thread.copy_groups.clear();
    finish_copies(thread, thread.open_copies);
    thread.open_copies.clear();
    mbarrier_arrive(mbarrier, 1);
}

}  // namespace emu
