// Operations of a whole warp: a rendezvous of the lanes in the mask.
//
// Shuffles, votes and elect order execution, not memory; only __syncwarp hands clocks over.
// `.aligned` instructions put their source line into the signature: lanes that meet on different
// lines diverged.
#include <algorithm>

#include "engine.h"

namespace emu {

const char* warp_op_name(int operation) {
    static const char* const names[] = {"__syncwarp",
                                        "a shuffle",
                                        "a vote",
                                        "redux",
                                        "elect.sync",
                                        "setmaxnreg",
                                        "ldmatrix",
                                        "stmatrix",
                                        "mma",
                                        "wgmma.fence",
                                        "wgmma.commit",
                                        "wgmma.wait",
                                        "wgmma",
                                        "barrier.cluster.arrive",
                                        "barrier.cluster.wait"};
    return names[operation];
}

Rendezvous* join_warp(u32 mask, WarpOp operation, u64 signature, void* operands, Pc pc) {
    Thread* thread = self();
    Warp& warp = *thread->warp;
    int lanes = warp.block->num_threads - warp.id * WARP;
    if (lanes < WARP) mask &= (1u << lanes) - 1;  // the last warp of an odd block
    if (!(mask >> thread->lane & 1)) {
        report("warp-mask", pc, "lane %d executes %s with mask 0x%x, which leaves it out",
               thread->lane, warp_op_name((int)operation), mask);
        return nullptr;
    }
    Rendezvous* r = nullptr;
    for (auto& candidate : warp.rendezvous)
        if (candidate.open && (candidate.mask & mask)) r = &candidate;
    if (!r) {
        for (auto& candidate : warp.rendezvous)
            if (!candidate.open) r = &candidate;
        if (!r) {
            report("warp-diverged", pc,
                   "more than four groups of lanes are inside warp operations");
            abort_launch();
        }
        *r = Rendezvous();
        r->open = true;
        r->mask = mask;
        r->operation = (int)operation;
        r->signature = signature;
    }
    if (r->mask != mask || r->operation != (int)operation || r->signature != signature) {
        report("warp-diverged", pc,
               "lanes of warp %d meet in different operations: %s (mask 0x%x) "
               "and %s (mask 0x%x), or the same one on different lines or with different operands",
               warp.id, warp_op_name(r->operation), r->mask, warp_op_name((int)operation), mask);
        abort_launch();  // their operands do not fit together
    }
    r->operands[thread->lane] = operands;
    if (++r->arrived < __builtin_popcount(r->mask)) {
        block_on(WaitFor::Warp, (u32)operation, pc);
        return nullptr;
    }
    r->open = false;
    return r;
}

void release_warp(u32 mask) {
    Thread* thread = self();
    Thread* lanes = thread - thread->lane;
    int count = std::min(WARP, thread->block->num_threads - thread->warp->id * WARP);
    for (int i = 0; i < count; i++)
        if ((mask >> i & 1) && i != thread->lane) make_ready(lanes + i);
    if (launch->schedule_mode != ScheduleMode::StickToWarp || launch->one_in(16)) yield();
}

namespace {

struct LaneValue {
    u32 value;
    int operand;
    u32 result;
};

Thread* lane_of(Warp& warp, int lane) { return warp.block->threads + warp.id * WARP + lane; }

int num_lanes(Warp& warp) { return std::min(WARP, warp.block->num_threads - warp.id * WARP); }

// The lane a shuffle reads from; `lane` itself if the source would be outside its segment.
int shuffle_source(int lane, Shuffle mode, int operand, int width) {
    int first = lane & ~(width - 1), source = lane;
    switch (mode) {
    case Shuffle::Index: return first | (operand & (width - 1));
    case Shuffle::Up: source = lane - operand; break;
    case Shuffle::Down: source = lane + operand; break;
    case Shuffle::Xor: source = lane ^ operand; break;
    }
    return source < first || source >= first + width ? lane : source;
}

}  // namespace

uint32_t lane_id() { return (u32)self()->lane; }

void sync_warp(uint32_t mask) {
    meet(mask, WarpOp::Sync, mask, nullptr, CALLER, [&](Warp& warp, void**) {
        if (!launch->config.options.check_races) return;
        Handover handover;
        handover.reset(warp.block->cluster->num_agents);
        for (int i = 0; i < num_lanes(warp); i++)
            if (mask >> i & 1) release(*lane_of(warp, i), handover);
        handover.complete();
        for (int i = 0; i < num_lanes(warp); i++)
            if (mask >> i & 1) acquire(*lane_of(warp, i), handover);
    });
}

uint32_t shuffle(uint32_t mask, uint32_t value, Shuffle mode, int operand, int width) {
    LaneValue own{value, operand, 0};
    Pc pc = CALLER;
    meet(mask, WarpOp::Shuffle, (u64)mode * 64 + (u64)width, &own, pc,
         [&](Warp& warp, void** lanes) {
             for (int i = 0; i < num_lanes(warp); i++) {
                 if (!(mask >> i & 1)) continue;
                 auto* lane = (LaneValue*)lanes[i];
                 int source = shuffle_source(i, mode, lane->operand, width);
                 if (mask >> source & 1 && source < num_lanes(warp)) {
                     lane->result = ((LaneValue*)lanes[source])->value;
                 } else {
                     report("shuffle-inactive", pc,
                            "lane %d reads lane %d, which is not in the mask", i, source);
                     lane->result = 0xffffffffu;
                 }
             }
         });
    return own.result;
}

uint32_t ballot(uint32_t mask, int predicate) {
    LaneValue own{predicate != 0, 0, 0};
    meet(mask, WarpOp::Vote, 0, &own, CALLER, [&](Warp& warp, void** lanes) {
        u32 votes = 0;
        for (int i = 0; i < num_lanes(warp); i++)
            if ((mask >> i & 1) && ((LaneValue*)lanes[i])->value) votes |= 1u << i;
        for (int i = 0; i < num_lanes(warp); i++)
            if (mask >> i & 1) ((LaneValue*)lanes[i])->result = votes;
    });
    return own.result;
}

uint32_t reduce(uint32_t mask, uint32_t value, Reduction operation) {
    LaneValue own{value, 0, 0};
    meet(mask, WarpOp::Reduce, (u64)operation, &own, CALLER, [&](Warp& warp, void** lanes) {
        u32 total = operation == Reduction::Min ? ~0u : 0;
        for (int i = 0; i < num_lanes(warp); i++) {
            if (!(mask >> i & 1)) continue;
            u32 v = ((LaneValue*)lanes[i])->value;
            total = operation == Reduction::Add   ? total + v
                    : operation == Reduction::Min ? std::min(total, v)
                                                  : std::max(total, v);
        }
        for (int i = 0; i < num_lanes(warp); i++)
            if (mask >> i & 1) ((LaneValue*)lanes[i])->result = total;
    });
    return own.result;
}

// PTX promises only that the same lane is elected each time for the same mask.
bool elect(uint32_t mask, int site) {
    bool elected = false;
    meet(mask, WarpOp::Elect, (u64)site, &elected, CALLER, [&](Warp& warp, void** lanes) {
        u32 lane = warp.elected_lane;
        while (!(mask >> lane & 1) || (int)lane >= num_lanes(warp)) lane = (lane + 1) % WARP;
        *(bool*)lanes[lane] = true;
    });
    return elected;
}

// The register pool itself is not modelled.
void set_max_registers(int registers, bool increase, int site) {
    u64 signature = (u64)site << 16 | (u64)registers << 1 | increase;
    meet(~0u, WarpOp::Registers, signature, nullptr, CALLER, [](Warp&, void**) {});
}

}  // namespace emu
