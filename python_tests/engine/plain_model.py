"""A model without batch statistics, so that the losses of a batch do not depend on how processes share it.

As a script: train the recipe of a YAML file into a folder, under `torchrun` or alone.
"""

import sys

from torch import distributed, nn

from vreid_ext import engine
from vreid_ext.models import TrainingOutput, register_model


@register_model("plain")
class Plain(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 8, 2))
        self.classifier = nn.Linear(8, num_classes)

    def forward(self, clips, valid=None):
        feature = self.embed(clips.flatten(0, 1)).mean((2, 3)).unflatten(0, clips.shape[:2]).mean(1)
        return TrainingOutput(self.classifier(feature), feature, {}) if self.training else feature


if __name__ == "__main__":
    engine.train(engine.load_recipe(sys.argv[1]), sys.argv[2], quiet=True)
    if distributed.is_initialized():
        distributed.destroy_process_group()
