"""torchreid's functions, from its sources in the folder PEER, beside those of `compat.torchreid`."""

import importlib.util
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from vreid_ext.compat import torchreid as ours


def source(path):
    """One file of the sources: the whole package imports much that nothing here needs."""
    spec = importlib.util.spec_from_file_location("peer_" + Path(path).stem, Path(os.environ["PEER"], path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - of which their sampler draws
    random.seed(0)


@pytest.mark.parametrize("pids", [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2], [0, 1, 2, 3], [5, 5, 5, 9]])
@pytest.mark.parametrize("margin", [0.0, 0.3, 5.0])
def test_triplet_loss(pids, margin):
    theirs = source("torchreid/losses/hard_mine_triplet_loss.py")
    results = []
    for criterion in (ours.TripletLoss(margin), theirs.TripletLoss(margin)):
        x = torch.randn(len(pids), 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        loss = criterion(x, torch.tensor(pids))
        results.append((loss, *torch.autograd.grad(loss, x)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"eps": 0.3}, {"label_smooth": False}])
def test_cross_entropy(options):
    theirs = source("torchreid/losses/cross_entropy_loss.py")
    logits, targets = torch.randn(12, 7), torch.randint(7, (12,))
    results = [
        module.CrossEntropyLoss(7, use_gpu=False, **options)(logits, targets) for module in (ours, theirs)
    ]
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("gallery", [60, 300])
def test_evaluate_rank(gallery):
    theirs = source("torchreid/metrics/rank.py")
    sizes = (30, gallery)
    draw = np.random.default_rng(0)
    labels = [draw.integers(0, 8, n) for n in sizes] + [draw.integers(0, 4, n) for n in sizes]
    arguments = (draw.random(sizes) * 20, *labels)
    results = [module.evaluate_rank(*arguments, use_cython=False) for module in (ours, theirs)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"k1": 6, "k2": 1, "lambda_value": 0.1}])
def test_re_ranking(options):
    theirs = source("torchreid/utils/rerank.py")
    x = torch.randn(12, 16).repeat_interleave(8, 0) + 0.7 * torch.randn(96, 16)
    square = torch.cdist(x, x).square().numpy()
    matrices = square[:20, 20:], square[:20, :20], square[20:, 20:]
    results = [module.re_ranking(*matrices, **options) for module in (ours, theirs)]
    np.testing.assert_allclose(*results, atol=1e-4)


def test_sampler():
    theirs = source("torchreid/data/sampler.py")
    pids = [pid for pid in range(20) for _ in range(4 + pid)]
    for module in (ours, theirs):
        epoch = list(module.RandomIdentitySampler([("", pid, 0, 0) for pid in pids], 16, 4))
        batches = np.array(pids)[np.array(epoch)].reshape(-1, 4, 4)
        assert (batches == batches[:, :, :1]).all()
        assert all(len(set(batch[:, 0])) == 4 for batch in batches)
        assert len(batches) >= 10
