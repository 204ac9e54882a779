"""One training step of the ASTA authors' code and of `asta_mars_authors`, same weights and batch, in float64.

    python benchmarks/parity/asta.py FOLDER --out docs/parity_asta.md

FOLDER contains a copy of github.com/yuange250/Video-based-person-ReID-with-Attribute-information, which is
not part of this package. Their stem lacks the ReLU after its batch normalization, a bug that their comment
mentions, so this comparison removes it from our stem. The backbone is a ResNet-18, to keep the step small.
The frames have 256 x 128 pixels, because the size of their attention is fixed to 16 x 8 cells.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compare import addmm_of_old_torch, write
from torch import Tensor, nn

from vreid_ext.data import attribute_sizes
from vreid_ext.engine import load_recipe
from vreid_ext.engine.objective import Objective
from vreid_ext.models import ASTA

PERSONS, CLIPS, FRAMES = 3, 2, 2
STREAMS = {"irrelevant": "multi_attr_recoger1", "relevant": "multi_attr_recoger2"}
LAYERS = {
    "attention.reduce.0.weight": "conv.weight",
    "attention.reduce.1.weight": "bn.weight",
    "attention.reduce.1.bias": "bn.bias",
    "attention.reduce.3.weight": "attention_s_conv.weight",
    "attention.reduce.3.bias": "attention_s_conv.bias",
    "attention.temporal.weight": "attention_t_conv.weight",
    "attention.temporal.bias": "attention_t_conv.bias",
    "classifier.weight": "classifier.weight",
    "classifier.bias": "classifier.bias",
}


def swapped(x: Tensor) -> Tensor:
    """Convert columns between our order of streams and theirs (reid, irrelevant, relevant)."""
    reid, second, third = x.chunk(3, -1)
    return torch.cat([reid, third, second], -1)


def counterparts(ours: nn.Module) -> dict[str, tuple[str, Callable[[Tensor], Tensor]]]:
    """For each of our parameters, the authors' name of it and the conversion of its values."""
    names: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {}
    for name, _ in ours.named_parameters():
        part, _, rest = name.partition(".")
        if part == "backbone":
            names[name] = f"base.{rest}", torch.clone
        elif part == "reid_attention":
            names[name] = f"attention_conv.{rest.removeprefix('0.')}", torch.clone
        elif part == "attribute_streams":
            stream, _, layer = rest.partition(".")
            names[name] = f"{STREAMS[stream]}.{LAYERS[layer]}", torch.clone
        elif part == "bn":
            names[name] = f"bottleneck.{rest}", swapped
        else:
            names[name] = name, swapped
    return names


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    sys.path.insert(0, str(given.folder))
    import losses as their_losses
    from models.baseline import VideoBaseline

    torch.manual_seed(0)
    recipe = load_recipe("asta_mars_authors")
    sizes = {stream: attribute_sizes("mars", f"id_{stream}") for stream in ("relevant", "irrelevant")}
    theirs: Any = VideoBaseline(
        PERSONS, 1, "", "bnneck", "after", "resnet18", "none", "ATTR_TA",
        attr_lens=[list(sizes["irrelevant"].values()), list(sizes["relevant"].values())],
    ).double()  # fmt: skip
    options = {key: value for key, value in recipe.model.items() if key not in ("name", "weights")}
    ours = ASTA(PERSONS, **options | {"backbone": "resnet18", "width": 512}).double()
    ours.backbone.relu = nn.Identity()
    names = counterparts(ours)
    their_parameters = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            other, convert = names[name]
            parameter.copy_(convert(their_parameters[other]))

    clips = torch.randn(PERSONS * CLIPS, FRAMES, 3, 256, 128, dtype=torch.float64)
    labels = torch.arange(PERSONS).repeat_interleave(CLIPS)
    targets = {
        stream: torch.stack([torch.randint(n, (len(labels),)) for n in classes.values()], 1)
        for stream, classes in sizes.items()
    }

    def one_hot(stream: str) -> Tensor:
        columns = zip(targets[stream].unbind(1), sizes[stream].values(), strict=True)
        return torch.cat([nn.functional.one_hot(column, n) for column, n in columns], 1).double()

    with addmm_of_old_torch():
        logits, feature, attributes = theirs.train()(clips)
        term = their_losses.TripletLossAttrWeightes(dis_type="cosine")
        mined = [term(feature, labels, vector) for vector in attributes]
        triplet = their_losses.CosineTripletLoss(recipe.loss.margin)(feature, labels)[0]
        softmax = their_losses.CrossEntropyLabelSmooth(PERSONS, use_gpu=False)(logits, labels)
        bce = nn.BCEWithLogitsLoss()
        recognised = sum(bce(a, one_hot(stream)) for a, stream in zip(attributes, STREAMS, strict=True))
        total = softmax + (triplet + mined[0] + mined[1]) / 3 + recognised
        total.backward()

    objective = Objective(recipe.loss, ours.attribute_sizes, gather=lambda x: x)
    output = ours.train()(clips)
    classes = torch.cat([targets[stream] for stream in ours.attribute_sizes], 1)
    terms = objective(output, labels, classes)
    terms["loss"].backward()

    rows = [
        ("feature before the neck", swapped(feature), output.feature),
        ("logits of persons", logits, output.logits),
        ("logits, ID-irrelevant", attributes[0], output.attributes["irrelevant"]),
        ("logits, ID-relevant", attributes[1], output.attributes["relevant"]),
        ("softmax with label smoothing", softmax, terms["softmax"]),
        ("batch-hard triplet", triplet, terms["triplet"]),
        ("AITL, mean of both terms", (mined[0] + mined[1]) / 2, terms["aitl"]),
        ("BCE, sum of both streams", recognised, terms["attributes"]),
        ("whole loss", total, terms["loss"]),
    ]
    gradients, steps = [], []
    for model in (theirs, ours):
        optimizer = torch.optim.Adam(
            [p for p in model.parameters() if p.grad is not None],
            lr=recipe.optim.lr, weight_decay=recipe.optim.weight_decay,
        )  # fmt: skip
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        optimizer.step()
        steps.append(dict(model.named_parameters()))
    groups = {"backbone": "backbone", "attentions and attribute classifiers": "attribute_streams"}
    groups |= {"attention of reid": "reid_attention", "neck": "bn", "classifier": "classifier"}
    for label, part in groups.items():
        for kind, (mine, other) in (("gradient", gradients[::-1]), ("weights after a step", steps[::-1])):
            chosen = [name for name in gradients[1] if name.split(".")[0] == part]
            flat = [torch.cat([mine[name].flatten() for name in chosen])]
            flat.append(torch.cat([names[name][1](other[names[name][0]]).flatten() for name in chosen]))
            rows.append((f"{kind}, {label}", flat[1], flat[0]))
    write(given.out, "ASTA: one step of the authors' code and of `asta_mars_authors`", __doc__, rows)


if __name__ == "__main__":
    main()
