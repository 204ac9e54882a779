"""Files of an evaluation: the figures, and next to them those of each query."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vreid_ext._files import write_json
from vreid_ext.distributed import is_main


def write_figures(file: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """Write the figures of an evaluation to `file`, and those of each query to NAME.queries.json next to it.

    The second file is a list with an entry for every row of the figures: `name`, `pid`, `ap` (null for a
    skipped query) and `first_hit` (0 for a skipped query), lists with one item per query. It is written
    first. Under `torchrun` only the main process writes.

    Returns:
        The written figures: `result` with `per_query`, the name of the second file, in place of the rows'
        `per_query`.
    """
    queries = file.with_name(f"{file.stem}.queries.json")
    rows = [{name: value for name, value in row.items() if name != "per_query"} for row in result["rows"]]
    written = {**result, "rows": rows, "per_query": queries.name}
    if is_main():
        write_json(queries, [row["per_query"] for row in result["rows"]])
        write_json(file, written)
    return written


def read_result(path: Path) -> dict[str, Any]:
    """Read the figures of an evaluation from a JSON file or from the folder of a finished run.

    Raises:
        ValueError: there are no figures.
    """
    file = _figures_of(path)
    if not file.is_file():
        raise ValueError(f"result: expected a finished run or the JSON of `vreid eval`, got {str(path)!r}")
    result = _read_json(file)
    if not isinstance(result, dict) or "rows" not in result:
        raise ValueError(f"result: expected the JSON of `vreid eval`, got {str(file)!r}, which has no rows")
    return result


def read_queries(path: Path) -> list[dict[str, Any]]:
    """Read the figures of each query of an evaluation, as `write_figures` wrote them, a dict for every row.

    Args:
        path: as in `read_result`.

    Raises:
        ValueError: there are none, as in results of older versions; they are damaged, or of another
            evaluation than the figures.
    """
    result, file = read_result(path), _figures_of(path)
    again = "run `vreid eval` again and pass the JSON that it writes"
    stored = file.with_name(str(result.get("per_query")))
    if "per_query" not in result or not stored.is_file():
        raise ValueError(f"result: expected figures of each query next to {str(file)!r}, got none; {again}")
    rows = _read_json(stored)
    try:
        pairs = zip(result["rows"], rows, strict=True)
        same = all(_is_of(queries, figures) for figures, queries in pairs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"result: expected figures of each query in {str(stored)!r}, got {error!r}; {again}"
        ) from error
    if not same:
        raise ValueError(
            f"result: expected figures of the queries of {str(file)!r}, got those of another evaluation in "
            f"{str(stored)!r}; {again}"
        )
    return [queries | {"ap": [torch.nan if ap is None else ap for ap in queries["ap"]]} for queries in rows]


def _is_of(queries: Mapping[str, Any], figures: Mapping[str, Any]) -> bool:
    """Whether the figures are the means of those of the queries."""
    lengths = {len(queries[name]) for name in ("name", "pid", "ap", "first_hit")}
    valid = [ap for ap in queries["ap"] if ap is not None]
    return (
        lengths == {figures["queries"]}
        and len(valid) == figures["valid_queries"]
        and abs(sum(valid) / len(valid) - figures["mAP"]) < 1e-9
    )


def _figures_of(path: Path) -> Path:
    return path / "result.json" if path.is_dir() else path


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"result: expected JSON in {str(file)!r}, got: {error}") from error
