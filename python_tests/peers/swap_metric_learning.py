"""A pytest plugin: pytorch-metric-learning with our classes in the place of its own."""

from pytorch_metric_learning import losses, miners

from vreid_ext.losses import metric_learning as ours

losses.TripletMarginLoss = ours.TripletMarginLoss
miners.BatchHardMiner = ours.BatchHardMiner
