"""Padding frames in training: no model's batch statistics, output or gradient depends on them."""

import pytest
import torch
from torch import nn

from vreid_ext.models import build_model
from vreid_ext.nn.frames import each_frame

MODELS = {
    "sta": {"pooling": "sta", "regularizer": False, "last_stride": 1},
    "average": {"pooling": "avg"},
    "drsta": {"regions": 2, "hidden": 4},
    "drsta released": {"regions": 2, "form": "released", "enhance": "none"},
    "asta": {"input_size": (64, 32)},
    "stal": {"split": "layer1", "part_dim": 8},
}


@pytest.mark.parametrize("name", MODELS)
def test_what_they_show_does_not_matter(name):
    torch.manual_seed(0)
    kind = {"average": "sta"}.get(name, name.split()[0])
    model = build_model(kind, 2, backbone="resnet18", **MODELS[name]).train()
    start = {key: value.clone() for key, value in model.state_dict().items()}
    clips, valid = torch.randn(4, 3, 3, 64, 32), torch.ones(4, 3, dtype=torch.bool)
    valid[1, 2] = valid[2, 1:] = False
    inputs = {"label": torch.tensor([0, 0, 1, 1])} if kind == "stal" else {}

    results = []
    for shown in (0.0, 100.0):
        model.load_state_dict(start)
        model.zero_grad()
        padded = torch.where(valid[:, :, None, None, None], clips, shown)
        output = model(padded, valid, **inputs)
        terms = [output.feature.square().mean(), output.logits.square().mean(), *output.extras.values()]
        torch.stack(terms).sum().backward()
        grads = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
        buffers = {key: value.clone() for key, value in model.named_buffers()}
        results.append((output.feature.detach(), grads, buffers))
    for first, second in zip(results[0][1:], results[1][1:], strict=True):
        assert first.keys() == second.keys()
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, rtol=1e-5, atol=1e-6, msg=key)
    torch.testing.assert_close(*(result[0] for result in results))


def test_statistics_are_those_of_the_frames_that_count():
    norm = nn.BatchNorm2d(2, momentum=None)
    x, valid = torch.randn(2, 3, 2, 4, 4), torch.tensor([[True, True, False], [True, False, False]])
    result = each_frame(norm, x, valid)
    torch.testing.assert_close(norm.running_mean, x[valid].mean((0, 2, 3)))
    assert (result[~valid] == 0).all()
    norm.eval()
    torch.testing.assert_close(each_frame(norm, x, valid), norm(x.flatten(0, 1)).unflatten(0, (2, 3)))


def test_a_batch_of_padding_alone_is_an_error():
    with pytest.raises(ValueError, match=r"^valid: expected at least one valid frame"):
        each_frame(nn.BatchNorm2d(1), torch.zeros(1, 2, 1, 2, 2), torch.zeros(1, 2, dtype=torch.bool))
