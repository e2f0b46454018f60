// One operand of the matrix product: a tile of it in shared memory, how the tile gets there, and
// how the fragments of mma.sync are read from it.
//
// "Extent" is the operand's index that the output keeps (m of A, n of B), "depth" the summed one.
// The operand is stored with either of them contiguous; a row below is a contiguous one:
//   Major::Depth    tile of EXTENT rows, 32 k each            (A of NT and NN, B of NT)
//   Major::Extent   tile of 32 rows (k), EXTENT elements each (A of TN, B of NN and TN)
// Rows are cut into chunks of 8 elements, 16 bytes, and XOR-swizzled: the eight chunks that one
// phase of ldmatrix reads, the same chunk of eight consecutive rows, lie in different banks, and
// so do the eight chunks that consecutive threads write.
#pragma once
#include "../ptx/bf16.cuh"
#include "../ptx/cp_async.cuh"
#include "../ptx/ldmatrix.cuh"

constexpr int TILE_DEPTH = 32;
constexpr int CHUNK = 8;

enum class Major { Depth, Extent };

// Shared memory under both of its names.
struct SharedBytes {
    unsigned char* pointer;
    u32 address;
};

template <int EXTENT, Major MAJOR>
struct Tile {
    static constexpr int ROWS = MAJOR == Major::Depth ? EXTENT : TILE_DEPTH;
    static constexpr int ROW_CHUNKS = (MAJOR == Major::Depth ? TILE_DEPTH : EXTENT) / CHUNK;
    static constexpr int ROW_BYTES = ROW_CHUNKS * 16;
    static constexpr int BYTES = ROWS * ROW_BYTES;

    static DEVICE u32 offset(int row, int chunk) {
        // Two rows of 64 bytes fill the 32 banks, one row of 128 bytes or more does.
        int swizzled = MAJOR == Major::Depth ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7);
        return (u32)(row * ROW_BYTES + swizzled * 16);
    }

    // The A fragment of rows first .. first + 16 and depths k .. k + 16; both multiples of 16. The
    // swizzle has a period of 8 rows, so that of a row is that of its lane.
    static DEVICE void read_a(u32 (&fragment)[4], u32 tile, int first, int k) {
        int lane = (int)threadIdx.x & 31;
        if (MAJOR == Major::Depth) {
            u32 at = offset(lane & 15, k / CHUNK + (lane >> 4)) + first * ROW_BYTES;
            ptx::ldmatrix_x4(fragment, tile + at);
        } else {
            u32 at = offset((lane & 7) + (lane >> 4) * 8, first / CHUNK + (lane >> 3 & 1));
            ptx::ldmatrix_x4_trans(fragment, tile + at + k * ROW_BYTES);
        }
    }

    // Two B fragments, of columns first .. first + 8 in [0] and [1], of the next eight in [2], [3].
    static DEVICE void read_b(u32 (&fragment)[4], u32 tile, int first, int k) {
        int lane = (int)threadIdx.x & 31;
        if (MAJOR == Major::Depth) {
            u32 at = offset((lane & 7) + (lane >> 4) * 8, k / CHUNK + (lane >> 3 & 1));
            ptx::ldmatrix_x4(fragment, tile + at + first * ROW_BYTES);
        } else {
            u32 at = offset(lane & 15, first / CHUNK + (lane >> 4)) + k * ROW_BYTES;
            ptx::ldmatrix_x4_trans(fragment, tile + at);
        }
    }
};

// Copies up to 8 elements into a chunk and zeros behind them; `width` is the number of bytes, 16,
// 8, 4 or 2, to which the source is known to be aligned.
DEVICE void copy_chunk(SharedBytes shared, u32 at, const bf16* source, int count, int width) {
    if (width == 16) {
        ptx::cp_async_16(shared.address + at, source, (u32)count * 2);
    } else if (width == 8) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int left = min(max(count - 4 * i, 0), 4);
            ptx::cp_async_8(shared.address + at + 8 * i, source + 4 * i, (u32)left * 2);
        }
    } else if (width == 4) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int left = min(max(count - 2 * i, 0), 2);
            ptx::cp_async_4(shared.address + at + 4 * i, source + 2 * i, (u32)left * 2);
        }
    } else {
        // cp.async has no 2-byte form. The barrier that publishes a stage covers plain stores too.
        u32 words[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u32 low = 2 * i < count ? source[2 * i].bits : 0;
            u32 high = 2 * i + 1 < count ? source[2 * i + 1].bits : 0;
            words[i] = low | high << 16;
        }
        *(uint4*)(shared.pointer + at) = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

// Fetches the tiles of one operand in order of depth. Each thread brings the same chunk of every
// ROW_STEP-th row, so that all its addresses are one pointer plus constants.
template <int EXTENT, Major MAJOR, int THREADS, bool ALIGNED>
struct Fetcher {
    using T = Tile<EXTENT, MAJOR>;
    static constexpr int ROW_STEP = THREADS / T::ROW_CHUNKS;
    static_assert(THREADS % T::ROW_CHUNKS == 0 && T::ROWS % ROW_STEP == 0, "whole rows per pass");
    static_assert(ROW_STEP % 8 == 0, "the swizzle must be the same in every pass");

    const bf16* source;  // this thread's first chunk of the next tile
    size_t pitch;        // elements between rows
    u32 at;              // where that chunk lies in a tile
    int rows_left;       // rows of the operand from that chunk's on; not positive: outside
    int columns_left;    // elements of its row from the chunk's first on
    int width;           // see copy_chunk; 16 if ALIGNED

    DEVICE Fetcher(const bf16* operand, int first, int extent, int depth, int alignment) {
        int row = (int)threadIdx.x / T::ROW_CHUNKS, chunk = (int)threadIdx.x % T::ROW_CHUNKS;
        int column = chunk * CHUNK;
        at = T::offset(row, chunk);
        width = alignment;
        if (MAJOR == Major::Depth) {
            pitch = (size_t)depth;
            rows_left = extent - (first + row);
            columns_left = depth - column;
            source = operand + (size_t)(first + row) * pitch + column;
        } else {
            pitch = (size_t)extent;
            rows_left = depth - row;
            columns_left = extent - (first + column);
            source = operand + (size_t)row * pitch + (first + column);
        }
    }

    // Starts the copies of the next tile.
    DEVICE void fetch(SharedBytes shared, u32 tile) {
#pragma unroll
        for (int i = 0; i < T::ROWS / ROW_STEP; i++) {
            u32 to = tile + at + i * ROW_STEP * T::ROW_BYTES;
            const bf16* from = source + (size_t)(i * ROW_STEP) * pitch;
            bool exists = rows_left > i * ROW_STEP && columns_left > 0;
            // Where nothing exists the address may lie outside the operand: it is not read.
            if (ALIGNED) {
                ptx::cp_async_16(shared.address + to, from, exists ? 16 : 0);
            } else {
                copy_chunk(shared, to, from, exists ? min(columns_left, CHUNK) : 0, width);
            }
        }
        if (MAJOR == Major::Depth) {
            source += TILE_DEPTH;
            columns_left -= TILE_DEPTH;
        } else {
            source += (size_t)TILE_DEPTH * pitch;
            rows_left -= TILE_DEPTH;
        }
    }
};
