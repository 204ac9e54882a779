"""Layers after the pooled feature: the batch normalization of BNNeck, and the classifier."""

from torch import nn


def bn_neck(features: int) -> nn.BatchNorm1d:
    """Batch normalization between feature and classifier with a bias frozen at 0 (Luo et al., CVPRW 2019)."""
    neck = nn.BatchNorm1d(features)
    neck.bias.requires_grad_(False)
    return neck


def classifier(features: int, num_classes: int, *, bias: bool = False) -> nn.Linear:
    """A linear classifier with weights initialized from N(0, 0.001^2) and the bias, if any, to zero."""
    layer = nn.Linear(features, num_classes, bias=bias)
    nn.init.normal_(layer.weight, std=0.001)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
