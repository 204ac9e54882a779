"""Looking at folders of images before training starts: listing them, sorting out unusable tracklets."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from vreid_ext.data.clips.images import read_image
from vreid_ext.data.names import natural_order
from vreid_ext.data.records import DatasetError, Tracklet

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif",
    ".avif",
)  # fmt: skip

Check = Literal["exists", "decode", "none"]
OnError = Literal["raise", "skip"]

# Folders that file systems, archives and network drives put beside one's own.
_SYSTEM_FOLDERS = ("@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information")

# Files beside the images that other parts of the package read and write.
_SIDE_FILES = re.compile(r"joints\.jsonl?|tracklets(-.*)?\.json|splits_.*\.json|\w+_attributes\.csv")


class Listing(NamedTuple):
    """What lies in a folder: sub-folders in the order of their names, images by their numbers, the rest."""

    folders: list[str]
    images: list[str]
    others: list[str]


def list_folder(folder: str | os.PathLike[str]) -> Listing:
    """Names of the sub-folders, of the images (by suffix, in any case) and of all else, hidden or not.

    Images are in natural order: frame 2 comes before frame 10, with and without leading zeros.

    Raises:
        DatasetError: the folder cannot be listed.
    """
    listing = Listing([], [], [])
    for entry in _scan(folder):
        if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
            listing.others.append(entry.name)
        elif _is_folder(entry):
            listing.folders.append(entry.name)
        elif is_image(entry.name):
            listing.images.append(entry.name)
        else:
            listing.others.append(entry.name)
    listing.folders.sort()
    listing.images.sort(key=natural_order)
    listing.others.sort()
    return listing


def is_image(name: str) -> bool:
    """Whether the suffix of a file's name is that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link that leads to itself
        if is_image(entry.name):  # is rejected with its tracklet when it is read
            return False
        raise DatasetError(f"{entry.path}: cannot be looked at ({error.strerror})") from error


def find_root(root: str | os.PathLike[str], layout: str, needed: Iterable[str] = ()) -> Path:
    """The folder `root` as a path, after making sure that it and the `needed` entries in it exist.

    Raises DatasetError that says what is missing and what `layout` looks like.
    """
    path = Path(root)
    if not path.is_dir():
        raise DatasetError(
            f"root: expected the folder that holds {layout}, got {path}, which is not a folder"
        )
    for name in needed:
        if not (path / name).exists():
            raise DatasetError(f"root: expected {layout} in {path}, got none of name {name!r}")
    return path


class Screen:
    """Sorts out tracklets that cannot be used, and keeps an account of all that is not read.

    check: "exists" lists every image folder once, "decode" also opens every image, "none" trusts the data.
    on_error: "raise" ends in one DatasetError that names the first offenders, "skip" notes them in `skipped`.
    """

    def __init__(self, check: Check, on_error: OnError) -> None:
        if check not in get_args(Check):
            raise ValueError(f"check: expected one of {', '.join(get_args(Check))}, got {check!r}")
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error: expected one of {', '.join(get_args(OnError))}, got {on_error!r}")
        self.check, self._on_error = check, on_error
        self._folder = ""
        self._files: dict[str, str] = {}
        self._images: dict[str, int] = {}  # image files in each folder that was listed
        self._named: Counter[str] = Counter()  # and those of them that belong to a tracklet
        self._ignored: dict[str, tuple[int, str]] = {}
        self.skipped: list[str] = []

    def folders(self, folder: Path, expected: str) -> list[str]:
        """Names of the sub-folders, where no images belong; `expected` says what does."""
        listing = self.look(folder)
        if listing.images:
            self.reject(os.fspath(folder), f"expected {expected}, got {_some(listing.images, 'images')}")
        return listing.folders

    def images(self, folder: Path) -> list[str]:
        """Names of the images of a tracklet, where folders with images in them are out of place."""
        listing = self.look(folder)
        for name in listing.folders:
            self.unread(folder / name, "expected the images of one tracklet, got a folder of images")
        return listing.images

    def look(self, folder: Path) -> Listing:
        """What lies in a folder; other files are counted as ignored."""
        listing = list_folder(folder)
        for name in listing.others:
            if _SIDE_FILES.fullmatch(name):
                continue
            hidden = name.startswith(".") or name in _SYSTEM_FOLDERS
            suffix = os.path.splitext(name)[1].lower()
            kind = "hidden" if hidden else f"of suffix {suffix}" if suffix else "without suffix"
            self.ignore(kind, os.fspath(folder / name))
        return listing

    def unread(self, folder: Path, reason: str) -> None:
        """Rejects a folder of which nothing is read if there are images in it, else counts it as ignored."""
        if any(is_image(name) for _, _, names in os.walk(folder) for name in names):
            self.reject(os.fspath(folder), reason)
        else:
            self.ignore("folders without images", os.fspath(folder))

    def reject(self, name: str, reason: str) -> None:
        """Notes that tracklet `name` cannot be used."""
        self.skipped.append(f"{name}: {reason}")

    def ignore(self, what: str, example: str, count: int = 1) -> None:
        """Counts something that is no part of the data set; the first example of each kind is kept."""
        before, first = self._ignored.get(what, (0, example))
        self._ignored[what] = before + count, first

    def mention(self, paths: Iterable[str]) -> None:
        """Notes that these images belong to a tracklet, whether it is used or not."""
        self._named.update(os.path.split(path)[0] for path in paths)

    def usable(self, tracklet: Tracklet) -> Tracklet | None:
        """The tracklet, with paths corrected that differ in case only (`.JPG`); None if it was rejected."""
        try:
            return self._checked(tracklet)
        except DatasetError as error:
            self.reject(tracklet.name, str(error))
            return None

    def keep(self, tracklets: Iterable[Tracklet]) -> list[Tracklet]:
        """The usable ones, in order."""
        return [kept for tracklet in tracklets if (kept := self.usable(tracklet)) is not None]

    def finish(self) -> list[str]:
        """Reasons of all rejected tracklets; raises DatasetError with them if on_error is "raise"."""
        if self.skipped and self._on_error == "raise":
            shown = "\n  ".join(self.skipped[:5])
            more = f"\n  and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
            raise DatasetError(
                f"{len(self.skipped)} tracklets cannot be used:\n  {shown}{more}\n"
                "Restore the files, or leave these tracklets out with on_error='skip'."
            )
        return self.skipped

    @property
    def ignored(self) -> list[str]:
        """One line for each kind of thing that was not read: how many, and an example."""
        kinds = dict(self._ignored)
        for folder, count in self._images.items():
            if (left := count - self._named[folder]) > 0:
                before, first = kinds.get(_UNNAMED, (0, folder))
                kinds[_UNNAMED] = before + left, first
        return [f"{count} {what}, such as {example}" for what, (count, example) in sorted(kinds.items())]

    def _checked(self, tracklet: Tracklet) -> Tracklet:
        self.mention(tracklet.paths)
        if self.check == "none":
            return tracklet
        paths = tuple(self._existing(path) for path in tracklet.paths)
        if self.check == "decode":
            for path in paths:
                read_image(path)
        return tracklet if paths == tracklet.paths else dataclasses.replace(tracklet, paths=paths)

    def _existing(self, path: str) -> str:
        folder, name = os.path.split(path)
        if self._folder != folder:
            # One folder is remembered: loaders give the tracklets of a folder one after another.
            files = [entry.name for entry in _scan(folder)]
            self._files = {file.lower(): file for file in files} | {file: file for file in files}
            self._images[folder] = sum(is_image(file) and not file.startswith(".") for file in files)
            self._folder = folder
        found = self._files.get(name) or self._files.get(name.lower())
        if found is None:
            raise DatasetError(f"{path}: no such image")
        return path if found == name else os.path.join(folder, found)


_UNNAMED = "images that no tracklet names"


def _some(names: list[str], what: str) -> str:
    return f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _scan(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DatasetError(f"{os.fspath(folder)}: cannot list this folder ({error.strerror})") from error
