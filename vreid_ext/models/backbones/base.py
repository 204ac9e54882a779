"""The type of all backbones."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import nn


class Backbone(nn.Sequential):
    """Network that maps images (N,3,h,w) to feature maps (N, out_channels, H, W).

    The parameters of `original` have the names of the package that the network comes from, so the state dicts
    of that package can be loaded.

    Args:
        layers: the layers by name; they are applied one after the other.
        out_channels: number of channels of the maps.
        split_after: name of the layer after which STAL splits the backbone; None if it cannot be split. A
            layer within the only one has a name such as "features.13".

    Attributes:
        out_channels, split_after: the arguments.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], out_channels: int, split_after: str | None = None
    ) -> None:
        super().__init__(OrderedDict(layers))
        self.out_channels, self.split_after = out_channels, split_after

    @property
    def original(self) -> nn.Module:
        """The module whose parameters have the names of the package that the network comes from."""
        return self

    def depths(self) -> dict[str, int]:
        """The depth of each parameter by name: 0 for those of the first layer (`Optim.layer_decay`)."""
        with_parameters = [
            name for name, layer in self.named_children() if any(True for _ in layer.parameters())
        ]
        return {name: with_parameters.index(name.partition(".")[0]) for name, _ in self.named_parameters()}
