"""The rows of docs/accuracy.md: recipes, settings and the row that each is compared with."""

from dataclasses import dataclass
from pathlib import Path

import frame_or_clip  # noqa: F401  registers the model of recipes/frame_or_clip.yaml


@dataclass(frozen=True)
class Row:
    """recipe, overrides: the recipe, and the settings in addition to `COMMON`.

    baseline: the row that its system is compared with, as in the paper.
    trained: the row whose models are evaluated with the settings `overrides`; None: this row is trained.
    attributes: the training needs a table of attributes.
    pretrained: the training starts from the network of `PRETRAINING` instead of the ImageNet weights.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    baseline: str | None = None
    trained: str | None = None
    attributes: bool = False
    pretrained: bool = False

    @property
    def source(self) -> str:
        """The name of a recipe of the package, or the path of a recipe of this folder."""
        return str(Path(__file__).parent / self.recipe) if self.recipe.endswith(".yaml") else self.recipe


def _frozen(module: str) -> str:
    """The setting that keeps the first four blocks of MobileNetV2, which `module` contains, fixed."""
    blocks = ", ".join(f"{module}.features.{number}" for number in range(4))
    return f"stages=[{{epochs: 100, freeze: [{blocks}]}}]"


def _fast(*modules: str) -> str:
    """The setting that gives new layers ten times the learning rate."""
    return f"optim.groups=[{{parts: [{', '.join(modules)}], lr_factor: 10}}]"


# What two CPU cores allow instead of the settings of the papers, the same for all rows. The first blocks of
# the network keep their ImageNet weights.
COMMON = [
    "model.backbone=mobilenet_v2",
    "input.height=128",
    "input.width=64",
    "input.sampling=restricted",
    "batch.p=8",
    "batch.k=2",
    _fast("classifier"),
    "schedule.name=cosine",
    "schedule.milestones=[]",
    "schedule.warmup_epochs=1",
    _frozen("backbone"),
    "train.epochs=24",
    "train.channels_last=true",
    "train.checkpoint_every=3",
    "train.workers=0",
    "eval.sampling=evenly",
    "eval.metric=cosine",
]

# The settings of STA for the other systems.
_ADAM = ("optim.name=adam", "optim.lr=3.0e-4", "optim.nesterov=false")
_FOUR_FRAMES = ("input.frames=4", "eval.frames=[4]")

_STA = {
    "frame": Row("sta_mars_triplet", ("model.neck=bn",)),
    "average": Row("sta_mars_average", ("model.neck=bn",)),
    "attention": Row("sta_mars_attention", ("model.neck=bn",), "average"),
    "fusion": Row("sta_mars_fusion", ("model.neck=bn",), "average"),
    "sta": Row("sta_mars", ("model.neck=bn", "loss.inter_frame=100"), "average"),
}

# Losses as means instead of sums, and the hardest triplets, as for the other systems. The boxes are those of
# a standing person. The part networks are the last two blocks of the network.
_STAL_TRAINING = (
    *_ADAM,
    *_FOUR_FRAMES,
    _frozen("low"),
    _fast("classifier", "part_classifiers"),
    "model.split=features.16",
    "model.part_dim=256",
    "model.roi_size=3",
    "input.flip=0.5",
    "loss.mining=hardest",
    "loss.softmax=1",
    "loss.margin=0.3",
    "loss.part_softmax=0.5",
)


def _stal(*overrides: str) -> Row:
    """An evaluation of the models of `stal`."""
    return Row("stal_mars", overrides, "stal_baseline", trained="stal")


_STAL = {
    "stal": Row("stal_mars", _STAL_TRAINING, "stal_baseline"),
    "stal_baseline": Row("stal_mars", ("model.test_attention=none",), trained="stal"),
    "stal_tan": _stal("model.test_attention=temporal"),
    "stal_san": _stal("model.test_attention=spatial"),
    "stal_global": _stal("model.test_branches=global"),
    "stal_local": _stal("model.test_branches=local"),
}

# Maps of 8 x 4, as in the paper. Without the BN neck, the OIM loss converges to one feature for all persons.
_DRSTA_TRAINING = (*_ADAM, *_FOUR_FRAMES, _frozen("backbone"), "model.last_stride=1", "model.neck=bn")

_DRSTA = {
    "drsta_baseline": Row(
        "drsta_mars",
        (*_DRSTA_TRAINING, "model.spatial=false", "model.temporal=mean", "loss.diversity=0"),
    ),
    "drsta": Row("drsta_mars", _DRSTA_TRAINING, "drsta_baseline"),
}

# Four tracklets of a person, because AITL compares the samples of a person with each other. With fewer than
# eight persons per batch, the softmax loss grew above that of a uniform prediction. Half the epochs give the
# same number of clips as in the other rows. The gallery is that of the other rows.
_ASTA_TRAINING = (
    "dataset.options.gallery=with_query",
    "eval.frames=[4]",
    "batch.k=4",
    "train.epochs=12",
)

_ASTA = {
    "asta_baseline": Row("asta_mars_baseline", _ASTA_TRAINING),
    "asta": Row("asta_mars", _ASTA_TRAINING, "asta_baseline", attributes=True),
}

_PARTS_TRAINING = ("model.sharpness=0", _fast("classifier", "part_classifiers"))

_PARTS = {
    "consensus": Row("consensus_mars", ("model.pooling=consensus",), "frame", trained="frame"),
    "parts": Row("part_consensus_mars", _PARTS_TRAINING, "frame"),
    "part_consensus": Row("part_consensus_mars", ("model.sharpness=5",), "frame", trained="parts"),
}


# The settings of `parts` on CUHK03, whose persons are not those of MARS: the images of a person and a camera
# are a tracklet. An epoch has 170 steps.
PRETRAINING = Row(
    "part_consensus_mars",
    (
        *_PARTS_TRAINING,
        "dataset.name=cuhk03",
        "dataset.options={gallery: null, protocol: classic, images: camera}",
        "train.epochs=12",
    ),
)


def _trick(*overrides: str, **fields: bool) -> Row:
    """`parts` with one more setting in training."""
    return Row("part_consensus_mars", (*_PARTS_TRAINING, *overrides), "parts", **fields)


# What the field does in training.
_TRICKS = {
    "smoothing": _trick("loss.label_smoothing=0.1"),
    "erasing": _trick("input.erase=0.5", "input.per_frame=true"),
    "cuhk03": _trick(pretrained=True),
}


def _mixed(classified: str, mined: str) -> Row:
    return Row(
        "recipes/frame_or_clip.yaml",
        (f"model.classified={classified}", f"model.mined={mined}"),
        "average",
    )


# Between `frame` and `average`: which samples the cross-entropy loss and the triplet loss have.
_SAMPLES = {
    "frame_clip": _mixed("frame", "clip"),
    "clip_frame": _mixed("clip", "frame"),
    "frame_slot": _mixed("frame", "slot"),
}


def _test(*overrides: str) -> Row:
    """Another test of the models of `parts`, with consensus."""
    return Row("part_consensus_mars", ("model.sharpness=5", *overrides), "part_consensus", trained="parts")


_EIGHT, _FLIP, _RERANK = "eval.frames=[8]", "eval.flip=true", "eval.rerank=true"
_ALL_TESTS = (_EIGHT, _FLIP, _RERANK)

# What the field does in the test to get better figures from the same model.
_TESTS = {
    "eight_frames": _test(_EIGHT),
    "flip": _test(_FLIP),
    "rerank": _test(_RERANK),
    "all_tests": _test(*_ALL_TESTS),
    "frame_rerank": Row("sta_mars_triplet", (_RERANK,), "frame", trained="frame"),
    "frame_all_tests": Row("sta_mars_triplet", _ALL_TESTS, "frame", trained="frame"),
    "consensus_all_tests": Row(
        "consensus_mars", ("model.pooling=consensus", *_ALL_TESTS), "consensus", trained="frame"
    ),
}

# The tables of docs/accuracy.md.
GROUPS = {
    "sta": _STA,
    "stal": _STAL,
    "drsta": _DRSTA,
    "asta": _ASTA,
    "parts": _PARTS,
    "tests": _TESTS,
    "tricks": _TRICKS,
    "samples": _SAMPLES,
}
ROWS = {name: row for group in GROUPS.values() for name, row in group.items()}
