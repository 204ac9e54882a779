"""Batch normalisation over all processes."""

import pytest
import torch
from torch import nn

from vreid_ext.engine.train import synchronise
from vreid_ext.models import build_model


def test_layers_are_replaced_and_tensors_kept():
    model = build_model("sta", 2, backbone="resnet18")
    before = dict(model.named_parameters())
    names = model.state_dict().keys()
    norms = sum(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in model.modules())
    model = synchronise(model, 2, torch.device("cuda"))
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in model.modules()) == norms > 0
    assert model.state_dict().keys() == names
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_one_process_keeps_its_layers_and_several_need_gpus():
    model = build_model("sta", 2, backbone="resnet18")
    assert synchronise(model, 1, torch.device("cpu")) is model
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    with pytest.raises(ValueError, match=r"^train\.sync_bn: expected one GPU for each of 2 processes"):
        synchronise(model, 2, torch.device("cpu"))
