"""The released part of the DRSTA authors' code and `form: released`, same weights and maps, in float64.

    python benchmarks/parity/drsta.py FOLDER --out docs/parity_drsta.md

FOLDER contains a copy of github.com/ShuangLI59/Diversity-Regularized-Spatiotemporal-Attention, which is not
part of this package. It has the spatial attentions, the embedding of each region and the diversity term, but
neither the backbone nor the temporal attention. Both implementations therefore get the same maps of
2048 x 8 x 4, and are compared up to the embedded regions. The code uses an undefined name (`attn` instead of
`atn`), so it cannot run; this script corrects the name when it loads the code.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from compare import write
from torch import Tensor, nn

from vreid_ext.models import DRSTA

CLIPS, FRAMES, REGIONS = 4, 6, 3
NAMES = {
    "spatial.response.0.weight": "conv1.weight",
    "spatial.response.1.weight": "bn1.weight",
    "spatial.response.1.bias": "bn1.bias",
    "spatial.response.3.weight": "conv2.weight",
    "spatial.response.4.weight": "bn2.weight",
    "spatial.response.4.bias": "bn2.bias",
    "fc.weight": "feat.weight",
    "fc.bias": "feat.bias",
}


class NoBackbone(nn.Identity):
    out_channels = 2048


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    source = (given.folder / "multiple_spatial_attention.py").read_text(encoding="utf-8")
    module: dict[str, Any] = {"__name__": "multiple_spatial_attention"}
    exec(compile(source.replace("attn.view", "atn.view"), "multiple_spatial_attention.py", "exec"), module)

    torch.manual_seed(0)
    theirs: nn.Module = module["SattentionNet"](seqlen=FRAMES, spanum=REGIONS).double().train()
    ours = DRSTA(
        5, form="released", enhance="none", regions=REGIONS, temporal="mean", backbone=NoBackbone()
    ).double()
    assert ours.spatial is not None
    assert ours.diversity is not None
    their_parameters, our_parameters = dict(theirs.named_parameters()), dict(ours.named_parameters())
    with torch.no_grad():
        for name, other in NAMES.items():
            our_parameters[name].copy_(their_parameters[other])
        for layer in (0, 3):  # the authors' convolutions before batch normalization have no bias
            our_parameters[f"spatial.response.{layer}.bias"].zero_()
    maps = torch.randn(CLIPS, FRAMES, 2048, 8, 4, dtype=torch.float64).relu_()
    weights = torch.randn(CLIPS, FRAMES, REGIONS, 128, dtype=torch.float64)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the authors call softmax without dim
        parts, fields = theirs(maps)
    roots = fields.sqrt()
    overlaps = roots @ roots.mT - torch.eye(REGIONS, dtype=torch.float64)
    diversity = (overlaps.square().sum() + 1e-5).sqrt()  # as inlined in the authors' trainer
    ((parts * weights).sum() + diversity).backward()

    pool = ours.spatial(maps)
    regions = F.normalize(ours.fc(pool.features), dim=3)
    term: Tensor = ours.diversity(pool)
    ((regions * weights).sum() + term).backward()

    rows = [
        ("receptive fields", fields.view(pool.weights.shape), pool.weights),
        ("embedded regions", parts, regions),
        ("diversity", diversity, term),
    ]
    for name, other in NAMES.items():
        theirs_, ours_ = their_parameters[other].grad, our_parameters[name].grad
        assert theirs_ is not None
        assert ours_ is not None
        rows.append((f"gradient, `{name}`", theirs_, ours_))
    write(given.out, "DRSTA: the released code and `form: released`", __doc__, rows)


if __name__ == "__main__":
    main()
