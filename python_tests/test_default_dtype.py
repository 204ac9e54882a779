"""No tensor takes its dtype or device from `torch.set_default_dtype` or `torch.set_default_device`."""

import ast
from pathlib import Path

import pytest
import torch

import vreid_ext
from vreid_ext import losses, metrics, nn, ops
from vreid_ext.compat import torchreid

PACKAGE = Path(vreid_ext.__file__).parent
TAKE_THE_DEFAULT = {
    "empty",
    "eye",
    "full",
    "linspace",
    "logspace",
    "ones",
    "rand",
    "randn",
    "tensor",
    "zeros",
}
# As every parameter of torch's own modules.
PARAMETERS = {"torch.zeros(self.regions, pooled)"}


def test_factories_name_a_dtype():
    lacking = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            factory = ast.unparse(node.func) in {f"torch.{name}" for name in TAKE_THE_DEFAULT}
            named = any(keyword.arg == "dtype" for keyword in node.keywords)
            if factory and not named and ast.unparse(node) not in PARAMETERS:
                lacking.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {ast.unparse(node)}")
    assert lacking == []


def draw(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")


MAPS, EMBEDDINGS, LABELS = draw(2, 3, 8, 8, 4), draw(9, 6), torch.arange(9) // 3
QUERY, GALLERY = draw(4, 6), draw(9, 6)
PROTOCOL = (
    torch.arange(4) % 3,
    torch.arange(9) % 4,
    torch.zeros(4, dtype=torch.int64),
    torch.ones(9, dtype=torch.int64),
)
BATCH = (
    torch.cat([QUERY, GALLERY]),
    torch.cat(PROTOCOL[:2]),
    torch.cat(PROTOCOL[2:]),
    torch.arange(13) < 4,
    torch.arange(13),
)
PARTS, WEIGHTS = draw(9, 3, 6), draw(9, 3).abs()


def metric():
    metric = metrics.ReIDMetric()
    metric.update(*BATCH)
    return metric.compute()


def twice(loss, *inputs):
    loss(*inputs)
    return loss(*inputs)


CALLS = {
    "attention_map": lambda: ops.attention_map(MAPS),
    "block_scores": lambda: ops.block_scores(MAPS[:, :, 0], 4),
    "fuse": lambda: ops.fuse(MAPS, MAPS[:, :, 0, :, 0]),
    "sta_pool": lambda: ops.sta_pool(MAPS, 4),
    "inter_frame_distance": lambda: ops.inter_frame_distance(
        MAPS[:, :, 0], generator=torch.Generator().manual_seed(0)
    ),
    "region_pool": lambda: ops.region_pool(MAPS.flatten(3)[:, :, :2], MAPS),
    "hellinger_overlap": lambda: ops.hellinger_overlap(MAPS[:, :, 0].softmax(3)),
    "temporal_pool": lambda: ops.temporal_pool(MAPS[:, :, :2, 0, 0], MAPS[:, :, :2, 0]),
    "batch_hard": lambda: ops.batch_hard(EMBEDDINGS, LABELS),
    "batch_hard_triplet": lambda: ops.batch_hard_triplet(EMBEDDINGS, LABELS),
    "identity_hard": lambda: ops.identity_hard(EMBEDDINGS, LABELS),
    "dvdp": lambda: ops.dvdp(EMBEDDINGS, LABELS),
    "part_distance": lambda: ops.part_distance(PARTS, WEIGHTS, PARTS, WEIGHTS),
    "pair_distances": lambda: ops.pair_distances(QUERY, GALLERY, LABELS[:4], LABELS[:4]),
    "top_k": lambda: ops.top_k(QUERY, GALLERY, 3),
    "k_reciprocal": lambda: ops.k_reciprocal(QUERY, GALLERY, 3, 2).rows(0, 4),
    "jaccard_graph": lambda: ops.jaccard_graph(GALLERY, 3, 2),
    "evaluate": lambda: metrics.evaluate(QUERY, GALLERY, *PROTOCOL).row(),
    "evaluate, re-ranked": lambda: metrics.evaluate(QUERY, GALLERY, *PROTOCOL, rerank={"k1": 3}).row(),
    "evaluate_distances": lambda: metrics.evaluate_distances(torch.cdist(QUERY, GALLERY), *PROTOCOL).row(),
    "rank": lambda: metrics.rank(QUERY, GALLERY, *PROTOCOL, top=3),
    "cluster": lambda: metrics.cluster(EMBEDDINGS, eps=0.9, min_samples=2, k1=3, k2=2, pids=LABELS),
    "verification": lambda: (
        metrics.verification(
            EMBEDDINGS, LABELS, PROTOCOL[1], resamples=3, fprs=(0.5,), at=(0.7,), by_camera=True
        ).points
    ),
    "ReIDMetric": metric,
    "attribute_scores": lambda: metrics.attribute_scores(EMBEDDINGS, LABELS[:, None] % 2, {"bag": 6}),
    "evaluate_rank": lambda: torchreid.evaluate_rank(torch.cdist(QUERY, GALLERY), *PROTOCOL),
    "re_ranking": lambda: torchreid.re_ranking(
        torch.cdist(QUERY, GALLERY), torch.cdist(QUERY, QUERY), torch.cdist(GALLERY, GALLERY), 3, 2
    ),
    "TripletLoss": lambda: losses.TripletLoss()(EMBEDDINGS, LABELS),
    "CrossEntropyLoss": lambda: losses.CrossEntropyLoss(0.1)(EMBEDDINGS, LABELS),
    "AITLoss": lambda: losses.AITLoss()(EMBEDDINGS, EMBEDDINGS, LABELS),
    "AttributeLoss": lambda: losses.AttributeLoss({"bag": 6})(EMBEDDINGS, LABELS[:, None]),
    "HellingerDiversity": lambda: losses.HellingerDiversity()(MAPS[:, :, 0].softmax(3)),
    "InterFrameRegularizer": lambda: losses.InterFrameRegularizer("all")(MAPS[:, :, 0]),
    "CrossBatchMemory": lambda: twice(losses.CrossBatchMemory(16), EMBEDDINGS, LABELS),
    "OIMLoss": lambda: twice(losses.OIMLoss(6, 3, queue=9), EMBEDDINGS, LABELS - 1),
    "PartTripletLoss": lambda: losses.PartTripletLoss()(PARTS, WEIGHTS, LABELS),
    "part_boxes": lambda: nn.part_boxes(draw(2, 14, 3)),
    "pool_parts": lambda: nn.pool_parts(MAPS[0], nn.part_boxes(draw(3, 14, 3)), 4),
    "aggregate_parts": lambda: nn.aggregate_parts(PARTS[None], WEIGHTS[None]),
}
# Buffers are made on the default device, as those of torch's own modules. `re_ranking` is always native.
OF_THE_CPU = {"AttributeLoss", "OIMLoss", "re_ranking"}


@pytest.fixture
def defaults():
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_results_do_not_depend_on_the_default_dtype(name, backend, dtype, defaults):
    with vreid_ext.use_backend(backend):
        wanted = CALLS[name]()
        torch.set_default_dtype(dtype)
        got = CALLS[name]()
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(set(CALLS) - OF_THE_CPU))
def test_results_do_not_depend_on_the_default_device(name, defaults):
    with vreid_ext.use_backend("reference"):
        wanted = CALLS[name]()
        torch.set_default_device("meta")
        got = CALLS[name]()
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
