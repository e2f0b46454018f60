// The TMA engine: loads that complete on an mbarrier, stores and reductions in groups of the
// issuing thread. On issue a load's destination becomes NaN; it is filled at a moment of the
// engine's choice. A store reads its source no later than bulk_wait_read, and its result may appear
// as late as bulk_wait or the end of the block.
#include <string.h>

#include <algorithm>

#include "engine.h"
#include "global_memory.h"
#include "tensor_map.h"

namespace emu {

namespace {

u32 size_of(const TensorBox& box) {
    return box.rank ? box_bytes(*(const TensorMapData*)box.map) : box.bytes;
}

// Calls `access(pointer, bytes)` for the existing bytes of a unit, in parts of natural alignment.
template <class F>
void for_parts(u64 global, u32 first, u32 last, F access) {
    while (first < last) {
        u32 part = 16;
        while (part > last - first || (global + first) % part) part /= 2;
        access((u8*)(global + first), part);
        first += part;
    }
}

// Global memory is accessed between issue and completion; both loads and stores are checked at the
// issue, as accesses of the issuing thread (order between the proxies in global memory is not
// modelled). A store stays open until its wait.
void check_global(const TensorBox& box, GlobalAccess access, Pc pc) {
    for (const BoxUnit& unit : box_units(box, 0))
        for_parts(unit.global, unit.first, unit.last, [&](u8* at, u32 bytes) {
            if (!global_access(*self(), at, bytes, access, pc)) abort_launch();
        });
}

void start_load(Block& block, const TensorBox& box, u32 offset, Mbarrier& mbarrier, Pc pc) {
    u32 bytes = size_of(box);
    if (launch->config.options.check_races) {
        check_async_write(block, offset, bytes, pc);
        mark_written(block, offset, bytes, pack_writer(WriterKind::OpenTma, mbarrier.agent, 0), pc);
    }
    memset(block.shared + offset, 0xff, bytes);
    u32 index = (u32)(&mbarrier - block.mbarriers.data());
    block.loads.push_back({box, &block, offset, index, pc});
}

void load(const TensorBox& box, u32 shared, u32 alignment, u32 mbarrier, u16 ranks, Pc pc) {
    Block *block, *mbarrier_block;
    u32 offset;
    if (!resolve_shared(shared, size_of(box), alignment, pc, "TMA load", &block, &offset)) return;
    check_global(box, GlobalAccess::Read, pc);
    if (!ranks) ranks = (u16)(1u << block->rank);
    Cluster& cluster = *block->cluster;
    if (ranks >> cluster.blocks.size()) {
        report("cluster-rank", pc, "multicast to ranks 0x%x in a cluster of %zu blocks", ranks,
               cluster.blocks.size());
        return;
    }
    u32 within = mbarrier & ((1u << RANK_SHIFT) - 1);
    for (size_t rank = 0; rank < cluster.blocks.size(); rank++) {
        if (!(ranks >> rank & 1)) continue;
        u32 mapped = within | (u32)(rank + 1) << RANK_SHIFT;
        Mbarrier* m = find_mbarrier(mapped, pc, "TMA load", &mbarrier_block);
        if (!m) return;
        if (!m->visible_to_async)
            report("mbarrier-proxy", pc,
                   "mbarrier.init was not made visible to the async proxy "
                   "(fence_mbarrier_init)");
        start_load(cluster.blocks[rank], box, offset, *m, pc);
    }
    if (launch->one_in(2)) yield();
}

void store(const TensorBox& box, u32 shared, u32 alignment, bool add, Pc pc) {
    Thread& thread = *self();
    Block* block;
    u32 offset, bytes = size_of(box);
    if (!resolve_shared(shared, bytes, alignment, pc, "bulk store", &block, &offset)) return;
    if (launch->config.options.check_races) {
        check_async_read(*block, offset, bytes, thread.clock.general, thread.clock.async, pc,
                         "bulk store");
        for (u32 i = offset; i < offset + bytes; i++) block->shadow.async_readers[i]++;
    }
    check_global(box, add ? GlobalAccess::OpenAtomic : GlobalAccess::OpenWrite, pc);
    thread.open_stores.stores.push_back({box, offset, add, false, false, {}, pc});
}

TensorBox boxed(int rank, const TensorMapData& map, const int* coordinates) {
    TensorBox box = {};
    memcpy(box.map, &map, sizeof map);
    box.rank = rank;
    for (int i = 0; i < rank; i++) box.coordinates[i] = coordinates[i];
    return box;
}

TensorBox plain(const void* global, u32 bytes) {
    TensorBox box = {};
    box.global = (u64)global;
    box.bytes = bytes;
    return box;
}

bool is_bulk(const void* global, u32 bytes, Pc pc) {
    if (!((uintptr_t)global % 16) && bytes % 16 == 0 && bytes) return true;
    report("align", pc, "bulk copy of %u bytes: address and size must be multiples of 16", bytes);
    return false;
}

}  // namespace

void tma_prefetch(const void* map) { read_tensor_map(map, 0, CALLER); }

void tma_load(int rank, uint32_t shared, const void* map, uint32_t mbarrier, const int* coordinates,
              uint16_t multicast_ranks) {
    Pc pc = CALLER;
    const TensorMapData* m = read_tensor_map(map, rank, pc);
    if (m)
        load(boxed(rank, *m, coordinates), shared, box_alignment(*m), mbarrier, multicast_ranks,
             pc);
}

void bulk_load(uint32_t shared, const void* global, uint32_t bytes, uint32_t mbarrier) {
    Pc pc = CALLER;
    if (is_bulk(global, bytes, pc)) load(plain(global, bytes), shared, 16, mbarrier, 0, pc);
}

void tma_store(int rank, const void* map, uint32_t shared, const int* coordinates, bool add) {
    Pc pc = CALLER;
    const TensorMapData* m = read_tensor_map(map, rank, pc);
    if (m) store(boxed(rank, *m, coordinates), shared, box_alignment(*m), add, pc);
}

void bulk_store(void* global, uint32_t shared, uint32_t bytes, bool add) {
    Pc pc = CALLER;
    if (is_bulk(global, bytes, pc)) store(plain(global, bytes), shared, 16, add, pc);
}

void finish_tma_load(Block& block, size_t index) {
    TmaLoad op = block.loads[index];
    block.loads.erase(block.loads.begin() + (long)index);
    for (const BoxUnit& unit : box_units(op.box, op.offset)) {
        u8* to = block.shared + unit.shared_offset;
        memset(to, 0, 16);
        const void* from = (const void*)(unit.global + unit.first);
        if (unit.last > unit.first && is_device_range(from, unit.last - unit.first))
            memcpy(to + unit.first, from, unit.last - unit.first);
    }
    Mbarrier& mbarrier = block.mbarriers[op.mbarrier];
    u32 bytes = size_of(op.box);
    if (launch->config.options.check_races) {
        u64 open = pack_writer(WriterKind::OpenTma, mbarrier.agent, 0);
        u64 written = pack_writer(WriterKind::Tma, mbarrier.agent, mbarrier.phase + 1);
        for (u32 i = op.offset; i < op.offset + bytes; i++)
            if (block.shadow.writer[i] == open) block.shadow.writer[i] = written;
    }
    complete_tx(block, mbarrier, bytes);
}

void read_store_source(Thread& thread, TmaStore& op) {
    if (op.read) return;
    op.read = true;
    std::vector<BoxUnit> units = box_units(op.box, op.offset);
    op.data.resize(units.size() * 16);
    for (size_t i = 0; i < units.size(); i++)
        memcpy(&op.data[i * 16], thread.block->shared + units[i].shared_offset, 16);
}

// The result appears. Reductions commute, so two blocks that add to the same place do not race;
// that their order varies is what bulk_reduce documents.
void write_store_result(TmaStore& op) {
    if (op.written) return;
    op.written = true;
    std::vector<BoxUnit> units = box_units(op.box, op.offset);
    for (size_t i = 0; i < units.size(); i++) {
        u32 bytes = units[i].last - units[i].first;
        if (!bytes) continue;
        u8* to = (u8*)(units[i].global + units[i].first);
        const u8* from = &op.data[i * 16] + units[i].first;
        if (op.add) add_floats(op.box, to, from, bytes, op.pc);
        else memcpy(to, from, bytes);
    }
}

// The thread has waited for the result: whoever is ordered after it may touch it now.
void settle_store(Thread& thread, const TmaStore& op) {
    for (const BoxUnit& unit : box_units(op.box, op.offset))
        if (unit.last > unit.first)
            settle_write(thread, (const u8*)(unit.global + unit.first), unit.last - unit.first);
}

void add_floats(const TensorBox& box, u8* to, const u8* from, u32 bytes, Pc pc) {
    if (box.rank && ((const TensorMapData*)box.map)->element_bytes != 4) {
        report("emulator-limit", pc, "a TMA reduction of elements other than f32");
        return;
    }
    for (u32 i = 0; i < bytes; i += 4) {
        float sum, term;
        memcpy(&sum, to + i, 4);
        memcpy(&term, from + i, 4);
        sum += term;
        memcpy(to + i, &sum, 4);
    }
}

void bulk_commit() {
    Thread& thread = *self();
    thread.store_groups.push_back(std::move(thread.open_stores));
    thread.open_stores = TmaStoreGroup();
}

// The sources of a group have been read: from here on the issuing thread's reads.
static void release_sources(Thread& thread, TmaStoreGroup& group) {
    if (group.source_released) return;
    group.source_released = true;
    for (TmaStore& op : group.stores) {
        read_store_source(thread, op);
        if (!launch->config.options.check_races) continue;
        u32 bytes = size_of(op.box);
        for (u32 i = op.offset; i < op.offset + bytes; i++) {
            u8& readers = thread.block->shadow.async_readers[i];
            if (readers) readers--;
        }
        record_read(thread, *thread.block, op.offset, bytes);
    }
}

void bulk_wait(int pending, bool read_only) {
    Thread& thread = *self();
    int done = (int)thread.store_groups.size() - pending;
    for (int i = 0; i < done; i++) {
        TmaStoreGroup& group = thread.store_groups[(size_t)i];
        release_sources(thread, group);
        if (read_only) continue;
        for (TmaStore& op : group.stores) {
            write_store_result(op);
            settle_store(thread, op);
        }
    }
    if (!read_only)
        for (int i = 0; i < done; i++) thread.store_groups.pop_front();
    if (launch->one_in(4)) yield();
}

}  // namespace emu
