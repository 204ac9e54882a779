"""The evaluation as a `torchmetrics.Metric`."""

import inspect
from typing import Any

import torch
from torch import Tensor

try:
    from torchmetrics import Metric
    from torchmetrics.utilities import dim_zero_cat
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "torchmetrics is not installed: pip install 'vreid-ext[train]'", name=error.name
    ) from error

from vreid_ext._checks import floating
from vreid_ext.metrics.reid import evaluate

_OF_EVALUATE = {
    name for name, parameter in inspect.signature(evaluate).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
}  # fmt: skip


class ReIDMetric(Metric):
    """mAP, mINP and CMC of features that are added in batches, optionally by several processes.

    `compute()` returns a dict of 0-d tensors: mAP, mINP, R1, R5, R10 and R20 (fractions), as
    `evaluate(...).row()`. The attribute `result` has the full `ReIDResult` of the last call.

    Args:
        options: keyword arguments of `evaluate`, e.g. metric="euclidean", and of `torchmetrics.Metric`, e.g.
            dist_sync_on_step=True.

    Each process adds its own samples; `compute` gathers the features of all processes.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**{name: value for name, value in options.items() if name not in _OF_EVALUATE})
        self.options = {name: value for name, value in options.items() if name in _OF_EVALUATE}
        for name in ("features", "pids", "camids", "queries", "indices"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, features: Tensor, pids: Tensor, camids: Tensor, query: Tensor, index: Tensor) -> None:
        """Add a batch.

        Args:
            features: (B,D).
            pids, camids: (B,) integers.
            query: (B,) bool; True for a query, False for a gallery item.
            index: (B,) integers, the sample's index in the data set. It determines the order of samples,
                regardless of which process adds them. Samples that a sampler repeats are counted once.
        """
        floating("features", features, "(B,D)")
        batch = {"pids": pids, "camids": camids, "queries": query, "indices": index}
        for name, value in zip(("pids", "camids", "query", "index"), batch.values(), strict=True):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name}: expected a tensor (B,), got {type(value).__name__}")
            if name == "query" and value.dtype != torch.bool:
                raise TypeError(f"query: expected dtype bool, got {value.dtype}")
            if value.shape != (len(features),):
                raise ValueError(f"{name}: expected shape ({len(features)},), got {tuple(value.shape)}")
        if features.device.type == "cpu":  # on a GPU `compute` checks this, to avoid a synchronization here
            finite = features.reshape(len(features), -1).isfinite().all(1)
            if not finite.all():
                row = int((~finite).nonzero()[0])
                raise ValueError(f"features: expected finite values, got NaN or infinity in row {row}")
        for name, value in {"features": features.detach(), **batch}.items():
            getattr(self, name).append(value)

    def compute(self) -> dict[str, Tensor]:
        """The metrics of all batches since the last reset.

        Raises:
            ValueError: no batch has been added.
        """
        embedded: Any = self.features
        if len(embedded) == 0:
            raise ValueError("features: expected at least one batch before `compute`, got none")
        features, pids, camids, queries, indices = (
            dim_zero_cat(getattr(self, name)) for name in ("features", "pids", "camids", "queries", "indices")
        )
        order = indices.argsort(stable=True)
        repeated = indices[order].diff(prepend=indices[order][:1] - 1) == 0
        order = order[~repeated]
        of_query, of_gallery = order[queries[order]], order[~queries[order]]
        self.result = evaluate(
            *(features[part] for part in (of_query, of_gallery)),
            *(pids[part] for part in (of_query, of_gallery)),
            *(camids[part] for part in (of_query, of_gallery)),
            **self.options,
        )
        return {
            name: torch.tensor(value, dtype=torch.float32, device="cpu")
            for name, value in self.result.row().items()
        }
