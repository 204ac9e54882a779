"""Recognition of the layout of a folder, by trying the readers of all data sets."""

import os
from pathlib import Path

from vreid_ext._options import option_types
from vreid_ext.data.readers.files import is_image
from vreid_ext.data.records import SPLITS, DatasetError, TrackletDataset
from vreid_ext.data.registry import build_dataset, dataset_builder, dataset_names

# Tried last: the layout of the first is that of MARS, and the second also fits folders of other layouts.
_LAST = ("g2a_vreid", "tracklet_folder")


def detect_dataset(root: str | os.PathLike[str]) -> TrackletDataset:
    """Read a folder with the first reader whose layout it has.

    Published data sets are tried first, then the plain folders of `tracklet_folder`. Unusable tracklets are
    skipped and listed in `TrackletDataset.skipped`.

    Raises:
        DatasetError: the folder does not exist, contains no image, or has none of the layouts. The message
            lists the layouts that were tried and why each of them does not fit.
    """
    base = Path(root)
    if not base.is_dir():
        raise DatasetError(
            f"root: expected a folder of tracklets, got {base}, which does not exist or is not a folder"
        )
    if not any(is_image(name) for _, _, names in os.walk(base) for name in names):
        raise DatasetError(f"root: expected a folder of tracklets, got {base}, which contains no image")
    reasons = []
    names = dataset_names()
    for name in [*(name for name in names if name not in _LAST), *_LAST]:
        types = option_types(dataset_builder(name))
        options = {"on_error": "skip"} if types is None or "on_error" in types else {}
        try:
            data = build_dataset(name, base, **options)
        except ValueError as error:
            reasons.append(f"{name}: {str(error).removeprefix('root: ').splitlines()[0]}")
            continue
        empty = next((split for split in SPLITS if not getattr(data, split)), None)
        if empty is None:
            return data
        first = f" ({data.skipped[0].splitlines()[0]})" if data.skipped else ""
        reasons.append(f"{name}: expected usable {empty} tracklets, got none{first}")
    tried = "\n  ".join(reasons)
    raise DatasetError(f"root: expected a folder in one of these layouts, got {base}\n  {tried}")
