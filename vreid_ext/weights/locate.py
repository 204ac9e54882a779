"""Finds the file of some weights: a path, a folder of `save_pretrained`, or an address of a model hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

SCHEME = "hf:"
# Names of weights in a folder, in the order in which they are tried.
NAMES = ("weights.safetensors", "model.safetensors", "pytorch_model.bin")
# The files of a system written by `save_pretrained`.
SYSTEM = ("state.json", "weights.safetensors", "README.md", "threshold.json")


class HubAddress(NamedTuple):
    """`hf:OWNER/NAME[/FILE][@REVISION]`.

    Attributes:
        repository: OWNER/NAME.
        file: path of a file in the repository, or None.
        revision: branch, tag or commit, or None for the default branch.
    """

    repository: str
    file: str | None
    revision: str | None

    def url(self, file: str) -> str:
        return f"https://huggingface.co/{self.repository}/resolve/{self.revision or 'main'}/{file}"


def is_hub(source: str | Path) -> bool:
    """Whether the source is an address of a model hub."""
    return str(source).startswith(SCHEME)


def parse_hub(address: str | Path) -> HubAddress:
    """Split an address of a model hub.

    Raises:
        ValueError: the address has another form.
    """
    name, at, revision = str(address).removeprefix(SCHEME).partition("@")
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository or (at and not revision) or name.endswith("/"):
        raise ValueError(f"weights: expected hf:OWNER/NAME[/FILE][@REVISION], got {str(address)!r}")
    return HubAddress(f"{owner}/{repository}", file or None, revision or None)


def located(source: str | Path) -> Path:
    """The file of weights.

    Args:
        source: a file; a folder that contains one of `NAMES`; or `hf:OWNER/NAME[/FILE][@REVISION]`, whose
            file is taken from the cache of `huggingface_hub` or downloaded. Without FILE, the first of
            `NAMES` that the repository has.

    Raises:
        FileNotFoundError: no such file. If it is not in the cache and cannot be downloaded, the message names
            its URL and a way to use it without network.
        ImportError: huggingface_hub is not installed.
        ValueError: the address of the hub has another form.
    """
    if is_hub(source):
        address = parse_hub(source)
        return _fetched(address, NAMES if address.file is None else (address.file,))
    path = Path(source)
    if path.is_dir():
        found = [path / name for name in NAMES if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(
                f"weights: expected one of {', '.join(NAMES)} in the folder, got {str(path)!r} without them"
            )
        return found[0]
    if not path.is_file():
        raise FileNotFoundError(
            f"weights: expected 'none', 'imagenet', an existing file or folder, or hf:OWNER/NAME, got "
            f"{str(path)!r}"
        )
    return path


def located_system(source: str | Path) -> Path:
    """The folder of a system of `save_pretrained`: a path, or `hf:OWNER/NAME[@REVISION]`.

    Raises:
        FileNotFoundError, ImportError, ValueError: see `located`; also if the address names a file.
    """
    if not is_hub(source):
        return Path(source)
    address = parse_hub(source)
    if address.file is not None:
        raise ValueError(f"source: expected hf:OWNER/NAME[@REVISION] without a file, got {str(source)!r}")
    hub = _hub(address)
    try:
        found = hub.snapshot_download(
            address.repository, revision=address.revision, allow_patterns=list(SYSTEM)
        )
    except OSError as error:  # no network, no such repository or revision, no permission
        raise _unreachable(address, SYSTEM[:2], error) from error
    return Path(found)


def _fetched(address: HubAddress, names: Sequence[str]) -> Path:
    """The first file of the repository with one of these names, from the cache or downloaded."""
    hub = _hub(address)
    place = {"repo_id": address.repository, "revision": address.revision}
    for name in names:
        try:
            return Path(hub.hf_hub_download(filename=name, **place))
        except hub.errors.LocalEntryNotFoundError as error:  # not in the cache, and no network
            cached = [hub.try_to_load_from_cache(filename=each, **place) for each in names]
            found = [Path(each) for each in cached if isinstance(each, str)]
            if not found:
                raise _unreachable(address, names, error) from error
            return found[0]
        except hub.errors.EntryNotFoundError:
            continue
        except OSError as error:  # no such repository or revision, no permission
            raise _unreachable(address, names, error) from error
    raise FileNotFoundError(
        f"weights: expected one of {', '.join(names)} in {address.repository!r} on the hub, got none of them"
    )


def _hub(address: HubAddress) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(
            f"{SCHEME}{address.repository} needs huggingface_hub: pip install 'vreid-ext[hub]'"
        ) from error
    return huggingface_hub


def _unreachable(address: HubAddress, names: Sequence[str], error: Exception) -> FileNotFoundError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    urls = " and ".join(address.url(name) for name in names[:2])
    return FileNotFoundError(
        f"weights: {', '.join(names)} of {address.repository!r} not in the cache and not downloaded "
        f"({reason}); put {urls} into a folder and pass the path of the folder"
    )
