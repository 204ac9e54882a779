"""torchmetrics' own `MetricTester` on `metrics.ReIDMetric`; `run.py` puts it on the path."""

import pytest
import torch
from unittests import BATCH_SIZE, NUM_BATCHES
from unittests._helpers.testers import MetricTester

from vreid_ext import metrics

GENERATOR = torch.Generator().manual_seed(0)
SHAPE = (NUM_BATCHES, BATCH_SIZE)
FEATURES = torch.randn(*SHAPE, 16, generator=GENERATOR)
PIDS = torch.randint(4, SHAPE, generator=GENERATOR)
OTHERS = {
    "camids": torch.randint(3, SHAPE, generator=GENERATOR),
    "query": torch.arange(BATCH_SIZE).expand(SHAPE) % 4 == 0,
    "index": torch.arange(NUM_BATCHES * BATCH_SIZE).view(SHAPE),
}


def row(features, pids, camids, query, index):
    """One call with everything, in the order of the data set."""
    order = index.argsort()
    parts = []
    for column in (features, pids, camids):
        parts += [column[order][query[order]], column[order][~query[order]]]
    return {name: torch.tensor(value) for name, value in metrics.evaluate(*parts).row().items()}


class MeanAP(metrics.ReIDMetric):
    """For the tests that take a tensor and no dict."""

    def compute(self):
        return super().compute()["mAP"]


class TestReIDMetric(MetricTester):
    atol = 1e-6

    @pytest.mark.parametrize("ddp", [False, True])
    @pytest.mark.parametrize("dist_sync_on_step", [False, True])
    def test_class(self, ddp, dist_sync_on_step):
        self.run_class_metric_test(
            ddp=ddp,
            preds=FEATURES,
            target=PIDS,
            metric_class=metrics.ReIDMetric,
            reference_metric=row,
            dist_sync_on_step=dist_sync_on_step,
            fragment_kwargs=True,
            **OTHERS,
        )

    @pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
    def test_dtype(self, dtype):
        self.run_precision_test_cpu(FEATURES, PIDS, MeanAP, dtype=dtype, **OTHERS)
