import pytest
import torch

from vreid_ext.losses import CrossBatchMemory, TripletLoss


def batches(count, n=8):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, 5, generator=generator), torch.randint(3, (n,), generator=generator))
        for _ in range(count)
    ]


@pytest.mark.parametrize("margin", [0.3, "soft"])
def test_first_batch_is_the_plain_loss_and_later_ones_see_all_before(margin):
    (x0, y0), (x1, y1), (x2, y2) = batches(3)
    loss = CrossBatchMemory(100, margin)
    torch.testing.assert_close(loss(x0, y0), TripletLoss(margin)(x0, y0))
    loss(x1, y1)
    # As one batch, of which the last eight rows are the anchors.
    x, y = torch.cat([x0, x1, x2]), torch.cat([y0, y1, y2])
    distance = torch.cdist(x, x)[16:]
    same, own = y[16:, None] == y, torch.eye(24, dtype=torch.bool)[16:]
    gap = distance.masked_fill(~same | own, 0).amax(1) - distance.masked_fill(same, torch.inf).amin(1)
    wanted = torch.nn.functional.softplus(gap) if margin == "soft" else (margin + gap).relu()
    torch.testing.assert_close(loss(x2, y2), wanted.mean())


def test_an_anchor_alone_in_its_batch_finds_its_positive_in_memory():
    loss = CrossBatchMemory(10, 1.0)
    assert loss(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])) == 0
    x = torch.tensor([[3.0]], requires_grad=True)
    value = loss(x, torch.tensor([1]))  # positive at 1, negative at 0
    value.backward()
    assert value == 1 + 2 - 3
    assert x.grad.item() == 0


def test_the_oldest_are_forgotten():
    (x0, y0), (x1, y1), _ = batches(3)
    loss = CrossBatchMemory(8)
    loss(x0, y0)
    loss(x1, y1)
    fresh = CrossBatchMemory(8)
    fresh(x1, y1)
    x, y = batches(1)[0]
    torch.testing.assert_close(loss(x, y), fresh(x, y))
    loss.clear()
    torch.testing.assert_close(loss(x, y), TripletLoss()(x, y))
    assert not loss.state_dict()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_a_row_that_is_not_finite_is_not_remembered(bad):
    (x0, y0), (x1, y1), (x2, y2) = batches(3)
    loss, spared = CrossBatchMemory(100), CrossBatchMemory(100)
    for memory in (loss, spared):
        memory(x0, y0)
    broken = x1.clone()
    broken[3, 2] = bad
    with pytest.raises(ValueError, match="in row 3"):  # on a CPU; nothing of the batch is kept
        loss(broken, y1)
    torch.testing.assert_close(loss(x2, y2), spared(x2, y2))
    loss._remember(broken, y1)  # as on a GPU, where it is no error
    others = torch.arange(8) != 3
    spared._remember(x1[others], y1[others])
    torch.testing.assert_close(loss(x2, y2), spared(x2, y2))


def test_bad_size():
    with pytest.raises(ValueError, match=r"size: expected .*, got 0"):
        CrossBatchMemory(0)
