"""Listing of image folders, and checks that exclude unusable tracklets before training starts."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
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
Gallery = Literal["with_query", "without_query"]

# Folders that operating systems, archives and network drives create.
_SYSTEM_FOLDERS = ("@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information")

# Files in the data set's folder that other parts of this package read and write.
_SIDE_FILES = re.compile(r"joints\.jsonl?|tracklets(-.*)?\.(json|txt)|splits_.*\.json|\w+_attributes\.csv")


class Listing(NamedTuple):
    """Entries of a folder: sub-folders and other files sorted by name, images in natural order."""

    folders: list[str]
    images: list[str]
    others: list[str]


def list_folder(folder: str | os.PathLike[str]) -> Listing:
    """List the sub-folders, the images and all other entries of a folder.

    Images are recognized by suffix, ignoring case, and sorted in natural order: frame 2 comes before frame
    10, with and without leading zeros. Hidden entries and system folders are listed as others.

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
    """Whether a file name has the suffix of an image, ignoring case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a symbolic link to itself
        if is_image(entry.name):  # reading the image raises an error later, and its tracklet is rejected
            return False
        raise DatasetError(f"{entry.path}: cannot be accessed ({error.strerror})") from error


def find_root(root: str | os.PathLike[str], layout: str, needed: Iterable[str] = ()) -> Path:
    """Check that the folder `root` and the `needed` entries in it exist, and return `root` as a Path.

    Args:
        layout: description of the expected contents, for the message.

    Raises:
        DatasetError: the folder or an entry is missing.
    """
    path = Path(root)
    if not path.is_dir():
        raise DatasetError(
            f"root: expected a folder with {layout}, got {path}, which does not exist or is not a folder"
        )
    for name in needed:
        if not (path / name).exists():
            raise DatasetError(f"root: expected {layout} in {path}, got a folder without {name!r}")
    return path


def read_rows(path: Path, columns: int, example: str) -> list[list[str]]:
    """Lines of a text file, split at white space. Empty lines are dropped.

    Args:
        columns: number of words that every line must have.
        example: a valid line, for the message.

    Raises:
        DatasetError: the file cannot be read, is empty or has a line with another number of words.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot read this list ({error}); restore the file") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if words and len(words) != columns:
            raise DatasetError(f"{path}, line {number}: expected a line like {example!r}, got {line!r:.80}")
        rows += [words] if words else []
    if not rows:
        raise DatasetError(f"{path}: expected at least one line like {example!r}, got an empty file")
    return rows


def gallery_sentence(gallery: Gallery) -> str:
    """Say whether the query tracklets are in the gallery.

    Raises:
        ValueError: an invalid option.
    """
    sentences = {"with_query": "kept in the gallery", "without_query": "excluded from the gallery"}
    if gallery not in sentences:
        raise ValueError(f"gallery: expected 'with_query' or 'without_query', got {gallery!r}")
    return f"query tracklets {sentences[gallery]}"


def setting_rule(setting: str, known: Sequence[str]) -> tuple[str, dict[str, Literal["same", "other"]]]:
    """Sentence and `junk_tags` of "general", "<tag>_changing" or "same_<tag>".

    Raises:
        ValueError: the setting is not one of the known ones.
    """
    if setting not in known:
        raise ValueError(f"setting: expected one of {', '.join(known)}, got {setting!r}")
    sentence = f"its own query and gallery, {setting.replace('_', ' ')} setting"
    if setting == "general":
        return sentence, {}
    if setting.startswith("same_"):
        return sentence, {setting.removeprefix("same_"): "other"}
    return sentence, {setting.removesuffix("_changing"): "same"}


class Screen:
    """Checks tracklets, and records which tracklets are rejected and which files are ignored.

    Args:
        check: "exists" checks that all images exist by listing each image folder once, "decode" also decodes
            every image, "none" checks no images.
        on_error: "raise": `finish` raises one DatasetError with the first rejected tracklets; "skip":
            rejected tracklets are only listed in `skipped`.
    """

    def __init__(self, check: Check, on_error: OnError) -> None:
        if check not in get_args(Check):
            raise ValueError(f"check: expected one of {', '.join(get_args(Check))}, got {check!r}")
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error: expected one of {', '.join(get_args(OnError))}, got {on_error!r}")
        self.check, self._on_error = check, on_error
        self._folder = ""  # the folder listed last
        self._files: dict[str, str] = {}  # its files, by name and by name in lower case
        self._images: dict[str, int] = {}  # number of image files in each listed folder
        self._named: Counter[str] = Counter()  # number of images in each folder that belong to a tracklet
        self._ignored: dict[str, tuple[int, str]] = {}
        self.skipped: list[str] = []

    def folders(self, folder: Path, expected: str) -> list[str]:
        """Names of the sub-folders of a folder that should contain no images.

        If it does, it is rejected; `expected` describes the expected contents.
        """
        listing = self.look(folder)
        if listing.images:
            self.reject(os.fspath(folder), f"expected {expected}, got {_some(listing.images, 'images')}")
        return listing.folders

    def images(self, folder: Path) -> list[str]:
        """Names of the images of a tracklet; sub-folders that contain images are rejected."""
        listing = self.look(folder)
        for name in listing.folders:
            self.unread(folder / name, "expected the images of one tracklet, got a folder of images")
        return listing.images

    def frames(self, folder: Path, name: str) -> tuple[str, ...]:
        """Paths of all images in the folder of the tracklet `name`, which is rejected if there are none."""
        try:
            images = self.images(folder)
        except DatasetError as error:
            self.reject(name, str(error))
            return ()
        if not images:
            self.reject(name, f"{folder}: expected at least one image, got none")
        return tuple(os.fspath(folder / image) for image in images)

    def look(self, folder: Path) -> Listing:
        """List a folder and count its other files as ignored."""
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
        """Reject an unused folder if it contains images at any depth, else count it as ignored."""
        if any(is_image(name) for _, _, names in os.walk(folder) for name in names):
            self.reject(os.fspath(folder), reason)
        else:
            self.ignore("folders without images", os.fspath(folder))

    def reject(self, name: str, reason: str) -> None:
        """Record that the tracklet `name` cannot be used."""
        self.skipped.append(f"{name}: {reason}")

    def ignore(self, what: str, example: str, count: int = 1) -> None:
        """Count entries of kind `what` as not part of the data set, and keep the first example."""
        before, first = self._ignored.get(what, (0, example))
        self._ignored[what] = before + count, first

    def mention(self, paths: Iterable[str]) -> None:
        """Record that these images belong to a tracklet, whether or not it is used."""
        self._named.update(os.path.split(path)[0] for path in paths)

    def usable(self, tracklet: Tracklet) -> Tracklet | None:
        """The tracklet if it passes the checks, else None. Corrects the case of paths (e.g. `.JPG`)."""
        try:
            return self._checked(tracklet)
        except DatasetError as error:
            self.reject(tracklet.name, str(error))
            return None

    def keep(self, tracklets: Iterable[Tracklet]) -> list[Tracklet]:
        """The usable tracklets, in order."""
        return [kept for tracklet in tracklets if (kept := self.usable(tracklet)) is not None]

    def finish(self) -> list[str]:
        """Return the reasons of all rejections, or raise DatasetError with them if on_error is "raise"."""
        if self.skipped and self._on_error == "raise":
            shown = "\n  ".join(self.skipped[:5])
            more = f"\n  and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
            raise DatasetError(
                f"{len(self.skipped)} tracklets cannot be used:\n  {shown}{more}\n"
                "Restore the files, or exclude these tracklets with on_error='skip'."
            )
        return self.skipped

    @property
    def ignored(self) -> list[str]:
        """One line for each kind of ignored entry, with the count and an example."""
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
            # Caching one folder is enough: readers pass the tracklets of a folder one after another.
            files = [entry.name for entry in _scan(folder)]
            self._files = {file.lower(): file for file in files} | {file: file for file in files}
            self._images[folder] = sum(is_image(file) and not file.startswith(".") for file in files)
            self._folder = folder
        found = self._files.get(name) or self._files.get(name.lower())
        if found is None:
            raise DatasetError(f"{path}: no such image")
        return path if found == name else os.path.join(folder, found)


_UNNAMED = "images that belong to no tracklet"


def _some(names: list[str], what: str) -> str:
    return f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _scan(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DatasetError(f"{os.fspath(folder)}: cannot list this folder ({error.strerror})") from error
