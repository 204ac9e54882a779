"""Tracklet data sets, clip sampling, clip-consistent transforms and identity-balanced batches.

Needs the extra `train`: pip install 'vreid-ext[train]'.
"""

from .attributes import attribute_labels, attribute_sizes, one_hot, read_attributes
from .clip_dataset import ClipDataset
from .clips import Sampling, dense_clips, sample_clip
from .dukev import dukev
from .image_sets import cuhk03, market1501
from .images import read_clip, read_image
from .joint import join_training, set_names
from .joints import JOINTS, attach_joints
from .mars import mars
from .occlusion import BlackBox
from .records import DatasetError, Tracklet, TrackletDataset
from .registry import build_dataset, dataset_names, register_dataset
from .samplers import JointBatchSampler, PKBatchSampler
from .tracklet_folder import tracklet_folder
from .transforms import test_transform, train_transform
from .two_cameras import ilids, prid

__all__ = [
    "JOINTS",
    "BlackBox",
    "ClipDataset",
    "DatasetError",
    "JointBatchSampler",
    "PKBatchSampler",
    "Sampling",
    "Tracklet",
    "TrackletDataset",
    "attach_joints",
    "attribute_labels",
    "attribute_sizes",
    "build_dataset",
    "cuhk03",
    "dataset_names",
    "dense_clips",
    "dukev",
    "ilids",
    "join_training",
    "market1501",
    "mars",
    "one_hot",
    "prid",
    "read_attributes",
    "read_clip",
    "read_image",
    "register_dataset",
    "sample_clip",
    "set_names",
    "test_transform",
    "tracklet_folder",
    "train_transform",
]
