"""What the five papers state, transcribed from their text and tables: recipes are checked against it.

Pages are those printed in STA and ASTA, of the PDF in DRSTA; of STAL sections and tables are named. "code" is
the authors' public code, "ours" a choice that no source states and that a recipe's comment explains.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Stated(NamedTuple):
    """A recipe's key, the value it must have, and who says so."""

    key: str
    value: Any
    source: str


class Table(NamedTuple):
    """A table as printed.

    columns: for each data set the name of every figure, in the order of the numbers of a row.
    rows: label to numbers; None where the paper prints a dash.
    """

    page: str
    columns: dict[str, tuple[str, ...]]
    rows: dict[str, tuple[float | None, ...]]


_R4 = ("rank1", "rank5", "rank10", "mAP")
_R20 = ("rank1", "rank5", "rank20", "mAP")
_CMC = ("rank1", "rank5", "rank10", "rank20")
_BOTH = {"mars": _R4, "dukev": _R4}
_THREE = {"prid": ("rank1",), "ilids": ("rank1",), "mars": ("rank1", "mAP")}

TABLES = {
    "STA 1": Table(
        "p. 8291",
        _BOTH,
        {
            "Baseline": (74.5, 88.8, 91.8, 64.0, 79.1, 93.9, 96.0, 76.8),
            "Baseline + TL": (80.8, 92.1, 94.3, 74.0, 90.6, 95.8, 96.7, 89.7),
            "Baseline + TL + Avg": (82.5, 92.9, 94.9, 75.0, 91.8, 97.4, 98.0, 91.0),
            "Baseline + TL + STA": (84.8, 94.6, 96.2, 78.0, 93.3, 98.1, 98.6, 92.7),
            "Baseline + TL + STA + Fusion": (85.3, 95.1, 96.4, 79.1, 95.3, 98.1, 99.1, 93.9),
            "Baseline + TL + STA + Fusion + Reg": (86.3, 95.7, 97.1, 80.8, 96.2, 99.3, 99.6, 94.9),
        },
    ),
    "STA 2": Table(
        "p. 8291",
        _BOTH,
        {
            "N=2": (81.7, 93.8, 95.7, 75.7, 90.3, 97.6, 98.6, 89.0),
            "N=4": (86.3, 95.7, 97.1, 80.8, 96.2, 99.3, 99.6, 94.9),
            "N=6": (86.2, 95.7, 96.9, 81.0, 96.0, 99.4, 99.7, 95.0),
            "N=8": (86.2, 95.7, 97.1, 81.2, 96.0, 99.3, 99.6, 95.0),
        },
    ),
    "STA 3": Table(
        "p. 8292",
        _BOTH,
        {
            "K=2": (85.3, 95.1, 96.6, 80.3, 94.7, 99.0, 99.6, 93.8),
            "K=4": (86.3, 95.7, 97.1, 80.8, 96.2, 99.3, 99.6, 94.9),
            "K=8": (85.5, 95.3, 96.9, 80.4, 95.2, 99.1, 99.4, 93.8),
        },
    ),
    "STA 4": Table(
        "p. 8292",
        {"mars": _R20},
        {"STA": (86.3, 95.7, 98.1, 80.8), "STA + ReRank": (87.2, 96.2, 98.6, 87.7)},
    ),
    "STA 5": Table("p. 8292", {"dukev": _R20}, {"STA": (96.2, 99.3, 99.6, 94.9)}),
    "DRSTA 1": Table(
        "p. 7",
        _THREE,
        {
            "Baseline": (82.7, 61.2, 73.4, 58.1),
            "SpaAtn": (84.2, 64.9, 74.5, 59.3),
            "SpaAtn+Q'": (86.5, 64.5, 74.0, 58.2),
            "SpaAtn+Q": (86.7, 68.6, 77.0, 60.9),
            "SpaAtn+Q+MaxPool": (86.9, 68.2, 76.8, 60.5),
            "SpaAtn+Q+TemAtn": (88.4, 69.7, 77.1, 61.2),
            "SpaAtn+Q+TemAtn+Ind": (93.2, 80.2, 82.3, 65.8),
        },
    ),
    "DRSTA 2": Table(
        "p. 8",
        {"prid": ("rank1",), "ilids": ("rank1",), "mars": ("rank1",)},
        {
            "K=1": (86.2, 64.7, 76.0),
            "K=2": (83.4, 64.6, 75.7),
            "K=4": (86.9, 64.6, 77.2),
            "K=6": (88.4, 69.7, 77.1),
            "K=8": (88.0, 66.9, 76.7),
        },
    ),
    "STAL III": Table(
        "", {"ilids": _CMC}, {"STAL": (82.8, 95.3, 97.7, 98.8), "Baseline": (76.7, 93.5, 96.4, 98.5)}
    ),
    "STAL IV": Table(
        "", {"prid": _CMC}, {"STAL": (92.7, 98.8, 99.5, 100), "Baseline": (90.3, 98.7, 99.6, 99.6)}
    ),
    "STAL V": Table(
        "",
        {"mars": _R20},
        {
            "STAL + ResNet50": (82.2, 92.8, 98.0, 73.5),
            "STAL": (80.3, 90.9, 96.5, 64.5),
            "Baseline": (71.5, 83.3, 89.9, 50.8),
        },
    ),
    "STAL VI": Table("", {"ilids": _CMC}, {"STAL": (63.7, 84.0, 92.8, 98.1)}),
    # The figures are those of the log of the authors' code for MARS.
    "TF-CLIP 1": Table("", {"mars": _R20}, {"TF-CLIP": (93.0, 97.9, 99.0, 89.4)}),
    "STAL VII": Table(
        "", {"ilids": _CMC}, {"STAL": (78.4, 96.2, 98.7, 99.6), "Baseline": (70.2, 89.9, 93.5, 97.9)}
    ),
    "ASTA 1": Table(
        "p. 9",
        {"mars": _R4},
        {
            "Baseline": (84.9, 95.2, 96.6, 79.4),
            "Baseline + ASTA": (86.6, 95.8, 97.2, 82.4),
            "Baseline + ITL": (86.7, 96.0, 97.4, 83.3),
            "Baseline + AITL": (87.4, 96.2, 97.6, 83.5),
            "Baseline + ASTA + AITL": (88.2, 96.5, 97.8, 84.4),
        },
    ),
    "ASTA 2": Table(
        "p. 10",
        {"mars": ("rank1", "mAP")},
        {
            "Re-ID": (84.9, 79.4),
            "ID-relevant": (87.1, 83.7),
            "ID-irrelevant": (86.6, 81.5),
            "Re-ID, ID-relevant": (87.9, 84.1),
            "Re-ID, ID-irrelevant": (86.7, 82.8),
            "ID-relevant, ID-irrelevant": (88.0, 84.2),
            "all": (88.2, 84.4),
        },
    ),
    "ASTA 3": Table(
        "p. 12",
        {"mars": _R20, "dukev": _R20},
        {"ours": (88.2, 96.5, 98.4, 84.4, 95.4, 99.6, 99.9, 95.3)},
    ),
    "ASTA 4": Table(
        "p. 14",
        {"mars": ("rank1", "mAP"), "dukev": ("rank1", "mAP")},
        {"Baseline": (84.9, 79.4, 92.2, 91.6), "proposed method": (88.2, 84.4, 95.4, 95.3)},
    ),
    "ASTA README": Table("code", {"mars": ("rank1", "mAP")}, {"batch 32": (86.5, 82.5)}),
}

# What holds for every recipe of a system, unless a row says otherwise.
COMMON = {
    "tfclip": [
        Stated("model.backbone", "timm:vit_base_patch16_clip_quickgelu_224.openai", "code: ViT-B-16"),
        Stated("model.weights", "imagenet", "ours: what timm lists for this name, OpenAI's weights"),
        Stated("model.projected", 512, "code: in_planes_proj"),
        Stated("input.frames", 8, "code: SEQ_LEN"),
        Stated("input.sampling", "restricted", "code: one random frame of each of 8 chunks"),
        Stated("input.height", 256, "code: SIZE_TRAIN"),
        Stated("input.width", 128, "code: SIZE_TRAIN"),
        Stated("input.flip", 0.5, "code: PROB"),
        Stated("input.erase", 0.5, "code: RE_PROB"),
        Stated("batch.p", 4, "code: IMS_PER_BATCH / NUM_INSTANCE"),
        Stated("batch.k", 4, "code: NUM_INSTANCE"),
        Stated("loss.softmax", 0.25, "code: ID_LOSS_WEIGHT"),
        Stated("loss.branch_softmax", 0.25, "code: ID_LOSS_WEIGHT"),
        Stated("loss.frame_softmax", 0.125, "code: divided by the 8 frames"),
        Stated("loss.memory", 1.0, "code: I2T_LOSS_WEIGHT"),
        Stated("loss.triplet", 1.0, "code: TRIPLET_LOSS_WEIGHT"),
        Stated("loss.branch_triplet", 1.0, "code: TRIPLET_LOSS_WEIGHT"),
        Stated("loss.margin", 0.3, "code: MARGIN"),
        Stated("loss.label_smoothing", 0.1, "code: CrossEntropyLabelSmooth"),
        Stated("optim.name", "adam", "code: OPTIMIZER_NAME"),
        Stated("optim.lr", 5e-6, "code: BASE_LR"),
        Stated("optim.weight_decay", 1e-4, "code: WEIGHT_DECAY"),
        Stated("schedule.milestones", [30, 50, 70], "code: STEPS"),
        Stated("schedule.gamma", 0.1, "code: GAMMA"),
        Stated("schedule.warmup_epochs", 10, "code: WARMUP_ITERS, which count epochs"),
        Stated("schedule.warmup_factor", 0.1, "code: WARMUP_FACTOR"),
        Stated("train.epochs", 80, "code: MAX_EPOCHS"),
        Stated("train.precision", "fp16", "code: autocast"),
        Stated("eval.sampling", "dense", "code: all clips of 8 frames"),
        Stated("eval.metric", "cosine", "code: FEAT_NORM"),
    ],
    "sta": [
        Stated("model.backbone", "resnet50", "p. 8290, Implementation Details"),
        Stated("model.weights", "imagenet", "p. 8290, Implementation Details"),
        Stated("model.blocks", 4, "p. 8290: K = 4"),
        Stated("model.pooling", "sta", "Table 1"),
        Stated("input.frames", 4, "p. 8290: N = 4, randomly selected"),
        Stated("input.sampling", "random", "p. 8290: N = 4, randomly selected"),
        Stated("input.height", 256, "p. 8291: maps of 16 x 8"),
        Stated("input.width", 128, "p. 8291: maps of 16 x 8"),
        Stated("input.flip", 0.5, "p. 8290: random horizontal flipping"),
        Stated("input.crop", 0, "p. 8290: only flipping and normalization"),
        Stated("input.erase", 0.0, "p. 8290: only flipping and normalization"),
        Stated("batch.p", 16, "p. 8290: P = 16"),
        Stated("batch.k", 4, "p. 8290: K = 4"),
        Stated("batch.accumulate", 1, "p. 8290: mini-batch of 64"),
        Stated("loss.softmax", 1.0, "p. 8290, Eq. 11"),
        Stated("loss.triplet", 1.0, "p. 8290, Eq. 11"),
        Stated("loss.margin", 0.3, "p. 8290"),
        Stated("loss.inter_frame", 400.0, "Eq. 7 gives no value; ours, chosen by its share of the gradient"),
        Stated("optim.name", "adam", "p. 8290"),
        Stated("optim.lr", 3e-4, "p. 8290: 0.0003"),
        Stated("optim.weight_decay", 5e-4, "p. 8290: 0.0005"),
        Stated("schedule.milestones", [200, 400], "p. 8290: 3e-5 and 3e-6 after 200 and 400 epochs"),
        Stated("schedule.gamma", 0.1, "p. 8290: 3e-5 and 3e-6 after 200 and 400 epochs"),
        Stated("train.epochs", 800, "p. 8290 (which also says 70)"),
        Stated("eval.sampling", "random", "p. 8290: N frames, randomly selected"),
        Stated("eval.frames", [4], "p. 8290: N = 4"),
        Stated("eval.rerank", False, "Table 1"),
    ],
    "drsta": [
        Stated("model.backbone", "resnet50", "Section 4.2, p. 7"),
        Stated("model.regions", 6, "Table 2, p. 8: the best K"),
        Stated("model.feature_dim", None, "Section 4.2, p. 7: 128, the model's default"),
        Stated("model.form", None, "Eq. 1 to 3: the model's default, the paper's"),
        Stated(
            "model.neck",
            "bn",
            "ours; open-reid has one with a learned bias, the paper none",
        ),
        Stated("input.frames", 6, "Section 4.2, p. 7: N = 6 chunks"),
        Stated("input.sampling", "restricted", "Section 4.2, p. 7: Restricted Random Sampling"),
        Stated("input.height", 256, "Section 4.2, p. 7"),
        Stated("input.width", 128, "Section 4.2, p. 7"),
        Stated("batch.p", 16, "ours"),
        Stated("batch.k", 2, "ours"),
        Stated("loss.softmax", 0.0, "Section 3.5: OIM only"),
        Stated("loss.triplet", 0.0, "Section 3.5: OIM only"),
        Stated("loss.oim", 1.0, "Section 3.5"),
        Stated("loss.oim_scalar", 30.0, "code: open-reid's example"),
        Stated("loss.oim_momentum", 0.5, "code: open-reid's example"),
        Stated(
            "loss.diversity",
            1.3,
            "Section 3.3 gives no value; ours, the gradient of the released code at the start",
        ),
        Stated("optim.name", "sgd", "Section 4.2, p. 7"),
        Stated("optim.lr", 0.1, "Section 4.2, p. 7"),
        Stated("optim.momentum", 0.9, "code: open-reid"),
        Stated("optim.nesterov", True, "code: open-reid"),
        Stated("optim.groups", [{"parts": ["backbone"], "lr_factor": 0.1}], "code: open-reid"),
        Stated("optim.weight_decay", 5e-4, "code: open-reid"),
        Stated("schedule.gamma", 0.1, "Section 4.2, p. 7: 0.1, then 0.01"),
        Stated("eval.sampling", "first_of_chunk", "Section 4.2, p. 7: first image of each segment"),
        Stated("eval.frames", [6], "Section 4.2, p. 7: N = 6"),
    ],
    "stal": [
        Stated("model.backbone", "googlenet", "III-E (Table I is another GoogLeNet, docs/stal.md)"),
        Stated("model.weights", "imagenet", "III-E"),
        Stated("model.part_margin", 0.8, "III-E: m_l = 0.8"),
        Stated("model.part_mining", "drawn", "III-E: a batch is one triplet"),
        Stated("model.fusion", 0.3, "III-E: d = d_l + 0.3 d_g"),
        Stated("input.frames", 8, "III-E: T = 8"),
        Stated("input.height", 224, "III-E"),
        Stated("input.width", 224, "III-E"),
        Stated("input.flip", 0.0, "III-E: no augmentation"),
        Stated("input.crop", 0, "III-E: no augmentation"),
        Stated("input.erase", 0.0, "III-E: no augmentation"),
        Stated("batch.p", 2, "ours: the fewest persons from which triplets can be drawn"),
        Stated("batch.k", 2, "ours: the fewest clips from which triplets can be drawn"),
        Stated("loss.softmax", 3.0, "Eq. 5: the sum over the clips of a triplet"),
        Stated("loss.triplet", 1.0, "Eq. 4"),
        Stated("loss.margin", 1.2, "III-E: m_g = 1.2"),
        Stated("loss.mining", "drawn", "III-E: a batch is one triplet"),
        Stated("loss.part_softmax", 24.0, "Eq. 6: the sum over 3 clips and 8 frames"),
        Stated("loss.part_triplet", 0.3, "III-E: lambda = 0.3"),
        Stated("optim.name", "sgd", "III-E"),
        Stated("optim.lr", 1e-3, "III-E: 0.001"),
        Stated("optim.momentum", 0.9, "III-E"),
        Stated("optim.weight_decay", 2e-4, "III-E: 0.0002"),
        Stated("schedule.gamma", 0.5, "III-E: gamma 0.5"),
        Stated("eval.sampling", "dense", "IV-D, Fig. 11: all frames"),
        Stated("eval.frames", [8], "III-E: T = 8"),
    ],
    "asta": [
        Stated("model.backbone", "resnet50", "p. 7, Section 4.1"),
        Stated("model.composition", "original", "p. 8, Section 4.1"),
        Stated("model.streams", ["reid", "relevant", "irrelevant"], "p. 7, Section 4.1"),
        Stated("model.asta", True, "p. 8, Section 4.1"),
        Stated("input.frames", 4, "p. 9: T = 4"),
        Stated("input.height", 256, "p. 9"),
        Stated("input.width", 128, "p. 9"),
        Stated("input.flip", 0.5, "code: configs"),
        Stated("input.crop", 0, "not mentioned in the paper"),
        Stated("input.per_frame", False, "not mentioned in the paper"),
        Stated("input.erase", 0.5, "code: configs"),
        Stated("batch.p", 16, "code: README, 64 clips"),
        Stated("batch.k", 4, "p. 5: K >= 3; code: configs"),
        Stated("batch.accumulate", 1, "code: README, 64 clips"),
        Stated("loss.softmax", 1.0, "p. 9, Eq. 4"),
        Stated("loss.label_smoothing", 0.0, "p. 9, Eq. 4"),
        Stated("loss.triplet", 1.0, "p. 9, Eq. 4"),
        Stated("loss.attributes", 1.0, "p. 9, Eq. 4"),
        Stated("loss.aitl", 1.0, "p. 9, Eq. 4"),
        Stated("loss.itl", 0.0, "p. 9, Eq. 4"),
        Stated("loss.aitl_form", "paper", "p. 6, Eq. 2 and 3"),
        Stated("loss.metric", "cosine", "p. 9: cosine distance in the two triplet losses"),
        Stated("loss.margin", 0.3, "code: defaults"),
        Stated("optim.name", "adam", "p. 9"),
        Stated("optim.lr", 3e-4, "p. 9: 0.0003"),
        Stated("optim.weight_decay", 5e-4, "code: configs"),
        Stated("schedule.milestones", [70, 140, 210, 310, 410], "code: configs"),
        Stated("schedule.gamma", 0.3, "code: configs"),
        Stated("schedule.warmup_epochs", 10, "code: configs"),
        Stated("schedule.warmup_factor", 0.01, "code: configs"),
        Stated("train.epochs", 500, "code: configs"),
        Stated("eval.sampling", "dense", "code: all frames in clips of 4"),
        Stated("eval.frames", [4], "p. 9: T = 4"),
        Stated("eval.metric", "cosine", "code: defaults"),
    ],
}


class Row(NamedTuple):
    """A recipe's rows in the paper's tables, (table, label), and what it does otherwise than `COMMON`."""

    rows: tuple[tuple[str, str], ...]
    otherwise: Mapping[str, Any] = MappingProxyType({})


_NO_REG = {"loss.inter_frame": 0.0}
_STA = {
    "": Row((("STA 1", "Baseline + TL + STA + Fusion + Reg"), ("STA 2", "N=4"), ("STA 3", "K=4"))),
    "_baseline": Row((("STA 1", "Baseline"),), {"model.pooling": "frame", "loss.triplet": 0.0, **_NO_REG}),
    "_triplet": Row((("STA 1", "Baseline + TL"),), {"model.pooling": "frame", **_NO_REG}),
    "_average": Row((("STA 1", "Baseline + TL + Avg"),), {"model.pooling": "avg", **_NO_REG}),
    "_attention": Row((("STA 1", "Baseline + TL + STA"),), {"model.fusion": False, **_NO_REG}),
    "_fusion": Row((("STA 1", "Baseline + TL + STA + Fusion"),), _NO_REG),
    "_k2": Row((("STA 3", "K=2"),), {"model.blocks": 2}),
    "_k8": Row((("STA 3", "K=8"),), {"model.blocks": 8}),
    "_lengths": Row((), {"eval.frames": [2, 4, 6, 8]}),  # Table 2, see LENGTHS
}
_CNN_RESTS = {"stages": [{"epochs": 40, "freeze": ["backbone"]}], "train.epochs": 40}
_TWO_STAGES = {
    "stages": [{"epochs": 20, "freeze": ["backbone", "temporal"]}, {"epochs": 20, "freeze": ["backbone"]}],
    "train.epochs": 40,
}
_DRSTA = {
    "": Row(
        (("DRSTA 1", "SpaAtn+Q+TemAtn+Ind"),), {"stages": _TWO_STAGES["stages"], "train.epochs": 80}
    ),  # then everything, for 40 epochs
    "_baseline": Row(
        (("DRSTA 1", "Baseline"),), {"model.spatial": False, "loss.diversity": 0.0, "stages": []}
    ),
    "_spatial": Row(
        (("DRSTA 1", "SpaAtn"),),
        {"model.diversity": "none", "model.temporal": "mean", "loss.diversity": 0.0, **_CNN_RESTS},
    ),
    "_text": Row(
        (("DRSTA 1", "SpaAtn+Q'"),), {"model.diversity": "text", "model.temporal": "mean", **_CNN_RESTS}
    ),
    "_diverse": Row((("DRSTA 1", "SpaAtn+Q"),), {"model.temporal": "mean", **_CNN_RESTS}),
    "_max": Row((("DRSTA 1", "SpaAtn+Q+MaxPool"),), {"model.temporal": "max", **_CNN_RESTS}),
    "_temporal": Row((("DRSTA 1", "SpaAtn+Q+TemAtn"), ("DRSTA 2", "K=6")), _TWO_STAGES),
    "_k1": Row((("DRSTA 2", "K=1"),), {"model.regions": 1, "loss.diversity": 0.0, **_TWO_STAGES}),
    **{f"_k{k}": Row((("DRSTA 2", f"K={k}"),), {"model.regions": k, **_TWO_STAGES}) for k in (2, 4, 8)},
}
_ASTA = {
    "": Row(
        (
            ("ASTA 1", "Baseline + ASTA + AITL"),
            ("ASTA 2", "all"),
            ("ASTA 3", "ours"),
            ("ASTA 4", "proposed method"),
        )
    ),
    "_baseline": Row(
        (("ASTA 1", "Baseline"), ("ASTA 2", "Re-ID"), ("ASTA 4", "Baseline")),
        {"model.streams": ["reid"], "model.asta": False, "loss.attributes": 0.0, "loss.aitl": 0.0},
    ),
    "_attention": Row((("ASTA 1", "Baseline + ASTA"),), {"loss.aitl": 0.0}),
    "_itl": Row(
        (("ASTA 1", "Baseline + ITL"),),
        {
            "model.streams": ["reid"],
            "model.asta": False,
            "loss.attributes": 0.0,
            "loss.aitl": 0.0,
            "loss.itl": 1.0,
        },
    ),
    "_aitl": Row((("ASTA 1", "Baseline + AITL"),), {"model.asta": False}),
    "_relevant": Row((("ASTA 2", "ID-relevant"),), {"model.streams": ["relevant"]}),
    "_irrelevant": Row((("ASTA 2", "ID-irrelevant"),), {"model.streams": ["irrelevant"]}),
    "_reid_relevant": Row((("ASTA 2", "Re-ID, ID-relevant"),), {"model.streams": ["reid", "relevant"]}),
    "_reid_irrelevant": Row((("ASTA 2", "Re-ID, ID-irrelevant"),), {"model.streams": ["reid", "irrelevant"]}),
    "_relevant_irrelevant": Row(
        (("ASTA 2", "ID-relevant, ID-irrelevant"),), {"model.streams": ["relevant", "irrelevant"]}
    ),
}
# The authors' code: configs/softmax_triplet_tlaw.yml, models/baseline.py, main_baseline.py, video_loader.py.
_AUTHORS = {
    "model.composition": "authors", "model.width": 2048, "model.start": "kaiming", "model.fixed_maps": True,
    "input.crop": 10, "input.per_frame": True, "loss.label_smoothing": 0.1, "loss.triplet": 0.333333,
    "loss.aitl": 0.666667, "loss.aitl_form": "authors", "optim.lr": 3.5e-4, "train.sync_bn": True,
}  # fmt: skip


def _iterations(milestones: list[int], epochs: int) -> dict[str, Any]:
    return {"schedule.milestones": milestones, "train.epochs": epochs}


_ILIDS, _PRID, _MARS = _iterations([60, 120], 180), _iterations([49, 98], 148), _iterations([160, 320], 481)
_ONES = {"model.test_attention": "none"}
_STAL = {
    "stal_ilids": Row((("STAL III", "STAL"),), _ILIDS),
    "stal_ilids_baseline": Row((("STAL III", "Baseline"),), _ILIDS | _ONES),
    "stal_ilids_occluded": Row((("STAL VII", "STAL"),), _ILIDS | {"dataset.black_box": 25}),
    "stal_ilids_occluded_baseline": Row(
        (("STAL VII", "Baseline"),), _ILIDS | _ONES | {"dataset.black_box": 25}
    ),
    "stal_ilids_on_prid": Row((("STAL VI", "STAL"),), _ILIDS),
    "stal_prid": Row((("STAL IV", "STAL"),), _PRID),
    "stal_prid_baseline": Row((("STAL IV", "Baseline"),), _PRID | _ONES),
    "tfclip_mars": Row((("TF-CLIP 1", "TF-CLIP"),)),
    "stal_mars": Row((("STAL V", "STAL + ResNet50"),), _MARS | {"model.backbone": "resnet50"}),
    "stal_mars_googlenet": Row((("STAL V", "STAL"),), _MARS),
    "stal_mars_baseline": Row((("STAL V", "Baseline"),), _MARS | _ONES),
}
# Steps of a batch of 2 persons in an epoch: training persons / 2; the paper's iterations (III-E).
STAL_ITERATIONS = {"ilids": (150 // 2, 13_500), "prid": (89 // 2, 6_500), "mars": (625 // 2, 150_000)}

LENGTHS = ("sta_mars_lengths", "sta_dukev_lengths")

RECIPES: dict[str, Row] = {
    **{f"sta_{name}{row}": entry for name in ("mars", "dukev") for row, entry in _STA.items()},
    "sta_mars": Row((*_STA[""].rows, ("STA 4", "STA"))),
    "sta_mars_rerank": Row((("STA 4", "STA + ReRank"),), {"eval.rerank": True, "paper.rerank": True}),
    "sta_dukev": Row((*_STA[""].rows, ("STA 5", "STA"))),
    **{f"drsta_{name}{row}": entry for name in _THREE for row, entry in _DRSTA.items()},
    # Before "Ind" the paper trains on the three sets together; a batch has 6 persons of each (ours).
    **{
        f"drsta_joint{row}": Row(entry.rows, {**entry.otherwise, "batch.p": 18})
        for row, entry in _DRSTA.items()
        if row
    },
    **_STAL,
    **{f"asta_mars{row}": entry for row, entry in _ASTA.items()},
    "asta_mars_authors": Row((("ASTA 3", "ours"),), _AUTHORS),
    "asta_mars_authors_32": Row((("ASTA README", "batch 32"),), _AUTHORS | {"batch.p": 8}),
    "asta_dukev": Row((("ASTA 3", "ours"), ("ASTA 4", "proposed method"))),
    "asta_dukev_baseline": Row((("ASTA 4", "Baseline"),), _ASTA["_baseline"].otherwise),
}
# Recipes of no table: models of no paper, sets that are rendered or cut from a video, and the form of DRSTA's
# released code.
OTHERS = (
    "consensus_",
    "part_consensus_",
    "tfclip_small",
    "synth_",
    "vtest_",
    "drsta_mars_released",
    "drsta_images",
)


def stated(recipe: str) -> list[Stated]:
    """Every key of a recipe that the table pins, with its own value where its row is another."""
    own = RECIPES[recipe].otherwise
    where = ", ".join(f"{table}: {label}" for table, label in RECIPES[recipe].rows) or "STA 2"
    common = COMMON[recipe.split("_")[0]]
    rest = [
        Stated(key, value, where) for key, value in own.items() if key not in {each.key for each in common}
    ]
    return [
        Stated(key, own[key], where) if key in own else Stated(key, value, source)
        for key, value, source in common
    ] + rest


def figures(recipe: str, dataset: str) -> dict[int, dict[str, float]]:
    """What the paper prints for a recipe, by test length."""
    length = {"sta": 4, "drsta": 6, "stal": 8, "asta": 4, "tfclip": 8}[recipe.split("_")[0]]
    if recipe in LENGTHS:
        return {n: _figures("STA 2", f"N={n}", dataset) for n in (2, 4, 6, 8)}
    together: dict[str, float] = {}
    for table, label in RECIPES[recipe].rows:
        together |= _figures(table, label, dataset)
    return {length: together}


def _figures(table: str, label: str, dataset: str) -> dict[str, float]:
    page = TABLES[table]
    if dataset not in page.columns:
        return {}
    start = 0
    for name, columns in page.columns.items():
        if name == dataset:
            numbers = page.rows[label][start : start + len(columns)]
            return {column: n for column, n in zip(columns, numbers, strict=True) if n is not None}
        start += len(columns)
    raise AssertionError
