"""`vreid weights`: what a weight file is, which backbones it fits, and its conversion to safetensors."""

import hashlib
import json
from pathlib import Path
from typing import Any

from vreid_ext._files import whole_file, write_json
from vreid_ext._lock import one_writer
from vreid_ext.models.fits import backbone_fits
from vreid_ext.weights import WeightFile, read_weights
from vreid_ext.weights.origin import origin_of


def describe_weights(source: str | Path) -> dict[str, Any]:
    """Describe a weight file.

    Args:
        source: a file, a folder or `hf:OWNER/NAME`; see `weights.read_weights`.

    Returns:
        A dict that can be written as JSON:

            file, sha256
            package     the package that wrote it: torchreid, fast-reid, CLIP-ReID, OpenAI CLIP, SOLIDER,
                        TransReID, timm, torchvision, Lightning, vreid_ext or plain
            evidence    the tensor or entry that decides it
            wrapper     the keys of the checkpoint under which the tensors are
            prefix      what all names begin with
            tensors, parameters     counts
            dtypes      number of tensors of each dtype
            parts       number of tensors of each part, by the first component of the names
            classifier  name and classes, or None
            inputs      input sizes that agree with the position embeddings: height, width, stride
            backbones   for each backbone of which a tensor fits: complete, prefix, and the numbers of
                        tensors that fit, have another shape, are missing, and are not used

    Raises:
        FileNotFoundError, ImportError, ValueError: see `weights.read_weights`.
    """
    return _described(read_weights(source))


def convert_weights(source: str | Path, out: Path) -> dict[str, Any]:
    """Write the tensors of a weight file to a `.safetensors` file, and its description to `.json`.

    The prefix that all names have in common is removed. No other name is changed, so the new file fits the
    same networks.

    Args:
        source: see `describe_weights`.
        out: the new file, `NAME.safetensors`; the description is `NAME.json`.

    Returns:
        The description, with the key `converted`.

    Raises:
        FileNotFoundError, ImportError, ValueError: see `describe_weights`; also if `out` has another suffix.
    """
    from safetensors.torch import save_file

    if out.suffix != ".safetensors":
        raise ValueError(f"--to: expected a file NAME.safetensors, got {str(out)!r}")
    file = read_weights(source)
    described = _described(file) | {"converted": str(out)}
    # Cloned, because safetensors does not write tensors that share memory.
    tensors = {
        name.removeprefix(described["prefix"]): value.contiguous().clone()
        for name, value in file.tensors.items()
    }
    summary = {key: described[key] for key in ("package", "wrapper", "prefix", "sha256")}
    with one_writer("--to", out):
        with whole_file(out) as temporary:
            save_file(tensors, temporary, metadata={"vreid_ext": json.dumps(summary)})
        write_json(out.with_suffix(".json"), described)
    return described


def _described(file: WeightFile) -> dict[str, Any]:
    origin = origin_of(file)
    values = list(file.tensors.values())
    names = [name.removeprefix(origin.prefix) for name in file.tensors]
    return {
        "file": str(file.path),
        "sha256": hashlib.sha256(file.path.read_bytes()).hexdigest(),
        "package": origin.package,
        "evidence": origin.evidence,
        "wrapper": list(file.wrapper),
        "prefix": origin.prefix,
        "tensors": len(values),
        "parameters": sum(value.numel() for value in values),
        "dtypes": _counts([str(value.dtype).removeprefix("torch.") for value in values]),
        "parts": _counts([name.partition(".")[0] for name in names]),
        "classifier": origin.classifier and origin.classifier._asdict(),
        "inputs": [{"height": h, "width": w, "stride": stride} for h, w, stride in origin.inputs],
        "backbones": {
            name: {
                "complete": fit.complete,
                "prefix": fit.prefix,
                "fit": len(fit.fitting),
                "other_shape": len(fit.misshapen),
                "missing": len(fit.missing),
                "unused": len(fit.unused),
            }
            for name, fit in backbone_fits(file.tensors).items()
        },
    }


def _counts(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in dict.fromkeys(names)}
