// Matrix products of packed rows, a tile at a time: out[i,j] = sum_d x[i,d] y[j,d].
//
// A sum over D terms is accumulated in blocks of kDepth terms, one after another; each block is a chain of
// multiply-adds in order. The same instructions compute every element, at any position in any tile. The bits
// of an element therefore depend only on D, the dtype and the instruction set, not on the tile, the number of
// threads or the CPU vendor, and the product of a matrix with itself is symmetric.
#pragma once

#include "common/product.h"
#include "cpu/memory.h"

namespace vreid {
namespace VREID_ISA {

// Rows are packed into panels of kRows rows, [panel][d][row]; the last vector of rows is padded with zeros,
// and the vectors after it are not used. Both sides of a product have this layout. kMicro rows of one panel
// are multiplied by all rows of another in registers.
namespace {

template <class A>
struct Panel {
    static constexpr int kLanes = Lanes<A>::N;
    static constexpr int kMicro = kRegisters == 32 ? 8 : 4;
    static constexpr int kVectors = kLanes == 2 ? 2 : 3;
    static constexpr int kRows = kVectors * kLanes;
    static_assert(kRows % kMicro == 0, "a panel consists of whole micro-tiles");

    static int64_t count(int64_t rows) { return (rows + kRows - 1) / kRows; }
    // The index of the first element of a row of D elements; they are kRows apart.
    static int64_t offset(int64_t row, int64_t D) { return row / kRows * kRows * D + row % kRows; }
};

// A tile of a product: rows from `top` on and columns from `left` on.
struct Cut {
    int64_t top, left, rows, columns;
};

// A tile and the slices of the panels that it is computed from fit into the L2 cache.
constexpr int64_t kTileRows = 96, kTileColumns = 192;

// The tiles of a product (rows, columns). A large product has tiles of kTileRows x kTileColumns, a small one
// smaller tiles, so that every thread gets some. Tiles consist of whole panels of columns and whole vectors
// and micro-tiles of rows, as `multiply` requires.
template <class A>
struct Tiling {
    int64_t rows, columns, height, width, down, across;

    Tiling(int64_t rows, int64_t columns, int threads)
        : rows(rows),
          columns(columns),
          height(part(rows, 2 * threads, kUnit, kTileRows)),
          down((rows + height - 1) / height) {
        const int64_t shares = down > 0 && down < threads ? (threads + down - 1) / down : 1;
        width = part(columns, shares, Panel<A>::kRows, kTileColumns);
        across = (columns + width - 1) / width;
    }
    int64_t size() const { return down * across; }
    Cut cut(int64_t t) const {
        const int64_t top = t / across * height, left = t % across * width;
        return {top, left, smaller(height, rows - top), smaller(width, columns - left)};
    }

    // Elements of the memory of a tile, which `multiply` fills by whole panels.
    static constexpr int64_t kNumbers = kTileRows * kTileColumns;
    // The least height of a tile: whole vectors and micro-tiles.
    static constexpr int64_t kUnit =
        Panel<A>::kLanes > Panel<A>::kMicro ? Panel<A>::kLanes : Panel<A>::kMicro;

  private:
    // size / parts, rounded up to a multiple of `unit`: at least `unit`, at most `largest`.
    static int64_t part(int64_t size, int64_t parts, int64_t unit, int64_t largest) {
        static_assert(kTileRows % Panel<A>::kRows == 0 && kTileColumns % Panel<A>::kRows == 0,
                      "whole panels");
        const int64_t each = ((size + parts - 1) / parts + unit - 1) / unit * unit;
        return each < unit ? unit : smaller(each, largest);
    }
};

}  // namespace

// A left side of a product, whose elements are read one at a time: packed rows from `top` on, a multiple of
// kMicro.
template <class A>
struct PackedRows {
    const A* data;
    int64_t top, D;

    // The rows of a micro-tile, from element `d` on.
    struct Micro {
        const A* first;
        A element(int row, int64_t d) const { return first[d * Panel<A>::kRows + row]; }
        void prefetch(int64_t d) const { __builtin_prefetch(first + d * Panel<A>::kRows, 0, 2); }
    };
    Micro micro(int64_t r, int64_t, int64_t d, int64_t) const {
        return {data + Panel<A>::offset(top + r, D) + d * Panel<A>::kRows};
    }
};
// A left side of a product: rows that are not packed. No other thread may write to them.
template <class A>
struct PlainRows {
    const A* data;
    int64_t stride;

    struct Micro {
        const A* rows[Panel<A>::kMicro];
        A element(int row, int64_t d) const { return rows[row][d]; }
        void prefetch(int64_t) const {}
    };
    // Rows from `end` on are replaced by the last one. Prefetches the next micro-tile, which may be beyond
    // it.
    Micro micro(int64_t r, int64_t end, int64_t d, int64_t depth) const {
        constexpr int64_t kLine = 64 / sizeof(A);
        Micro part;
        for (int i = 0; i < Panel<A>::kMicro; ++i) {
            part.rows[i] = data + smaller(r + i, end - 1) * stride + d;
            const A* next = data + (r + Panel<A>::kMicro + i) * stride + d;
            for (int64_t n = 0; n < depth; n += kLine) __builtin_prefetch(next + n, 0, 2);
        }
        return part;
    }
};

// A left side of a product: the columns of a matrix of rows `stride` elements apart.
// Columns up to a multiple of kMicro are read. No other thread may write to them.
template <class A>
struct PlainColumns {
    const A* data;
    int64_t stride;

    struct Micro {
        const A* first;
        int64_t stride;
        A element(int row, int64_t d) const { return first[d * stride + row]; }
        void prefetch(int64_t) const {}
    };
    Micro micro(int64_t r, int64_t, int64_t d, int64_t) const { return {data + d * stride + r, stride}; }
};

// out (rows, columns) = the products of rows x and of `columns` rows of y, from row `left` on, a whole number
// of vectors; y starts at the first row of a panel. `out` has room for whole panels; its rows start `stride`
// elements apart.
template <class Side, class A>
void multiply(Side x, int64_t rows, const A* y, int64_t left, int64_t columns, int64_t D, A* out,
              int64_t stride);

#define VREID_MULTIPLY(Side, A) \
    template void multiply(Side<A>, int64_t, const A*, int64_t, int64_t, int64_t, A*, int64_t)
extern VREID_MULTIPLY(PackedRows, float);
extern VREID_MULTIPLY(PackedRows, double);
extern VREID_MULTIPLY(PlainRows, float);
extern VREID_MULTIPLY(PlainRows, double);
extern VREID_MULTIPLY(PlainColumns, float);
extern VREID_MULTIPLY(PlainColumns, double);

}  // namespace VREID_ISA
}  // namespace vreid
