"""OIM against its definition, its tables, and the same tables on two processes."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from vreid_ext.losses import OIMLoss


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_is_cross_entropy_over_the_scaled_similarities():
    loss = OIMLoss(8, 5, scalar=10)
    loss.table.copy_(unit(5, 8))
    before = loss.table.clone()
    x, targets = unit(3, 8, seed=1).requires_grad_(), torch.tensor([4, 0, 2])
    value = loss(x, targets)
    expected = F.cross_entropy(10 * x @ before.T, targets)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, x)[0], torch.autograd.grad(expected, x)[0]
    )  # the update in between leaves backward alone


def test_rows_move_one_sample_after_another_and_stay_normalised():
    loss = OIMLoss(4, 3, momentum=0.75)
    x, targets = unit(4, 4), torch.tensor([1, 2, 1, 1])
    expected = torch.zeros(3, 4)
    for row, label in zip(x, targets.tolist(), strict=True):
        expected[label] = F.normalize(0.75 * expected[label] + 0.25 * row, dim=0)
    loss(x, targets)
    torch.testing.assert_close(loss.table, expected)
    assert loss.table[0].abs().sum() == 0
    torch.testing.assert_close(loss.table[1:].norm(dim=1), torch.ones(2))


def test_evaluation_leaves_the_tables_alone():
    loss = OIMLoss(4, 3, queue=4).eval()
    loss(unit(2, 4), torch.tensor([1, -1]))
    assert loss.table.abs().sum() == loss.queue.abs().sum() == loss.head == 0


def test_the_queue_goes_round_and_holds_negatives():
    loss = OIMLoss(4, 2, scalar=5, queue=3)
    x = unit(5, 4)
    loss(x[:2], torch.tensor([-1, -1]))
    loss(x[2:4], torch.tensor([-1, -1]))
    torch.testing.assert_close(loss.queue, x[[3, 1, 2]])
    assert loss.head == 1
    value = loss.eval()(x[4:], torch.tensor([1]))
    logits = 5 * x[4] @ torch.cat([loss.table, loss.queue]).T
    torch.testing.assert_close(value, F.cross_entropy(logits[None], torch.tensor([1])))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_a_sample_that_is_not_finite_spares_the_tables(bad):
    x = unit(4, 4)
    targets = torch.tensor([1, 2, -1, -1])
    loss, spared = OIMLoss(4, 3, queue=4), OIMLoss(4, 3, queue=4)
    for row in (0, 2):
        x[row, 1] = bad
    x.requires_grad_()
    value = loss(x, targets)
    spared(x[1::2].detach(), targets[1::2])
    for name in ("table", "queue", "head"):
        assert torch.equal(getattr(loss, name), getattr(spared, name)), name
    assert loss.table[2].norm() == pytest.approx(1)
    assert loss(unit(4, 4), targets).isfinite()
    if bad != 1e30:  # whose similarity to a table of zeros is zero
        assert value.isnan()


def test_under_a_scaler_a_step_that_overflows_is_skipped_and_training_goes_on():
    x = torch.nn.Parameter(unit(2, 4))
    optimizer, scaler = torch.optim.SGD([x], lr=0.5), torch.amp.GradScaler("cpu", init_scale=4.0)
    loss = OIMLoss(4, 3, scalar=1)
    loss.table.copy_(unit(3, 4, seed=1))
    for step in range(3):
        before = x.detach().clone()
        optimizer.zero_grad()
        factor = torch.inf if step == 1 else 1
        scaler.scale(loss(x * factor, torch.tensor([0, 2]))).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(x, before) == (step == 1)
    assert scaler.get_scale() == 2
    assert x.isfinite().all()
    assert loss.table.isfinite().all()


def test_a_table_in_half_precision_takes_features_beyond_its_range():
    loss = OIMLoss(4, 2, queue=2).half()
    loss(torch.full((2, 4), 1e6), torch.tensor([1, -1]))
    torch.testing.assert_close(loss.table[1], torch.full((4,), 0.5).half())
    torch.testing.assert_close(loss.queue[0], torch.full((4,), 0.5).half())


def test_without_a_labelled_sample_the_loss_is_zero_and_its_gradient_too():
    x = unit(2, 4).requires_grad_()
    value = OIMLoss(4, 2, queue=2)(x, torch.tensor([-1, -1]))
    value.backward()
    assert value == 0
    assert x.grad.abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precision(dtype):
    x, targets = unit(6, 16).to(dtype).requires_grad_(), torch.arange(6)
    loss, wide = OIMLoss(16, 6), OIMLoss(16, 6)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(x, targets)
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(value.float(), wide(x.float(), targets))
    assert loss.table.dtype == torch.float32


def test_training_pulls_people_apart():
    torch.manual_seed(0)
    x = torch.nn.Parameter(torch.randn(8, 6))
    targets, loss = torch.arange(8) // 2, OIMLoss(6, 4, scalar=10)
    optimizer = torch.optim.SGD([x], lr=0.5)
    values = []
    for _ in range(40):
        value = loss(F.normalize(x), targets)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.1 * values[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: OIMLoss(4, 3)(unit(2, 4), torch.tensor([0, 3])),
            ValueError,
            "targets: expected 0 to 2.*, got 3 in row 1",
        ),
        (
            lambda: OIMLoss(4, 3)(unit(2, 4), torch.tensor([0, -1])),
            ValueError,
            r"\(-1, an unlabeled person, needs a queue\), got -1",
        ),
        (lambda: OIMLoss(4, 3, queue=2)(unit(2, 4), torch.tensor([0, -2])), ValueError, "expected -1 to 2"),
        (
            lambda: OIMLoss(4, 3, queue=1)(unit(2, 4), torch.tensor([0, -1])),
            ValueError,
            "queue: expected at least 2 rows, the samples of the batch, got 1",
        ),
        (lambda: OIMLoss(5, 3)(unit(2, 4), torch.tensor([0, 1])), ValueError, "inputs: expected .*got D = 4"),
        (lambda: OIMLoss(4, 0), ValueError, "num_classes: expected .*got 0"),
        (lambda: OIMLoss(4, 2.0), TypeError, "num_classes: expected .*got float"),
        (lambda: OIMLoss(4, 2, scalar=0), ValueError, "scalar: expected .*got 0"),
        (lambda: OIMLoss(4, 2, momentum=1), ValueError, "momentum: expected .*got 1"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


TWO = """
import torch, torch.distributed as dist, torch.nn.functional as F
from vreid_ext.losses import OIMLoss

dist.init_process_group("gloo")
rank = dist.get_rank()
generator = torch.Generator().manual_seed(0)
shared, alone = OIMLoss(8, 6, queue=12), OIMLoss(8, 6, queue=12)
for step in range(3):
    x = F.normalize(torch.randn(8, 8, generator=generator))
    y = torch.tensor([0, 0, 3, -1, 3, 5, -1, 0]) if step else torch.tensor([1, 2, 3, 4, 5, 0, 1, 2])
    value = shared(x[4 * rank : 4 * rank + 4], y[4 * rank : 4 * rank + 4])
    logits = 30 * x @ torch.cat([alone.table, alone.queue]).T
    mine = slice(4 * rank, 4 * rank + 4)
    torch.testing.assert_close(value, F.cross_entropy(logits[mine], y[mine], ignore_index=-1))
    size, dist.get_world_size = dist.get_world_size, lambda: 1
    alone(x, y)
    dist.get_world_size = size
for name in ("table", "queue", "head"):
    assert torch.equal(getattr(shared, name), getattr(alone, name)), name
dist.destroy_process_group()
print("equal")
"""


def test_two_processes_hold_the_tables_of_one(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*command, str(tmp_path / "two.py")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("equal") == 2
