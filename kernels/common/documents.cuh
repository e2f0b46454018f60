// Which rows a block works on when documents of any length are packed one behind another.
#pragma once
#include "../ptx/compiler.cuh"

// A tile of consecutive rows of one document: rows first .. of begin .. end.
struct DocumentTile {
    // Token range of the whole document.
    int begin, end;
    // First row of the tile, counted from the document's begin.
    int first;

    DEVICE int length() const { return end - begin; }
};

// The last i in 0 .. n with a condition that holds for 0 and, once false, stays false.
template <class Condition>
DEVICE int last_true(int n, Condition holds) {
    int low = 0, high = n - 1;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        if (holds(middle)) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

// Finds the tile of slot `slot`; false if the slot is empty.
//
// Tile j of the document i that begins at token b has slot b / ROWS + i + j. These never collide: a
// document of n tokens has at most (b + n) / ROWS - b / ROWS + 1 tiles. So T / ROWS + N slots are
// enough for any lengths, without a list made by the host, and the search is logarithmic in N.
template <int ROWS>
DEVICE bool find_tile(DocumentTile& tile, const int* cu_seqlens, int num_documents, int num_tokens,
                      int slot) {
    auto first_slot = [&](int i) { return cu_seqlens[i] / ROWS + i; };
    int i = last_true(num_documents, [&](int i) { return first_slot(i) <= slot; });
    // Offsets that are not increasing give wrong tiles, but never one outside of the tensor.
    tile.begin = max(cu_seqlens[i], 0);
    tile.end = min(cu_seqlens[i + 1], num_tokens);
    tile.first = (slot - first_slot(i)) * ROWS;
    return tile.first >= 0 && tile.first < tile.length();
}

// The document that token t belongs to, as a tile whose first row is t.
DEVICE DocumentTile find_document(const int* cu_seqlens, int num_documents, int num_tokens, int t) {
    int i = last_true(num_documents, [&](int i) { return cu_seqlens[i] <= t; });
    int begin = max(cu_seqlens[i], 0);
    return {begin, min(cu_seqlens[i + 1], num_tokens), t - begin};
}
