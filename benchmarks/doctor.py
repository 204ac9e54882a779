"""False alarms of `vreid doctor` on clean sets, and the share of planted faults that it finds.

    python benchmarks/doctor.py clean --sets 200
    python benchmarks/doctor.py planted RUN --repeats 20 --features DIR [KEY=VALUE ...]

`clean` draws sets of features without a fault, of several kinds, and counts the findings of each check.
`planted` plants each fault in the features, labels or pictures of a run, with different seeds, and counts how
often its check finds it. Copies of pictures are written to a temporary folder only.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vreid_ext.data import read_image
from vreid_ext.engine.doctor import CHECKS, Subject, diagnose, of_arrays, of_run

Set = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def gaussian(generator: torch.Generator, noise: float = 0.5) -> Set:
    """100 persons in 4 cameras with one tracklet each: normal persons, normal noise."""
    pids = torch.arange(100).repeat_interleave(4)
    camids = torch.arange(400) % 4
    return _persons(generator, pids, camids, 64, noise), pids, camids


def heavy(generator: torch.Generator) -> Set:
    """As `gaussian`, with noise of a length drawn for each tracklet: one of ten has three times the noise."""
    rows, pids, camids = gaussian(generator, 0.3)
    worse = (torch.rand(len(rows), generator=generator) < 0.1)[:, None]
    return rows + worse * 0.9 * torch.randn(rows.shape, generator=generator), pids, camids


def unequal(generator: torch.Generator) -> Set:
    """Persons with 1 to 20 tracklets in random cameras, as in MARS."""
    sizes = (torch.rand(150, generator=generator).pow(2) * 20).long() + 1
    pids = torch.arange(150).repeat_interleave(sizes)
    camids = torch.randint(6, (len(pids),), generator=generator)
    return _persons(generator, pids, camids, 64, 0.5), pids, camids


def families(generator: torch.Generator) -> Set:
    """Persons in groups of three who look alike: half of the variance between persons is between groups."""
    pids = torch.arange(99).repeat_interleave(4)
    camids = torch.arange(len(pids)) % 4
    family = torch.randn(33, 64, generator=generator)[pids // 3]
    return _persons(generator, pids, camids, 64, 0.5) + family, pids, camids


def rectified(generator: torch.Generator) -> Set:
    """Features after a rectifier, with the common part that these have."""
    rows, pids, camids = gaussian(generator)
    return rows.relu(), pids, camids


def low(generator: torch.Generator) -> Set:
    """Features of 8 dimensions."""
    pids = torch.arange(100).repeat_interleave(4)
    camids = torch.arange(400) % 4
    return _persons(generator, pids, camids, 8, 0.3), pids, camids


def weak(generator: torch.Generator) -> Set:
    """As `gaussian`, with noise of three times the variance between persons."""
    return gaussian(generator, 3**0.5)


KINDS = (gaussian, heavy, unequal, families, rectified, low, weak)


def _persons(
    generator: torch.Generator, pids: torch.Tensor, camids: torch.Tensor, width: int, noise: float
) -> torch.Tensor:
    rows = torch.randn(int(pids.max()) + 1, width, generator=generator)[pids]
    rows += noise * torch.randn(len(pids), width, generator=generator)
    return rows + 0.1 * torch.randn(int(camids.max()) + 1, width, generator=generator)[camids]


def clean(sets: int, checks: list[str] | None) -> None:
    names = checks or [check.name for check in CHECKS[:9] if check.name != "pictures"]
    print(f"findings in {sets} clean sets of each kind")
    print(f"{'':12}", *(f"{name:>12}" for name in names))
    for kind in KINDS:
        count: Counter[str] = Counter()
        for seed in range(sets):
            rows, pids, camids = kind(torch.Generator().manual_seed(seed))
            subject = of_arrays(rows, pids.tolist(), camids.tolist())
            count.update(each.check for each in diagnose(subject, names) if each.found)
        print(f"{kind.__name__:12}", *(f"{count[name]:>12}" for name in names), flush=True)


def planted(run: Path, overrides: list[str], features: Path | None, repeats: int) -> None:
    subject = of_run(run, overrides, features=features)
    print(f"{subject.name}: {len(subject.features)} tracklets x {subject.features.shape[1]}")
    before = {each.check: each for each in diagnose(subject)}
    for finding in before.values():
        print(f"  {finding.check:16} {finding.severity:8} {finding.summary}", flush=True)
    rows = subject.features[:]
    labels = [(each.pid, each.camid) for each in subject.test]
    for name, plant in FAULTS.items():
        hits = 0
        for seed in range(repeats):
            generator = torch.Generator().manual_seed(seed)
            pids, camids = (torch.tensor(each) for each in zip(*labels, strict=True))
            changed, pids, expected = plant(rows.clone(), pids, camids, subject, generator)
            faulty = of_arrays(
                changed, pids.tolist(), camids.tolist(),
                metric=subject.metric or "cosine", distractor=subject.distractor,
            )  # fmt: skip
            (finding,) = diagnose(faulty, [name])
            known = before[name].evidence.get("pids", [])
            new = [pid for pid in finding.evidence.get("pids", []) if pid not in known]
            hits += finding.found and (not expected or expected in new)
        print(f"planted: {name:12} found {hits} of {repeats}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, change in PICTURES.items():
            faulty = replace(subject, records=_changed(subject, change, Path(folder) / name))
            (finding,) = diagnose(faulty, ["colors"])
            print(f"planted: colors ({name}): {finding.severity}; {finding.summary}", flush=True)


def _nan(rows, pids, camids, subject, generator):
    rows[torch.randint(len(rows), (1,), generator=generator), 0] = torch.nan
    return rows, pids, None


def _constant(rows, pids, camids, subject, generator):
    rows[:, torch.randperm(rows.shape[1], generator=generator)[: rows.shape[1] // 5]] = 0
    return rows, pids, None


def _collapsed(rows, pids, camids, subject, generator):
    mean = rows.norm(dim=1).mean()
    return rows + 5 * mean * torch.nn.functional.normalize(torch.rand(rows.shape[1:]), dim=0), pids, None


def _informative(rows, pids, camids, subject, generator):
    """Every tracklet has the features of another one of its camera."""
    for camera in camids.unique():
        here = (camids == camera).nonzero()[:, 0]
        rows[here] = rows[here[torch.randperm(len(here), generator=generator)]]
    return rows, pids, None


def _two(pids, subject, generator, least=1):
    known = pids[(pids != -1) & (pids != (-1 if subject.distractor is None else subject.distractor))]
    persons, counts = known.unique(return_counts=True)
    persons = persons[counts >= least]
    return persons[torch.randperm(len(persons), generator=generator)[:2]].tolist()


def _duplicates(rows, pids, camids, subject, generator):
    a, b = _two(pids, subject, generator)
    rows[(pids == b).nonzero()[0]] = rows[(pids == a).nonzero()[0]]
    return rows, pids, None


def _merged(rows, pids, camids, subject, generator):
    a, b = _two(pids, subject, generator)
    pids[pids == b] = a
    return rows, pids, a


def _split(rows, pids, camids, subject, generator):
    """Half of the cameras of a person get another pid."""
    a, _ = _two(pids, subject, generator, least=2)
    own = (pids == a).nonzero()[:, 0]
    own = own[camids[own].argsort(stable=True)]
    pids[own[len(own) // 2 :]] = 10**6
    return rows, pids, [a, 10**6]


def _camera(rows, pids, camids, subject, generator):
    """A vector of the mean length of the features is added to those of each camera."""
    vectors = torch.randn(int(camids.max()) + 1, rows.shape[1], generator=generator)
    return rows + rows.norm(dim=1).mean() * torch.nn.functional.normalize(vectors, dim=1)[camids], pids, None


FAULTS = {
    "finite": _nan,
    "constant": _constant,
    "collapsed": _collapsed,
    "informative": _informative,
    "duplicates": _duplicates,
    "merged": _merged,
    "split": _split,
    "camera": _camera,
}
PICTURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "red and blue exchanged": lambda pixels: pixels[..., ::-1],
    "inverted": lambda pixels: 255 - pixels,
}


def _changed(
    subject: Subject, change: Callable[[np.ndarray], np.ndarray], folder: Path
) -> list:  # of Tracklet
    def copies() -> Iterator:
        for number, record in enumerate(subject.records):
            if number >= len(subject.features) or number % max(1, len(subject.features) // 256):
                yield record
                continue
            paths = []
            for frame in range(len(record)):
                path = folder / f"{number}-{frame}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = read_image(record.paths[frame]).permute(1, 2, 0).numpy()
                Image.fromarray(np.ascontiguousarray(change(pixels))).save(path, compress_level=1)
                paths.append(str(path))
            yield replace(record, paths=tuple(paths))

    return list(copies())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    drawn = commands.add_parser("clean")
    drawn.add_argument("--sets", type=int, default=200)
    drawn.add_argument("--check", action="append")
    real = commands.add_parser("planted")
    real.add_argument("run", type=Path)
    real.add_argument("overrides", nargs="*")
    real.add_argument("--features", type=Path)
    real.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args()
    if given.command == "clean":
        clean(given.sets, given.check)
    else:
        planted(given.run, given.overrides, given.features, given.repeats)


if __name__ == "__main__":
    main()
