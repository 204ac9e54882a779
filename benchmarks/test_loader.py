"""Frames per second of the loader, compared with torchreid's, with a plain one, and with the decoders alone.

The JPEG files have quality 90 and the sizes of MARS, of a usual detector and of a person close to the camera.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from baselines_steps import PlainClips, torchreid_clips
from PIL import Image
from torch.utils.data import DataLoader

from vreid_ext.data import ClipDataset, build_dataset
from vreid_ext.data.clips import transforms
from vreid_ext.data.clips.images import read_image, stack_images
from vreid_ext.data.synth import synthesize
from vreid_ext.engine.loader import load

SIZES = [(128, 64), (256, 128), (960, 480)]  # (height, width)
TARGETS = [(128, 64), (256, 128)]
CLIPS, FRAMES = 8, 8


@pytest.fixture(scope="module", params=SIZES, ids=[f"{h}x{w}" for h, w in SIZES])
def stored(request, tmp_path_factory):
    """The size of the images, and tracklets of them."""
    folder = tmp_path_factory.mktemp("frames") / "people"
    synthesize(folder, ids=CLIPS, cameras=2, tracklets=1, frames=FRAMES, size=request.param)
    data = build_dataset("mars", folder)
    for tracklet in data.train:
        for path in tracklet.paths:
            Image.open(path).convert("RGB").save(path, quality=90)
    return request.param, [replace(each, joints=None) for each in data.train]


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
@pytest.mark.parametrize("target", TARGETS, ids=[f"to-{h}x{w}" for h, w in TARGETS])
def test_loader(side_by_side, stored, target):
    size, tracklets = stored
    batches = [list(range(len(tracklets)))]
    ours = ClipDataset(tracklets, FRAMES, "evenly", transforms.test_transform(*target))
    plain = PlainClips(tracklets, FRAMES, target, {}, train=False)
    paths = [path for tracklet in tracklets for path in tracklet.paths]

    def pillow():
        for path in paths:
            Image.open(path).convert("RGB").load()

    def decode_jpeg():
        for path in paths:
            torchvision.io.decode_jpeg(torchvision.io.read_file(path))

    resize = transforms.Resize(target)

    def reduced():
        """Pillow decodes at 1/2, 1/4 or 1/8 of the size, but not below the target; then the same resize."""
        images = []
        for path in paths:
            with Image.open(path) as image:
                image.draft(None, target[::-1])
                images.append(stack_images([torch.from_numpy(np.array(image)).permute(2, 0, 1)]))
        return torch.cat([resize(image) for image in images])

    if min(size[0] // target[0], size[1] // target[1]) > 1:
        difference = (reduced().float() - torch.cat([resize(read_image(path)[None]) for path in paths])).abs()
        print(f"reduced size: mean difference {difference.mean():.3f}, at most {difference.max():.0f} of 255")

    providers = {
        "ours": lambda: list(load(ours, batches, 0)),
        "plain loader": lambda: list(DataLoader(plain, batch_sampler=batches)),
        "Pillow alone": pillow,
        "decode_jpeg alone": decode_jpeg,
        "decoded at reduced size": reduced,
    }
    theirs = torchreid_clips(tracklets, FRAMES, target, {}, train=False)
    if theirs is not None:
        providers["torchreid"] = lambda: list(DataLoader(theirs, batch_sampler=batches))
        (batch,) = providers["torchreid"]()
        assert (batch["img"] - providers["ours"]()[0]["clip"]).abs().mean() < 0.02
    side_by_side(
        f"load {len(paths)} frames of {size[0]} x {size[1]} to {target[0]} x {target[1]}",
        providers,
        group="loader",
    )
