// The part metric in vreid_ext._native.
#include "bindings/native/bind.h"

namespace vreid {
namespace {

VREID_TUPLE(PartSizes, dtype, parts, rows, cols, D);
VREID_TUPLE(PartSide, features, row_stride, part_stride, squares, weights, stride, panels);

PartSide part_side(const char* name, const PartSideTuple& side, int64_t size) {
    return {pointer(name, side.features, size),
            side.row_stride,
            side.part_stride,
            pointer(name, side.squares, size),
            pointer(name, side.weights, size),
            side.stride,
            pointer(name, side.panels, size)};
}

PartTile part_tile(const PartSizesTuple& sizes, const PartSideTuple& query, const PartSideTuple& gallery,
                   int threads) {
    return {dtype(sizes.dtype),
            sizes.parts,
            sizes.rows,
            sizes.cols,
            sizes.D,
            part_side("query", query, sizes.parts * sizes.rows),
            part_side("gallery", gallery, sizes.parts * sizes.cols),
            check_threads(threads)};
}

void part_distance(const PartSizesTuple& sizes, const PartSideTuple& query, const PartSideTuple& gallery,
                   int64_t distance, int64_t distance_stride, int threads) {
    const PartTile tile = part_tile(sizes, query, gallery, threads);
    PartDistance op{tile, pointer("distance", distance, tile.rows * tile.cols), distance_stride};
    run(&Table::part_distance, op);
}

int64_t part_distance_scratch(const PartSizesTuple& sizes) {
    return kernels().table->part_distance_scratch(
        {dtype(sizes.dtype), sizes.parts, sizes.rows, sizes.cols, sizes.D, {}, {}, 1});
}

void part_distance_backward(const PartSizesTuple& sizes, const PartSideTuple& query,
                            const PartSideTuple& gallery, int64_t grad, int64_t grad_stride, int64_t dquery,
                            int64_t dgallery, int64_t row_stride, int64_t part_stride, int64_t dquery_weights,
                            int64_t dgallery_weights, int64_t query_weight_stride,
                            int64_t gallery_weight_stride, int64_t scratch, int threads) {
    const PartTile tile = part_tile(sizes, query, gallery, threads);
    PartDistanceBackward op{tile,
                            pointer("grad", grad, tile.rows * tile.cols),
                            grad_stride,
                            pointer("dquery", dquery, tile.parts * tile.rows * tile.D),
                            pointer("dgallery", dgallery, tile.parts * tile.cols * tile.D),
                            row_stride,
                            part_stride,
                            pointer("dquery_weights", dquery_weights, tile.parts * tile.rows),
                            pointer("dgallery_weights", dgallery_weights, tile.parts * tile.cols),
                            query_weight_stride,
                            gallery_weight_stride,
                            pointer("scratch", scratch, tile.rows * tile.cols)};
    run(&Table::part_distance_backward, op);
}

}  // namespace

void bind_part_metric(pybind11::module_& m) {
    export_tuples<PartSizesTuple, PartSideTuple>(m);
    m.attr("CLOSE_PAIR") = kClosePair;
    VREID_DEFINE(m, part_distance, part_distance_scratch, part_distance_backward);
}

}  // namespace vreid
