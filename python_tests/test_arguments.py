"""Every argument of every public function: a bad value gets an error that begins with the argument's name."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vreid_ext import losses, metrics, nn, ops
from vreid_ext.compat import torchreid


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


MAPS, EMBEDDINGS, LABELS = draw(2, 3, 8, 8, 4), draw(8, 6), torch.arange(8) // 4
FEATURES, WEIGHTS = draw(4, 3, 6), draw(4, 3).abs()
PAIRS = torch.arange(4)
QUERY, GALLERY = draw(4, 6), draw(9, 6)
Q_PIDS, G_PIDS = torch.arange(4) % 3, torch.arange(9) % 4
Q_CAMIDS, G_CAMIDS = torch.zeros(4, dtype=torch.int64), torch.ones(9, dtype=torch.int64)
PROTOCOL = {"q_pids": Q_PIDS, "g_pids": G_PIDS, "q_camids": Q_CAMIDS, "g_camids": G_CAMIDS}
POSITIVES = {
    "start": torch.arange(5),
    "index": PAIRS,
    "distance": torch.ones(4, dtype=torch.float64),
    "left_out": (torch.arange(5), PAIRS),
    "kept": torch.ones(9, dtype=torch.bool),
    "offset": 0,
}
VALID = torch.ones(2, 3, dtype=torch.bool)
SIZES = {"bag": 2, "hat": 4}

# A call that works, by function: every argument of it is replaced in turn.
CALLS = [
    (ops.attention_map, {"x": MAPS, "energy": "l2", "normalize": "sum", "backend": "auto"}),
    (ops.block_scores, {"attention": MAPS[:, :, 0], "blocks": 4, "valid": VALID, "backend": "auto"}),
    (ops.fuse, {"x": MAPS, "scores": MAPS[:, :, 0, :4, 0], "valid": VALID, "backend": "auto"}),
    (ops.sta_pool, {"x": MAPS, "blocks": 4, "valid": VALID, "backend": "auto"}),
    (ops.inter_frame_distance, {"attention": MAPS[:, :, 0], "pairs": "all", "generator": None}),
    (ops.region_pool, {"logits": draw(2, 3, 2, 32), "x": MAPS, "backend": "auto"}),
    (ops.hellinger_overlap, {"weights": draw(2, 3, 2, 32).softmax(3), "form": "text", "backend": "auto"}),
    (ops.temporal_pool, {"scores": draw(2, 3, 2), "features": draw(2, 3, 2, 6), "valid": VALID}),
    (
        ops.batch_hard,
        {"embeddings": EMBEDDINGS, "labels": LABELS, "metric": "cosine", "ref": EMBEDDINGS}
        | {"ref_labels": LABELS, "backend": "auto"},
    ),
    (
        ops.batch_hard_triplet,
        {"embeddings": EMBEDDINGS, "labels": LABELS, "margin": 0.3, "metric": "cosine", "ref": EMBEDDINGS}
        | {"ref_labels": LABELS, "backend": "auto"},
    ),
    (
        ops.identity_hard,
        {"attributes": EMBEDDINGS, "labels": LABELS, "metric": "cosine", "include_self": False},
    ),
    (ops.dvdp, {"embeddings": EMBEDDINGS, "labels": LABELS, "metric": "cosine", "backend": "auto"}),
    (ops.mined_distance, {"embeddings": EMBEDDINGS, "index": LABELS[None], "ref": EMBEDDINGS}),
    (
        ops.part_distance,
        {"q_features": FEATURES, "q_weights": WEIGHTS, "g_features": FEATURES, "g_weights": WEIGHTS},
    ),
    (ops.pair_distances, {"query": QUERY, "gallery": GALLERY, "row": PAIRS, "index": PAIRS}),
    (ops.rank_counts, {"distances": draw(4, 9), **POSITIVES}),
    (ops.feature_rank_counts, {"query": QUERY, "gallery": GALLERY, **POSITIVES, "metric": "cosine"}),
    (
        ops.top_k,
        {"query": QUERY, "gallery": GALLERY, "k": 2, "metric": "cosine"}
        | {"left_out": POSITIVES["left_out"], "kept": POSITIVES["kept"]},
    ),
    (ops.k_reciprocal, {"query": QUERY, "gallery": GALLERY, "k1": 3, "k2": 2, "lambda_value": 0.3}),
    (ops.jaccard_graph, {"features": GALLERY, "k1": 3, "k2": 2, "limit": 0.9}),
    (
        metrics.evaluate,
        {"query": QUERY, "gallery": GALLERY, **PROTOCOL, "metric": "cosine", "ap": "precision"}
        | {"max_rank": 5, "junk": True, "exclude": None, "rerank": False, "block_size": None},
    ),
    (
        metrics.evaluate_distances,
        {
            "distances": draw(4, 9),
            **PROTOCOL,
            "ap": "precision",
            "max_rank": 5,
            "junk": True,
            "exclude": None,
        },
    ),
    (
        metrics.rank,
        {"query": QUERY, "gallery": GALLERY, **PROTOCOL, "top": 3, "metric": "cosine", "junk": True}
        | {"exclude": None},
    ),
    (
        metrics.cluster,
        {"features": EMBEDDINGS, "method": "dbscan", "metric": "cosine", "eps": 0.9, "min_samples": 2}
        | {"min_cluster_size": 2, "k1": 3, "k2": 2, "pids": LABELS},
    ),
    (
        metrics.verification,
        {"features": EMBEDDINGS, "pids": LABELS, "camids": torch.arange(8), "metric": "cosine", "junk": True}
        | {"fprs": (0.5,), "fpirs": (0.5,), "at": (0.7,), "by_camera": True, "confidence": 0.9}
        | {"resamples": 2},
    ),
    (
        metrics.attribute_scores,
        {"logits": EMBEDDINGS, "targets": LABELS[:, None].expand(8, 2), "sizes": SIZES},
    ),
    (
        torchreid.evaluate_rank,
        {"distmat": draw(4, 9).numpy(), "max_rank": 5, "use_metric_cuhk03": False, "use_cython": True}
        | {name: value.numpy() for name, value in PROTOCOL.items()},
    ),
    (
        torchreid.re_ranking,
        {"q_g_dist": draw(4, 9).abs().numpy(), "q_q_dist": draw(4, 4).abs().numpy()}
        | {"g_g_dist": draw(9, 9).abs().numpy(), "k1": 3, "k2": 2, "lambda_value": 0.3},
    ),
    (nn.part_boxes, {"joints": draw(2, 14, 3), "min_confidence": 0.3, "margin": 0.0, "min_size": 0.1}),
    (nn.pool_parts, {"maps": MAPS[0], "boxes": nn.part_boxes(draw(3, 14, 3)), "size": 2, "how": "align"}),
    (nn.standing_boxes, {"like": MAPS}),
    (nn.normalise_scores, {"scores": draw(2, 3, 6).abs(), "valid": VALID}),
    (nn.aggregate_parts, {"features": draw(2, 3, 6, 4), "scores": draw(2, 3, 6).abs(), "valid": VALID}),
    (nn.spatio_temporal_pool, {"maps": MAPS, "attention": MAPS[:, :, 0], "valid": VALID}),
    (nn.STAPooling, {"blocks": 4, "energy": "l2", "normalize": "sum", "backend": "auto"}),
    (nn.RegionAttention, {"channels": 4, "regions": 2, "hidden": 3, "form": "paper", "backend": "auto"}),
    (nn.ResidualAttention, {"channels": 4, "width": 2}),
    (nn.QualityNetwork, {"parts": 2, "width": 2}),
    (nn.SpatioTemporalAttention, {"channels": 4, "size": (8, 4), "width": 2, "detach": True}),
    (losses.TripletLoss, {"margin": 0.3, "metric": "cosine", "backend": "auto"}),
    (losses.CrossEntropyLoss, {"label_smoothing": 0.1}),
    (
        losses.AITLoss,
        {"margin": 0.0, "metric": "cosine", "attribute_metric": "cosine", "include_self": False},
    ),
    (losses.ITLoss, {"margin": 0.0, "metric": "cosine", "backend": "auto"}),
    (losses.AttributeLoss, {"sizes": SIZES}),
    (losses.HellingerDiversity, {"form": "text", "backend": "auto"}),
    (losses.InterFrameRegularizer, {"pairs": "all", "backend": "auto"}),
    (losses.CrossBatchMemory, {"size": 4, "margin": 0.3, "metric": "cosine", "backend": "auto"}),
    (
        losses.OIMLoss,
        {"num_features": 4, "num_classes": 3, "scalar": 30.0, "momentum": 0.5, "queue": 2},
    ),
    (losses.PartTripletLoss, {"margin": 0.8, "backend": "auto"}),
    (losses.gather_with_gradient, {"x": EMBEDDINGS}),
    (metrics.DVDP, {"metric": "cosine"}),
    (metrics.ReIDMetric, {"max_rank": 5}),
]
TENSORS = [
    (losses.TripletLoss(), {"inputs": EMBEDDINGS, "targets": LABELS, "ref": None, "ref_targets": None}),
    (losses.CrossEntropyLoss(), {"logits": EMBEDDINGS, "targets": LABELS}),
    (losses.AITLoss(), {"features": EMBEDDINGS, "attributes": EMBEDDINGS, "targets": LABELS}),
    (losses.ITLoss(), {"features": EMBEDDINGS, "targets": LABELS}),
    (losses.AttributeLoss(SIZES), {"logits": EMBEDDINGS, "targets": LABELS[:, None].expand(8, 2)}),
    (losses.HellingerDiversity(), {"attention": draw(2, 3, 2, 32).softmax(3), "valid": VALID}),
    (losses.InterFrameRegularizer("all"), {"attention": MAPS[:, :, 0], "valid": VALID}),
    (losses.CrossBatchMemory(4), {"inputs": EMBEDDINGS, "targets": LABELS}),
    (losses.OIMLoss(6, 2), {"inputs": EMBEDDINGS, "targets": LABELS}),
    (
        losses.PartTripletLoss(),
        {"features": FEATURES.repeat(2, 1, 1), "scores": WEIGHTS.repeat(2, 1), "targets": LABELS},
    ),
    (nn.STAPooling(4), {"x": MAPS, "valid": VALID}),
    (nn.RegionAttention(8, 2, 4), {"x": MAPS}),
    (nn.ResidualAttention(8, 2), {"x": MAPS[0]}),
    (nn.QualityNetwork(2, 2), {"frames": draw(1, 2, 3, 32, 32)}),
    (nn.SpatioTemporalAttention(8, (8, 4), width=2), {"maps": MAPS, "valid": VALID}),
    (metrics.DVDP().update, {"features": EMBEDDINGS, "pids": LABELS}),
    (
        metrics.ReIDMetric().update,
        {"features": EMBEDDINGS, "pids": LABELS, "camids": LABELS, "query": LABELS > 0, "index": LABELS},
    ),
]
BAD = {
    "None": None,
    "str": "spam",
    "bytes": b"spam",
    "list": ["a", "b"],
    "nested": [[0, 1], [2]],
    "dict": {"lambda": 0.3},
    "object": object(),
    "bool": True,
    "float": 5.0,
    "nan": float("nan"),
    "huge": 2**80,
    "negative": -(2**80),
    "infinity": float("inf"),
    "names": np.array(["a", "b", "c", "d"]),
    "objects": np.array([1, None, "x", 3.0], dtype=object),
    "dates": np.zeros(4, "datetime64[s]"),
    "complex": torch.zeros(4, 6, dtype=torch.complex64),
    "scalar": torch.tensor(1.0),
    "sparse": torch.eye(4).to_sparse(),
    "meta": torch.zeros(4, 6, device="meta"),
    "wide": torch.zeros(4, 3, 7),
}


def name_of(case):
    function = case[0]
    return getattr(function, "__qualname__", type(function).__name__)


CASES = [
    pytest.param(*case, argument, id=f"{name_of(case)}-{argument}")
    for case in CALLS + TENSORS
    for argument in case[1]
]


@pytest.mark.parametrize(("function", "arguments", "argument"), CASES)
def test_a_bad_value_is_named_or_understood(function, arguments, argument):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function(**arguments)
        wrong = []
        for kind, value in BAD.items():
            try:
                function(**{**arguments, argument: value})
            except (TypeError, ValueError) as error:
                # Another argument may be named where the two no longer fit one another.
                if not str(error).startswith(tuple(arguments)):
                    wrong.append(f"{kind}: {type(error).__name__}: {str(error)[:100]}")
            except Exception as error:
                wrong.append(f"{kind}: {type(error).__name__}: {str(error)[:100]}")
    assert not wrong, "\n" + "\n".join(wrong)


REVERSED = {"rows": np.s_[::-1], "columns": np.s_[:, ::-1], "both": np.s_[::-1, ::-1]}


@settings(max_examples=40)
@given(
    view=st.sampled_from(sorted(REVERSED)),
    order=st.sampled_from("<>="),
    dtype=st.sampled_from(["f4", "f8", "f2"]),
    labels=st.sampled_from(["<i8", ">i8", ">i4", "u1", ">u8"]),
    step=st.integers(1, 3),
)
def test_any_view_and_byte_order_of_an_array_counts(view, order, dtype, labels, step):
    def laid_out(x):
        """The same numbers behind other strides and another byte order."""
        wide = np.repeat(np.asarray(x, np.dtype(dtype).newbyteorder(order)), step, 0)
        return np.ascontiguousarray(wide[REVERSED[view]])[REVERSED[view]][::step]

    query, gallery = QUERY.numpy(), GALLERY.numpy()
    given = [laid_out(query), laid_out(gallery)]
    camids_and_pids = [value.numpy() for value in PROTOCOL.values()]
    reordered = [value.astype(labels)[::-1].copy()[::-1] for value in camids_and_pids]
    plain = [torch.from_numpy(each.astype(dtype)) for each in (query, gallery)]
    wanted = metrics.evaluate(*plain, *PROTOCOL.values())
    assert metrics.evaluate(*given, *reordered).row() == wanted.row()
    for got, want in zip(metrics.rank(*given, *reordered), metrics.rank(*plain, *PROTOCOL.values())):
        assert torch.equal(got, want)


def test_a_big_endian_file_counts(tmp_path):
    np.save(tmp_path / "gallery.npy", GALLERY.numpy().astype(">f4"))
    result = metrics.evaluate(QUERY, tmp_path / "gallery.npy", **PROTOCOL)
    assert result.row() == metrics.evaluate(QUERY, GALLERY, **PROTOCOL).row()


def test_torchreids_labels_may_be_names():
    distances = draw(4, 9).numpy()[:, ::-1]
    given = [value.numpy() for value in PROTOCOL.values()]
    names = [np.array([f"c{label:02d}" for label in labels]) for labels in given]
    for got, want in zip(
        torchreid.evaluate_rank(distances, *names), torchreid.evaluate_rank(distances.copy(), *given)
    ):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda": 0.3}, "rerank: expected the keys k1, k2, lambda_value, got 'lambda'"),
        ({"k1": 5.0}, "rerank: k1: expected an int, got float"),
        ({"lambda_value": 2}, "rerank: lambda_value: expected a finite number from 0 to 1, got 2"),
    ],
)
def test_options_of_re_ranking_are_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        metrics.evaluate(QUERY, GALLERY, **PROTOCOL, rerank=options)


def test_integers_of_numpy_are_integers():
    result = metrics.evaluate(QUERY, GALLERY, **PROTOCOL, max_rank=np.int64(5), block_size=np.int32(2))
    assert result.cmc.shape == (5,)
    assert metrics.rank(QUERY, GALLERY, **PROTOCOL, top=np.int16(3))[0].shape == (4, 3)
