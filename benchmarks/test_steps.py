"""Whole steps on a CPU, from the image files on: training and extraction, compared with torchreid's engine
and with a plain PyTorch loop. All train the same network on the same tracklets in the same batches.

`--root DIR` takes a data set in the layout of MARS instead of rendered people.
"""

from copy import deepcopy

import pytest
import torch
from baselines_steps import (
    PlainClips,
    plain_extraction,
    plain_training,
    torchreid_clips,
    torchreid_engine,
    torchreid_extraction,
)
from steps import CLIPS, FRAMES, K, P, Steps, recipe_of

from vreid_ext.data.synth import synthesize

SMALL, LARGE = (128, 64), (256, 128)
NETWORKS = [("resnet50", SMALL), ("mobilenet_v2", SMALL), ("osnet_x1_0", SMALL), ("resnet50", LARGE)]


@pytest.fixture(scope="module")
def root(request, tmp_path_factory):
    given = request.config.getoption("--root")
    return given or synthesize(
        tmp_path_factory.mktemp("steps") / "people", ids=4 * P, cameras=K, tracklets=1, frames=8
    )


def case(what, backbone, size):
    return f"{what} {backbone} {size[0]} x {size[1]}, {CLIPS} clips of {FRAMES}"


def eager(model):
    """A copy of a model whose ops are plain torch."""
    model = deepcopy(model)
    for module in model.modules():
        if hasattr(module, "backend"):
            module.backend = "reference"
    return model


@pytest.fixture(params=NETWORKS, ids=[f"{backbone}-{size[0]}" for backbone, size in NETWORKS])
def network(request):
    return request.param


@pytest.fixture
def steps_of(root, tmp_path, network):
    """A function that prepares a run of STA with a pooling."""
    opened = []

    def prepare(pooling):
        opened.append(Steps(recipe_of(root, *network, pooling), tmp_path / "run"))
        return opened[-1]

    yield prepare
    for each in opened:
        each.close()


def test_image_model_training(side_by_side, steps_of, tmp_path, network):
    """Every frame is a sample, as in torchreid's engine."""
    steps = steps_of("frame")
    clips = (steps.data.train, FRAMES, network[1], steps.data.labels, True)
    providers = {
        "ours": steps.train,
        "plain loop": plain_training(deepcopy(steps.model), PlainClips(*clips), steps.batches),
    }
    if (theirs := torchreid_clips(*clips)) is not None:
        engine = torchreid_engine(deepcopy(steps.model), theirs, steps.batches, tmp_path / "torchreid")
        providers["torchreid"] = lambda: engine.train(print_freq=1000)
    providers["ours again"] = steps.train
    side_by_side(case("train image model", *network), providers, group="steps", long=rounds_of(network))


def test_image_model_extraction(side_by_side, steps_of, tmp_path, network):
    steps = steps_of("frame")
    clips = (steps.data.train, FRAMES, network[1], steps.data.labels, False)
    providers = {
        "ours": steps.extract,
        "plain loop": plain_extraction(steps.model, PlainClips(*clips), steps.batches),
    }
    if (theirs := torchreid_clips(*clips)) is not None:
        engine = torchreid_engine(steps.model, theirs, steps.batches, tmp_path / "torchreid")
        providers["torchreid"] = torchreid_extraction(engine, theirs, steps.batches)
    agree(providers)
    side_by_side(case("extract image model", *network), providers, group="steps", long=rounds_of(network))


def test_sta_training(side_by_side, steps_of, network):
    """STA with its attention and regularizer; the plain loop has the eager head."""
    steps = steps_of("sta")
    clips = PlainClips(steps.data.train, FRAMES, network[1], steps.data.labels, True)
    providers = {"ours": steps.train, "plain loop": plain_training(eager(steps.model), clips, steps.batches)}
    side_by_side(
        case("train STA", *network), providers | steps.parts(), group="steps", long=rounds_of(network)
    )


def test_sta_extraction(side_by_side, steps_of, network):
    steps = steps_of("sta")
    clips = PlainClips(steps.data.train, FRAMES, network[1], steps.data.labels, False)
    plain = plain_extraction(eager(steps.model), clips, steps.batches)
    providers = {"ours": steps.extract, "plain loop": plain}
    agree(providers)
    side_by_side(case("extract STA", *network), providers, group="steps", long=rounds_of(network))


@pytest.mark.parametrize(
    "network", NETWORKS[:3], ids=[backbone for backbone, _ in NETWORKS[:3]], indirect=True
)
def test_precision(side_by_side, root, tmp_path, network):
    """Training steps of STA in other memory formats and precisions, with the features of the same weights."""
    kinds = {
        "ours": {},
        "channels_last": {"channels_last": True},
        "bfloat16": {"precision": "bf16"},
        "bfloat16, channels_last": {"precision": "bf16", "channels_last": True},
    }
    steps = {
        name: Steps(recipe_of(root, *network, "sta", **options), tmp_path / name)
        for name, options in kinds.items()
    }
    features = {name: features_of(each, "bf16" in kinds[name].values()) for name, each in steps.items()}
    cosines = {
        name: {"cosine": float(torch.cosine_similarity(each, features["ours"]).min())}
        for name, each in features.items()
    }
    side_by_side(
        case("train STA", *network) + ", precision",
        {name: each.train for name, each in steps.items()},
        group="steps",
        long=5,
        extra=cosines,
    )
    for each in steps.values():
        each.close()


@torch.no_grad()
def features_of(steps, half):
    """Features of the first batch in evaluation mode."""
    clips = torch.stack([steps.clip(index) for index in steps.batches[0]])
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        return steps.model.eval()(clips).float()


def rounds_of(network):
    return 7 if network[1] == SMALL else 3


def agree(extraction):
    """All return similar features. They differ in the rounding of resized pixels; torchreid takes the frames
    0, 2, 4 and 6 of 8, the others 0, 2, 5 and 7."""
    features = {name: torch.nn.functional.normalize(run(), dim=1) for name, run in extraction.items()}
    for name, each in features.items():
        assert (each * features["ours"]).sum(1).min() > 0.99, name
