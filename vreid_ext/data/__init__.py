"""Tracklet data sets, clip sampling, clip-consistent transforms and identity-balanced batches.

Requires the extra `train`: pip install 'vreid-ext[train]'.
"""

from vreid_ext.attributes import attribute_labels, attribute_sizes
from vreid_ext.data.clips.corruption import Corruption
from vreid_ext.data.clips.dataset import ClipDataset
from vreid_ext.data.clips.images import read_clip, read_image
from vreid_ext.data.clips.occlusion import BlackBox
from vreid_ext.data.clips.samplers import JointBatchSampler, PKBatchSampler
from vreid_ext.data.clips.sampling import Sampling, dense_clips, sample_clip
from vreid_ext.data.clips.transforms import test_transform, train_transform
from vreid_ext.data.joint import join_training, set_names
from vreid_ext.data.labels import relabeled, write_labels
from vreid_ext.data.pose.joints import JOINTS, attach_joints
from vreid_ext.data.readers.ag_vpreid import ag_vpreid
from vreid_ext.data.readers.attributes import read_attributes
from vreid_ext.data.readers.ccvid import ccvid
from vreid_ext.data.readers.dukev import dukev
from vreid_ext.data.readers.image_sets import cuhk03, market1501
from vreid_ext.data.readers.lsvid import lsvid
from vreid_ext.data.readers.mars import g2a_vreid, mars
from vreid_ext.data.readers.mevid import mevid
from vreid_ext.data.readers.tracklet_folder import tracklet_folder
from vreid_ext.data.readers.two_cameras import ilids, prid
from vreid_ext.data.readers.vveri901 import vveri901
from vreid_ext.data.records import DatasetError, Tracklet, TrackletDataset
from vreid_ext.data.registry import build_dataset, dataset_names, register_dataset

__all__ = [
    "JOINTS",
    "BlackBox",
    "ClipDataset",
    "Corruption",
    "DatasetError",
    "JointBatchSampler",
    "PKBatchSampler",
    "Sampling",
    "Tracklet",
    "TrackletDataset",
    "ag_vpreid",
    "attach_joints",
    "attribute_labels",
    "attribute_sizes",
    "build_dataset",
    "ccvid",
    "cuhk03",
    "dataset_names",
    "dense_clips",
    "dukev",
    "g2a_vreid",
    "ilids",
    "join_training",
    "lsvid",
    "market1501",
    "mars",
    "mevid",
    "prid",
    "read_attributes",
    "read_clip",
    "read_image",
    "register_dataset",
    "relabeled",
    "sample_clip",
    "set_names",
    "test_transform",
    "tracklet_folder",
    "train_transform",
    "vveri901",
    "write_labels",
]
