"""Draws img/architecture.svg: the packages of vreid_ext and their imports, read from the code.

    python docs/draw_packages.py

A package is a folder of vreid_ext, or of vreid_ext/backends. The modules beside the folders that import no
folder are drawn as one package, "base"; each of the others is a package. Modules that are loaded by name at
run time, as the backends are, do not count as imports.

An arrow points to what is imported. If a imports b and c, and b imports c, the arrow from a to c is left out.
Each box also lists all its imports. The SVG file has both as attributes, for the test.
"""

import ast
from collections.abc import Iterable, Iterator
from html import escape
from itertools import pairwise
from pathlib import Path
from textwrap import wrap

HERE = Path(__file__).parent
ROOT = HERE.parent
PACKAGE = "vreid_ext"
PICTURE = HERE / "img" / "architecture.svg"

# A caption says what a package is for; a package without one is drawn without.
CAPTIONS = {
    "cli": "the command vreid",
    "engine": "recipes, training, evaluation, export",
    "report": "plots, HTML page",
    "gallery": "an index of tracklets",
    "compat": "signatures of other packages",
    "models": "sta, drsta, stal, asta",
    "data": "tracklets, clips, samplers, video",
    "metrics": "CMC, mAP, re-ranking",
    "features": "rows in memory and on disk",
    "weights": "files of other packages",
    "runtimes": "ONNX, OpenVINO",
    "losses": "triplet, AITL, OIM, ...",
    "nn": "layers",
    "ops": "checks, schema, gradient",
    "backends": "selects and loads a backend",
    "backends.reference": "plain torch",
    "backends.native": "CPU",
    "backends.triton": "GPU",
    "backends.cuda": "GPU",
    "_native": "csrc/cpu, csrc/common",
    "_cuda": "csrc/cuda, csrc/common",
    "base": "modules beside the folders",
    "demo": "vreid demo",
}
COLORS = {
    "cli": "#ece3f4",
    "demo": "#ece3f4",
    "engine": "#ece3f4",
    "report": "#ece3f4",
    "data": "#dff0d8",
    "ops": "#fdf1d0",
}
COLOR, BACKEND, BASE = "#dbe9f6", "#f8dfd6", "#eeeeee"

Graph = dict[str, set[str]]


def packages(root: Path = ROOT) -> Graph:
    """The packages that import or are imported and, for each, the packages that it imports."""
    top = root / PACKAGE
    graph: Graph = {}
    for file in sorted(top.rglob("*.py")):
        module = file.relative_to(root).with_suffix("").parts
        if module == (PACKAGE, "__init__"):
            continue  # collects the public names
        used = graph.setdefault(_package(module, top), set())
        used.update(_package(tuple(name.split(".")), top) for name in _imported(file, module))
    edges = {(a, b) for a, used in graph.items() for b in used if a != b and b != "__init__"}
    graph = {name: {b for a, b in edges if a == name} for edge in edges for name in edge}
    modules = {name for name in graph if (top / f"{name}.py").exists()}
    base = {name for name in modules if _reachable(graph, name) <= modules}
    edges = {tuple("base" if name in base else name for name in edge) for edge in edges}
    return {name: {b for a, b in edges if a == name and a != b} for edge in edges for name in edge}


def _package(module: tuple[str, ...], top: Path) -> str:
    """The package of a module (vreid_ext, ...), or the module beside the folders."""
    parts = module[1:]
    if not parts:
        return "__init__"
    if parts[0] in ("cli", "__main__"):
        return "cli"
    if parts[:1] == ("backends",) and len(parts) > 1 and (top / "backends" / parts[1]).is_dir():
        return f"backends.{parts[1]}"
    known = parts[0] in ("_native", "_cuda") or (top / parts[0]).is_dir() or (top / f"{parts[0]}.py").exists()
    return parts[0] if known else "__init__"


def _imported(file: Path, module: tuple[str, ...]) -> Iterator[str]:
    """Full names of all that a file imports from the package, wherever the import stands."""
    here = module[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            source = ".".join((*base, *([node.module] if node.module else [])))
            if source.split(".")[0] == PACKAGE:
                yield from (f"{source}.{name.name}" for name in node.names)


def cycles(graph: Graph) -> list[set[str]]:
    """Groups of packages that import each other, directly or not."""
    reach = {name: _reachable(graph, name) for name in graph}
    groups = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph}
    return [set(group) for group in groups if group]


def arrows(graph: Graph) -> list[tuple[str, str]]:
    """The imports that do not follow from others; those within a cycle all stay."""
    groups = cycles(graph)
    inside = {(a, b) for group in groups for a in group for b in graph[a] & group}
    kept = []
    for name in sorted(graph):
        for other in sorted(graph[name]):
            between = (
                third
                for third in graph[name] - {other}
                if (name, third) not in inside and other in _reachable(graph, third)
            )
            if (name, other) in inside or not any(between):
                kept.append((name, other))
    return kept


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    todo = [start]
    while todo:
        new = graph[todo.pop()] - found
        found |= new
        todo += new
    return found


def levels(graph: Graph) -> dict[str, int]:
    """By package: the longest way down, over steps that are not within a cycle."""
    groups = cycles(graph)
    together = {name: next((frozenset(g) for g in groups if name in g), frozenset({name})) for name in graph}
    depth: dict[frozenset[str], int] = {}

    def of(group: frozenset[str]) -> int:
        if group not in depth:
            below = {together[other] for name in group for other in graph[name]} - {group}
            depth[group] = 1 + max(map(of, below), default=-1)
        return depth[group]

    return {name: of(together[name]) for name in graph}


WIDTH, BOX, TALL, GAP, ROW = 900, 196, 78, 26, 126
Place = tuple[str, str] | str  # a package, or the way of an arrow past a row


def _rows(graph: Graph) -> tuple[list[list[Place]], list[list[Place]]]:
    """The places of each row from the top, and of each arrow the places on its way."""
    level = levels(graph)
    highest = max(level.values())
    rows: list[list[Place]] = [[] for _ in range(highest + 1)]
    for name in sorted(graph):
        rows[highest - level[name]].append(name)
    ways: list[list[Place]] = []
    for start, end in arrows(graph):
        first, last = highest - level[start], highest - level[end]
        way: list[Place] = [start]
        for row in range(first + 1, last):
            rows[row].append((start, end))
            way.append((start, end))
        ways.append([*way, end])
    return rows, ways


def _ordered(rows: list[list[Place]], ways: list[list[Place]]) -> list[list[Place]]:
    """The rows in an order with few crossings: each place moves to the mean of its neighbours, some times."""
    row_of = {(place, number) for number, row in enumerate(rows) for place in row}
    neighbours: dict[tuple[Place, int], list[tuple[Place, int]]] = {key: [] for key in row_of}
    number_of = {place: number for place, number in row_of if isinstance(place, str)}
    steps = []
    for way in ways:
        first, last = number_of[way[0]], number_of[way[-1]]
        if first == last:
            continue
        for at, (upper, lower) in enumerate(pairwise(way), first):
            neighbours[upper, at].append((lower, at + 1))
            neighbours[lower, at + 1].append((upper, at))
            steps.append((at, upper, lower))

    def crossings(order: list[list[Place]]) -> int:
        at = [{place: i for i, place in enumerate(row)} for row in order]
        found = 0
        for i, (row, a, b) in enumerate(steps):
            for other, c, d in steps[:i]:
                if row == other:
                    found += (at[row][a] - at[row][c]) * (at[row + 1][b] - at[row + 1][d]) < 0
        return found

    best, order = rows, [list(row) for row in rows]
    for sweep in range(40):
        numbers = range(len(order)) if sweep % 2 else range(len(order) - 1, -1, -1)
        for number in numbers:
            side = number - 1 if sweep % 2 else number + 1  # the row that was ordered just before
            at = {(p, n): i / max(1, len(row) - 1) for n, row in enumerate(order) for i, p in enumerate(row)}
            means = {}
            for place in order[number]:
                values = [at[key] for key in neighbours[place, number] if key[1] == side]
                means[place] = sum(values) / len(values) if values else at[place, number]
            order[number].sort(key=means.__getitem__)
        if crossings(order) < crossings(best):
            best = [list(row) for row in order]
    return best


def svg(graph: Graph) -> str:
    """The drawing."""
    rows, ways = _rows(graph)
    rows = _ordered(rows, ways)
    centre: dict[tuple[Place, int], float] = {}
    number_of: dict[Place, int] = {}
    for number, row in enumerate(rows):
        sizes = [BOX if isinstance(place, str) else GAP for place in row]
        free = (WIDTH - sum(sizes)) / (len(row) + 1)
        x = 0.0
        for place, size in zip(row, sizes):
            x += free
            centre[place, number] = x + size / 2
            x += size
            if isinstance(place, str):
                number_of[place] = number
    height = ROW * len(rows) + 50
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="15">',
        "<title>The packages of vreid_ext and their imports</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        "<defs>",
        *(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{color}"/></marker>'
            for name, color in (("down", "#555"), ("cycle", "#c00"))
        ),
        "</defs>",
    ]
    red = {(a, b) for group in cycles(graph) for a in group for b in graph[a] & group}
    ends = _ends(ways, centre, number_of)
    for way in ways:
        start, end = str(way[0]), str(way[-1])
        x1, x2 = ends[start, end]
        y1, y2 = 20 + ROW * number_of[start] + TALL, 20 + ROW * number_of[end] - 2
        points = [(x1, y1)]
        if number_of[start] == number_of[end]:  # within a cycle: from side to side
            right = centre[start, number_of[start]] < centre[end, number_of[end]]
            shift, sign = (-8, 1) if right else (8, -1)
            y = 20 + ROW * number_of[start] + TALL / 2 + shift
            points = [
                (centre[start, number_of[start]] + sign * BOX / 2, y),
                (centre[end, number_of[end]] - sign * (BOX / 2 + 2), y),
            ]
        else:
            for number, place in enumerate(way[1:-1], number_of[start] + 1):
                x = centre[place, number]
                points += [(x, 20 + ROW * number - 8), (x, 20 + ROW * number + TALL + 8)]
            points.append((x2, y2))
        path = "M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in points)
        color, marker = ("#c00", "cycle") if (start, end) in red else ("#555", "down")
        lines.append(
            f'<path data-from="{start}" data-to="{end}" d="{path}" fill="none" stroke="{color}" '
            f'stroke-width="1.5" marker-end="url(#{marker})"/>'
        )
    for name, number in sorted(number_of.items(), key=str):
        lines += _box(str(name), graph[str(name)], centre[name, number] - BOX / 2, 20 + ROW * number)
    note = "An arrow points to an imported package. The small lines list all imports."
    lines.append(f'<text x="20" y="{height - 14}" font-size="13" fill="#333">{note}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _ends(
    ways: Iterable[list[Place]], centre: dict[tuple[Place, int], float], number_of: dict[Place, int]
) -> dict[tuple[str, str], tuple[float, float]]:
    """Where an arrow leaves its first box and meets its last: side by side, in the order of their ways."""
    leaving: dict[str, list[tuple[float, str]]] = {}
    coming: dict[str, list[tuple[float, str]]] = {}
    for way in ways:
        start, end = str(way[0]), str(way[-1])
        if number_of[start] != number_of[end]:
            leaving.setdefault(start, []).append((centre[way[1], number_of[start] + 1], end))
            coming.setdefault(end, []).append((centre[way[-2], number_of[end] - 1], start))
    x: dict[tuple[str, str, bool], float] = {}
    for side, boxes in ((True, leaving), (False, coming)):
        for name, others in boxes.items():
            for i, (_, other) in enumerate(sorted(others), 1):
                x[name, other, side] = centre[name, number_of[name]] - BOX / 2 + BOX * i / (len(others) + 1)
    found = {}
    for way in ways:
        start, end = str(way[0]), str(way[-1])
        found[start, end] = x.get((start, end, True), 0.0), x.get((end, start, False), 0.0)
    return found


def _box(name: str, used: set[str], x: float, y: float) -> list[str]:
    color = BACKEND if "backends" in name or name in ("_native", "_cuda") else COLORS.get(name, COLOR)
    color = BASE if name == "base" else color
    middle = x + BOX / 2
    imports = ", ".join(sorted(other.removeprefix("backends.") for other in used))
    texts = [(20, 15, name, ' font-weight="bold"'), (37, 11.5, CAPTIONS.get(name, ""), "")]
    texts += [
        (55 + 13 * i, 10.5, line, ' fill="#666"') for i, line in enumerate(wrap(imports, 36, max_lines=2))
    ]
    return [
        f'<g data-package="{name}" data-imports="{" ".join(sorted(used))}">',
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{BOX}" height="{TALL}" rx="6" fill="{color}" stroke="#444"/>',
        *(
            f'<text x="{middle:.0f}" y="{y + down:.0f}" text-anchor="middle" font-size="{points}"{more}>'
            f"{escape(text)}</text>"
            for down, points, text, more in texts
            if text
        ),
        "</g>",
    ]


if __name__ == "__main__":
    PICTURE.write_text(svg(packages()), encoding="utf-8")
