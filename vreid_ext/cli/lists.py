"""The lists that a search prints, of a folder of features and of an index."""

from pathlib import Path
from typing import Any

from vreid_ext.cli.output import emit, warn


def search_and_print(
    location: str,
    query: Path,
    *,
    top: int,
    where: str | None,
    out: Path | None,
    threshold: Path | None,
    approximate: bool,
    as_json: bool,
) -> None:
    """`vreid index search` and, for an index, `vreid search`."""
    from vreid_ext._files import write_json
    from vreid_ext.engine.index import read_query, search_index
    from vreid_ext.engine.threshold import find_threshold, read_threshold
    from vreid_ext.gallery import Gallery

    opened = Gallery(location)
    known = find_threshold(query) if threshold is None else read_threshold(threshold)
    lists, drifts = search_index(
        opened, read_query(query), top, where, exhaustive=not approximate, threshold=known
    )
    for each in drifts:
        warn(str(each))
    emit(as_json, lists, *search_lines(lists), *_exactness(lists))
    if out is not None:
        write_json(out, lists)


def search_lines(lists: list[dict[str, Any]]) -> list[str]:
    """The lists of a search as text."""
    lines = []
    for entry in lists:
        lines.append(entry["query"])
        for place, item in enumerate(entry["nearest"], start=1):
            answer = f"  {item['answer']:16s}" if "answer" in item else ""
            facts = [item[key] for key in ("camera", "start") if item.get(key)]
            lines.append("  ".join([f"  {place:3d}  {item['distance']:.4f}{answer}", item["name"], *facts]))
    return lines


def _exactness(lists: list[dict[str, Any]]) -> list[str]:
    exact = sum(entry["exact"] for entry in lists)
    if exact == len(lists):
        return ["exact: every tracklet that meets the filter was compared"]
    return [f"approximate: {len(lists) - exact} of {len(lists)} lists may miss a nearer tracklet"]
