// wgmma: each warp of the warpgroup computes 16 of the 64 rows, asynchronously.
//
// Descriptor decoding was compared with CuTe's own descriptors for all eight canonical layouts
// (very high confidence); descriptors outside those are reported. commit and wait act per warp, so
// the four warps may drift apart (at least what hardware allows). wgmma.fence is demanded after
// every wait that handed registers back (slightly stricter than PTX).
#include <string.h>

#include "engine.h"
#include "tensor_map.h"

namespace emu {

namespace {

constexpr u32 IN_FLIGHT = 0x7fbadbadu;  // a NaN that marks registers the hardware owns
constexpr int MAX_N = 256;

struct Operands {
    float* d;
    const u32* a;
};

// A matrix descriptor: addresses and distances in bytes, swizzle code as in kernels/ptx/wgmma.cuh.
struct Descriptor {
    u32 start, leading, stride, base_offset;
    int swizzle;

    explicit Descriptor(u64 bits)
        : start((u32)(bits & 0x3fff) << 4),
          leading((u32)(bits >> 16 & 0x3fff) << 4),
          stride((u32)(bits >> 32 & 0x3fff) << 4),
          base_offset((u32)(bits >> 49 & 7)),
          swizzle((int)(bits >> 62)) {}

    // Bytes in a row of the swizzle pattern, and of the whole pattern (0: not swizzled).
    u32 row_bytes() const { return swizzle ? 256u >> swizzle : 0; }
    u32 pattern_bytes() const { return row_bytes() * 8; }
    TmaSwizzle tma_swizzle() const {
        return swizzle ? (TmaSwizzle)(4 - swizzle) : TmaSwizzle::None;
    }

    // Shared address of element (mn, k), two bytes each.
    u32 address(int mn, int k, int major) const {
        u32 m = (u32)mn, kk = (u32)k, at;
        if (major == 0 && !swizzle) {
            at = m % 8 * 16 + m / 8 * stride + kk / 8 * leading + kk % 8 * 2;
        } else if (major == 0) {
            at = m % 8 * row_bytes() + m / 8 * stride + kk * 2;
        } else if (!swizzle) {
            at = m % 8 * 2 + m / 8 * stride + kk % 8 * 16 + kk / 8 * leading;
        } else {
            u32 width = row_bytes() / 2;
            at = m % width * 2 + m / width * leading + kk % 8 * row_bytes() + kk / 8 * stride;
        }
        return apply_swizzle(start + at, tma_swizzle());
    }
};

float bf16_at(const Block& block, u32 address) {
    u32 offset = address - SHARED_BASE, bits = 0x7fff;
    if (offset + 2 <= block.shared_bytes) {
        u16 half;
        memcpy(&half, block.shared + offset, 2);
        bits = half;
    }
    bits <<= 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// The clocks all lanes of the warp have reached: the instruction is theirs together.
void update_all_lanes(Warp& warp) {
    if (warp.all_lanes_version == warp.clock_version) return;
    warp.all_lanes_version = warp.clock_version;
    int n = warp.block->cluster->num_agents;
    Thread* lanes = warp.block->threads + warp.id * WARP;
    warp.all_lanes.assign(lanes->clock.general, lanes->clock.general + n);
    warp.all_lanes_async.assign(lanes->clock.async, lanes->clock.async + n);
    for (int i = 1; i < WARP; i++) {
        lower(warp.all_lanes.data(), lanes[i].clock.general, n);
        lower(warp.all_lanes_async.data(), lanes[i].clock.async, n);
    }
}

// Bounds, alignment and order of the rows (or columns) [first, last) of an operand.
void check_operand(Warp& warp, u64 bits, int first, int last, int major, Pc pc, const char* what) {
    Descriptor d(bits);
    if (d.base_offset) report("wgmma-descriptor", pc, "%s: a base offset is not modelled", what);
    if (d.swizzle && (d.start & (d.pattern_bytes() - 1) & ~127u))
        report("wgmma-descriptor", pc, "%s: start 0x%x is not on a boundary of %u bytes", what,
               d.start, d.pattern_bytes());
    SharedShadow& shadow = warp.block->shadow;
    size_t row = (size_t)warp.id * (shadow.bytes / 16 + 1);
    for (int mn = first; mn < last; mn += major ? 8 : 1)
        for (int k = 0; k < 16; k += major ? 1 : 8) {
            Block* block;
            u32 offset;
            if (!resolve_shared(d.address(mn, k, major), 16, 16, pc, what, &block, &offset)) return;
            if (!launch->config.options.check_races) continue;
            if (!check_async_read(*warp.block, offset, 16, warp.all_lanes.data(),
                                  warp.all_lanes_async.data(), pc, what))
                return;
            shadow.wgmma_warps[offset / 16] |= 1u << warp.id;
            shadow.wgmma_group[row + offset / 16] = warp.committed_groups + 1;
        }
}

// Takes over the registers of an accumulator, unless an earlier wgmma of the same chain did.
std::shared_ptr<Accumulator> take_accumulator(Warp& warp, void** lanes, int n) {
    for (auto& accumulator : warp.accumulators)
        if (accumulator->registers[0] == ((Operands*)lanes[0])->d) return accumulator;
    auto accumulator = std::make_shared<Accumulator>();
    accumulator->count = n / 2;
    accumulator->in_flight = 0;
    for (int lane = 0; lane < WARP; lane++) {
        float* d = ((Operands*)lanes[lane])->d;
        accumulator->registers[lane] = d;
        accumulator->values.insert(accumulator->values.end(), d, d + n / 2);
        for (int i = 0; i < n / 2; i++) memcpy(&d[i], &IN_FLIGHT, 4);
    }
    warp.accumulators.push_back(accumulator);
    return accumulator;
}

// Row and column of register i of a lane, in the 16 rows of one warp.
int fragment_row(int lane, int i) { return lane / 4 + (i >> 1 & 1) * 8; }
int fragment_column(int lane, int i) { return (i >> 2) * 8 + lane % 4 * 2 + (i & 1); }

void return_registers(Warp& warp, Accumulator& accumulator, Pc pc) {
    bool touched = false;
    for (int lane = 0; lane < WARP; lane++) {
        float* d = accumulator.registers[lane];
        for (int i = 0; i < accumulator.count; i++) touched |= memcmp(&d[i], &IN_FLIGHT, 4) != 0;
        memcpy(d, &accumulator.values[(size_t)(lane * accumulator.count)],
               (size_t)accumulator.count * 4);
    }
    if (touched)
        report("wgmma-accumulator", pc, "an accumulator was touched while wgmma was in flight");
    warp.registers_fenced = false;
}

}  // namespace

void wgmma_fence(int site) {
    meet(~0u, WarpOp::WgmmaFence, (u64)site, nullptr, CALLER,
         [](Warp& warp, void**) { warp.registers_fenced = true; });
}

void wgmma_commit(int site) {
    meet(~0u, WarpOp::WgmmaCommit, (u64)site, nullptr, CALLER, [](Warp& warp, void**) {
        warp.wgmma_groups.push_back(std::move(warp.open_wgmma));
        warp.open_wgmma.clear();
        warp.committed_groups++;
    });
}

void wgmma(float* d, int n, const uint32_t* a_registers, uint64_t a, uint64_t b, bool accumulate,
           int a_major, int b_major, int site) {
    Operands own{d, a_registers};
    Pc pc = CALLER;
    u64 signature = a * 31 ^ b * 131 ^ (u64)n << 40 ^ (u64)site << 8 ^ accumulate;
    meet(~0u, WarpOp::Wgmma, signature, &own, pc, [&](Warp& warp, void** lanes) {
        if (warp.block->num_threads < (warp.id / 4 + 1) * 128)
            report("wgmma-warpgroup", pc, "warp %d is not in a complete warpgroup", warp.id);
        if (!warp.registers_fenced)
            report("wgmma-fence", pc, "no wgmma.fence since the registers were last readable");
        WgmmaOp op = {};
        op.accumulator = take_accumulator(warp, lanes, n);
        op.accumulator->in_flight++;
        op.n = n;
        op.a = a;
        op.b = b;
        op.accumulate = accumulate;
        op.a_in_registers = a_registers != nullptr;
        op.a_major = a_major;
        op.b_major = b_major;
        op.pc = pc;
        if (a_registers)
            for (int lane = 0; lane < WARP; lane++)
                memcpy(op.a_fragments[lane], ((Operands*)lanes[lane])->a, 16);
        if (launch->config.options.check_races) update_all_lanes(warp);
        int row = warp.id % 4 * 16;
        if (!a_registers) check_operand(warp, a, row, row + 16, a_major, pc, "wgmma operand A");
        check_operand(warp, b, 0, n, b_major, pc, "wgmma operand B");
        warp.wgmma_history = warp.wgmma_history * 1000003 ^ a ^ b * 7 ^ (u64)n;
        warp.open_wgmma.push_back(std::move(op));
    });
}

void apply_wgmma(Warp& warp, WgmmaOp& op) {
    if (op.done) return;
    op.done = true;
    Block& block = *warp.block;
    Accumulator& accumulator = *op.accumulator;
    float am[16][16];
    static float bm[16][MAX_N], product[16][MAX_N];
    if (op.a_in_registers) {
        for (int lane = 0; lane < WARP; lane++)
            for (int i = 0; i < 4; i++) {
                int row = lane / 4 + (i & 1) * 8, k = lane % 4 * 2 + (i >> 1) * 8;
                for (int half = 0; half < 2; half++) {
                    u32 bits = (op.a_fragments[lane][i] >> 16 * half & 0xffff) << 16;
                    memcpy(&am[row][k + half], &bits, 4);
                }
            }
    } else {
        Descriptor a(op.a);
        for (int m = 0; m < 16; m++)
            for (int k = 0; k < 16; k++)
                am[m][k] = bf16_at(block, a.address(warp.id % 4 * 16 + m, k, op.a_major));
    }
    Descriptor b(op.b);
    for (int n = 0; n < op.n; n++)
        for (int k = 0; k < 16; k++) bm[k][n] = bf16_at(block, b.address(n, k, op.b_major));
    for (int lane = 0; lane < WARP; lane++)
        for (int i = 0; i < accumulator.count; i++)
            product[fragment_row(lane, i)][fragment_column(lane, i)] =
                op.accumulate ? accumulator.values[(size_t)(lane * accumulator.count + i)] : 0.0f;
    multiply_add(&am[0][0], &bm[0][0], &product[0][0], op.n, MAX_N);
    for (int lane = 0; lane < WARP; lane++)
        for (int i = 0; i < accumulator.count; i++)
            accumulator.values[(size_t)(lane * accumulator.count + i)] =
                product[fragment_row(lane, i)][fragment_column(lane, i)];
}

void wgmma_wait(int pending, int site) {
    Pc pc = CALLER;
    meet(~0u, WarpOp::WgmmaWait, (u64)site << 8 | (u64)pending, nullptr, pc,
         [&](Warp& warp, void**) {
             while ((int)warp.wgmma_groups.size() > pending) {
                 for (WgmmaOp& op : warp.wgmma_groups.front()) {
                     apply_wgmma(warp, op);
                     op.accumulator->in_flight--;
                 }
                 warp.wgmma_groups.pop_front();
             }
             auto& accumulators = warp.accumulators;
             for (size_t i = 0; i < accumulators.size();) {
                 if (accumulators[i]->in_flight) {
                     i++;
                     continue;
                 }
                 return_registers(warp, *accumulators[i], pc);
                 accumulators.erase(accumulators.begin() + (long)i);
             }
             if (!launch->config.options.check_races) return;
             Tick finished = warp.committed_groups - (Tick)warp.wgmma_groups.size();
             for (int lane = 0; lane < WARP; lane++)
                 warp.block->threads[warp.id * WARP + lane].clock.general[warp.agent] = finished;
             warp.clock_version++;
         });
}

}  // namespace emu
