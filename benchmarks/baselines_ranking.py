"""Baselines of the ranking benchmarks: torchreid from its wheel, and torch's sort and top-k."""

import importlib
from types import ModuleType

import numpy as np
import torch
from torch import Tensor


def torchreid(module: str) -> ModuleType | None:
    """Import a module of the wheel, such as "utils.rerank"; returns None if the wheel is not installed."""
    try:
        return importlib.import_module(f"pyppbox_torchreid.{module}")
    except ImportError:
        return None


def by_sorting(
    distances: Tensor, q_pids: Tensor, g_pids: Tensor, q_camids: Tensor, g_camids: Tensor
) -> float:
    """mAP in eager torch by sorting every row."""
    order = distances.argsort(dim=1)
    same = g_pids[order] == q_pids[:, None]
    kept = ~(same & (g_camids[order] == q_camids[:, None]))
    hits = same & kept
    precision = hits.cumsum(1) / kept.cumsum(1).clamp(min=1)
    positives = hits.sum(1)
    return float(((precision * hits).sum(1) / positives)[positives > 0].mean())


def products(items: Tensor, queries: int, k: int = 0) -> None:
    """The matrix products of re-ranking, in blocks of rows, and if k > 0 also the top-k of each row."""
    for rows in items.split(2048):
        product = rows @ items.T
        if k:
            product.topk(k)
    items[:queries] @ items[queries:].T


def numpy_re_ranking(rerank: ModuleType, items: Tensor, queries: int) -> np.ndarray:
    """torchreid's re-ranking, including the distance matrices that are its inputs."""
    query, gallery = items[:queries], items[queries:]
    pairs = ((query, gallery), (query, query), (gallery, gallery))
    result: np.ndarray = rerank.re_ranking(*(torch.cdist(a, b).numpy() for a, b in pairs))
    return result
