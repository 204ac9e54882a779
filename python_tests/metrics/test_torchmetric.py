import json
import os
import subprocess
import sys
import weakref

import pytest
import torch

from vreid_ext import metrics

pytest.importorskip("torchmetrics", reason="needs the extra [train]")


def samples():
    generator = torch.Generator().manual_seed(0)
    pids = torch.randint(0, 5, (61,), generator=generator)
    camids = torch.randint(0, 3, (61,), generator=generator)
    features = torch.randint(0, 3, (61, 6), generator=generator).float()  # many ties
    return features, pids, camids, torch.arange(61) % 4 == 0, torch.arange(61)


def wanted():
    features, pids, camids, query, _ = samples()
    parts = [part for each in (features, pids, camids) for part in (each[query], each[~query])]
    return metrics.evaluate(*parts, metric="euclidean").row()


def run(metric, batches):
    columns = samples()
    for batch in batches:
        metric.update(*(column[batch] for column in columns))
    return {name: float(value) for name, value in metric.compute().items()}


def test_batches_in_any_order_and_repeated_give_the_figures_of_one_call():
    order = torch.randperm(61, generator=torch.Generator().manual_seed(1))
    metric = metrics.ReIDMetric(metric="euclidean")
    assert run(metric, torch.cat([order, order[:3]]).split(8)) == pytest.approx(wanted(), abs=1e-7)
    metric.reset()
    assert run(metric, [torch.arange(61)]) == pytest.approx(wanted(), abs=1e-7)
    assert metric.result.valid_queries > 0


def test_options_of_the_base_class_reach_it():
    metric = metrics.ReIDMetric(metric="euclidean", dist_sync_on_step=True, compute_on_cpu=True)
    assert metric.dist_sync_on_step
    assert metric.compute_on_cpu
    assert run(metric, [torch.arange(61)]) == pytest.approx(wanted(), abs=1e-7)
    with pytest.raises(ValueError, match="unknown"):
        metrics.ReIDMetric(unknown=1)


PROCESS = """
import sys, torch
import torch.distributed as dist
from vreid_ext import metrics

dist.init_process_group("gloo")
columns = torch.load(sys.argv[1])
metric = metrics.ReIDMetric(metric="euclidean")
# As DistributedSampler hands them out: every second sample, the last repeated to fill up.
for batch in torch.arange(dist.get_rank(), 62, 2).clamp(max=60).split(8):
    metric.update(*(column[batch] for column in columns))
figures = {name: float(value) for name, value in metric.compute().items()}
if dist.get_rank() == 0:
    print(json.dumps(figures))
dist.destroy_process_group()
"""


def test_two_processes_give_the_figures_of_one(tmp_path):
    torch.save(samples(), tmp_path / "samples.pt")
    (tmp_path / "process.py").write_text("import json\n" + PROCESS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "process.py"), str(tmp_path / "samples.pt")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(wanted(), abs=1e-7)


def test_bad_batches_are_named():
    features, pids, camids, query, index = samples()
    with pytest.raises(TypeError, match=r"^query: expected .*got .*torch.int64"):
        metrics.ReIDMetric().update(features, pids, camids, query.long(), index)
    with pytest.raises(ValueError, match=r"^pids: expected .*got .*\(60,\)"):
        metrics.ReIDMetric().update(features, pids[1:], camids, query, index)


def test_features_that_are_not_finite_are_named_by_their_batch_and_not_kept():
    metric = metrics.ReIDMetric(metric="euclidean")
    features, *others = samples()
    broken = features.clone()
    broken[5, 2] = torch.nan
    with pytest.raises(ValueError, match=r"^features: expected finite values, got NaN or infinity in row 5"):
        metric.update(broken, *others)
    assert run(metric, [torch.arange(61)]) == pytest.approx(wanted(), abs=1e-7)


def test_without_a_batch_there_are_no_figures_and_after_reset_no_features():
    metric = metrics.ReIDMetric()
    with (
        pytest.warns(match="before the ``update``"),
        pytest.raises(ValueError, match=r"^features: expected at least one batch"),
    ):
        metric.compute()
    metric.update(*samples())
    (kept,) = map(weakref.ref, metric.features)
    metric.reset()
    assert kept() is None
