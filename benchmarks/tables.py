"""Writes the tables of times and accuracies in README.md and docs/ from the rows in benchmarks/results.

    python benchmarks/tables.py [--check]

A page marks the place of a table with `<!-- table: NAME -->` and `<!-- end of table -->`; the lines between
the markers are replaced. With --check nothing is written, and the exit code is 1 if a page is out of date.

The name of a file with times contains the benchmark: FAMILY.json or FAMILY_ANYTHING.json. There may be
files of several machines. A table shows the newest row of each case and each CPU or GPU, by the date of its
run (for equal dates, by file name).

The tables `products` and `streams` show benchmarks/results/kernels/*.json of benchmarks/kernel_account.py.
The table `deployment` shows benchmarks/results/deployment/cpu.json of benchmarks/deployment.py.
The table `accuracy SET GROUP` shows benchmarks/results/accuracy/SET.json of benchmarks/accuracy.py, and
`adaptation gain` and `adaptation rounds` show adaptation.json of benchmarks/adaptation.py.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "img"
BLOCK = re.compile(r"(<!-- table: ([^>\n]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """One table: the rows of some benchmarks that compare the same thing.

    Attributes:
        op: name of the measured op.
        families: the benchmarks; the names of their files start with these.
        cases: a regular expression for the cases of this table.
        limits: providers that only do the unavoidable work, for the column "limit". A case has one of them.
        yardsticks: providers that compute something else, so they are not competitors.
        ours: the provider that is compared with the others.
        summary: whether the summary in the README has a line for this table.
        counted: what a case states a number of ("16 clips"), for a column with its rate per second.
    """

    op: str
    families: tuple[str, ...]
    cases: str = ""
    limits: tuple[str, ...] = ()
    yardsticks: tuple[str, ...] = ()
    ours: str = "ours"
    summary: bool = True
    counted: str = ""


_MAPS = {
    "limits": ("one read", "two reads, one write"),
    "yardsticks": ("the same, fresh memory",),
}
_RANKING = ("ranking", "rerank", "million")
TABLES = {
    "sta_pool": Table("`ops.sta_pool`", ("sta",), **_MAPS),
    "region_pool": Table("`ops.region_pool`", ("region",), **_MAPS),
    "triplet loss": Table("`losses.TripletLoss`", ("mining",), limits=("one product x @ x.T",)),
    "supcon": Table("the contrastive loss", ("supcon",), yardsticks=("two products",), summary=False),
    "part_distance": Table("`ops.part_distance`", ("part_metric",), limits=("R products, float32",)),
    "evaluate": Table(
        "`metrics.evaluate`", _RANKING, r"evaluate (?!.*from a file)", limits=("the matrix product",)
    ),
    "count": Table("`compat.torchreid.evaluate_rank`", _RANKING, "count ", ours="ours, evaluate_rank"),
    "rerank": Table(
        "`ops.k_reciprocal`", _RANKING, "re-rank ", limits=("products and top-k",), yardsticks=("products",)
    ),
    "million": Table(
        "`metrics.evaluate` from a file",
        _RANKING,
        "evaluate .*from a file",
        limits=("the matrix product",),
        yardsticks=("the matrix product, from the file",),
        summary=False,
    ),
    "product": Table("the matrix product", ("product",), summary=False),
    "cluster": Table("`metrics.cluster`", ("clustering",), limits=("products and top-k",), summary=False),
    "training steps": Table(
        "a training step",
        ("steps",),
        r"train (?!.*precision)",
        limits=("backbone",),
        yardsticks=("loader", "head and loss", "optimizer", "log"),
        summary=False,
        counted="clips",
    ),
    "precision": Table(
        "a training step in other precisions", ("steps",), "train .*precision", summary=False, counted="clips"
    ),
    "extraction": Table("`extract`", ("steps",), "extract ", summary=False, counted="clips"),
    "loader": Table(
        "the loader",
        ("loader",),
        yardsticks=("Pillow alone", "decode_jpeg alone", "decoded at reduced size"),
        summary=False,
        counted="frames",
    ),
    "drop-in": Table("the examples", ("drop_in",), yardsticks=("import changed",), summary=False),
}

# Names of providers in the tables, if the name in the rows is not clear without its context.
NAMES = {
    "ours": "vreid_ext",
    "ours again": "vreid_ext, warm",
    "ours, with packing": "vreid_ext, with packing",
    "metric-learning": "pytorch-metric-learning",
    "the same, fresh memory": "two reads, one write to new memory",
    "products and top-k": "torch's products and top-k",
    "products": "torch's products",
}


@dataclass(frozen=True)
class Run:
    """The part of a benchmark run that is shown in a table. `cases` maps case and provider to a row."""

    file: Path
    machine: dict[str, Any]
    cases: dict[str, dict[str, dict[str, Any]]]

    @property
    def device(self) -> str:
        """GPU, or CPU and number of threads. Newer rows of the same device replace older ones."""
        return str(self.machine.get("gpu") or f"{self.machine['cpu']}, {self.machine['threads']} threads")

    @property
    def version(self) -> str:
        """Commit, date and torch."""
        commit = self.machine.get("commit")
        of_code = f"commit {commit}" if commit else "commit not recorded"
        return f"{of_code}, {self.machine['date']}, torch {self.machine['torch']}"


def family(file: Path) -> str:
    """The benchmark that wrote a file.

    Raises:
        ValueError: no table shows rows of this file.
    """
    known = {name for table in TABLES.values() for name in table.families}
    found = [name for name in known if file.stem == name or file.stem.startswith(f"{name}_")]
    if not found:
        raise ValueError(f"{file.name}: expected a name that starts with one of {sorted(known)}")
    return max(found, key=len)


def table_of(file: Path, case: str) -> str:
    """The name of the table that shows a case.

    Raises:
        ValueError: there is none, or more than one.
    """
    found = [
        name
        for name, table in TABLES.items()
        if family(file) in table.families and re.match(table.cases, case)
    ]
    if len(found) != 1:
        raise ValueError(f"{file.name}: expected one table for the case {case!r}, got {found}")
    return found[0]


def runs(results: Path = RESULTS) -> dict[str, list[Run]]:
    """For each table the runs to show, grouped by device and the newest first."""
    contents = [(file, json.loads(file.read_text())) for file in results.glob("*.json")]
    contents.sort(key=lambda content: (content[1]["machine"]["date"], content[0].name), reverse=True)
    found: dict[str, list[Run]] = {name: [] for name in TABLES}
    seen = set()
    for file, content in contents:
        cases: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
        for row in content["rows"]:
            of_table = cases.setdefault(table_of(file, row["case"]), {})
            of_table.setdefault(row["case"], {})[row["provider"]] = row
        for name, rows in cases.items():
            run = Run(file, content["machine"], rows)
            for case in [case for case in rows if (name, run.device, case) in seen]:
                del rows[case]
            seen.update((name, run.device, case) for case in rows)
            if rows:
                found[name].append(run)
    devices = list(dict.fromkeys(run.device for shown in found.values() for run in shown))
    return {name: sorted(shown, key=lambda run: devices.index(run.device)) for name, shown in found.items()}


def duration(milliseconds: float) -> str:
    value, unit = (milliseconds, "ms") if milliseconds < 1000 else (milliseconds / 1000, "s")
    return f"{value:#.3g}".rstrip(".") + f" {unit}"


def ratio(table: Table, providers: dict[str, dict[str, Any]], name: str) -> float:
    """Time of a provider / our time, both from the same rounds."""
    value: float = providers[name]["per_ours"] / providers[table.ours]["per_ours"]
    return value


def competitors(table: Table, providers: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Time / our time for every competitor, that is, every provider that computes the same result."""
    others = {*table.limits, *table.yardsticks}
    return {
        name: ratio(table, providers, name)
        for name in providers
        if not name.startswith("ours") and name not in others
    }


def of_limit(table: Table, providers: dict[str, dict[str, Any]]) -> float | None:
    """Our time / the limit."""
    for name in table.limits:
        if name in providers:
            return 1 / ratio(table, providers, name)
    return None


def markdown(heading: list[str], lines: list[list[str]]) -> list[str]:
    rule = "|" + "---|" * len(heading)
    return [f"| {' | '.join(heading)} |", rule, *(f"| {' | '.join(cells)} |" for cells in lines)]


def measured(table: Table, run: Run) -> list[str]:
    """A table with one line per case: our time, the limit, and the times of the others / our time."""
    providers = list(dict.fromkeys(name for case in run.cases.values() for name in case))
    limits = [name for name in providers if name in table.limits]
    others = [name for name in providers if name not in (table.ours, *limits)]
    # In the rows of `evaluate_rank`, "ours" is the counting alone, which is a part of it.
    names = NAMES | ({"ours": "counting alone", table.ours: "vreid_ext"} if table.ours != "ours" else {})
    remembered = [
        name for name in providers if any(case.get(name, {}).get("beyond_mb") for case in run.cases.values())
    ]
    compared = [
        name
        for name in others
        if any(case.get(name, {}).get("cosine") is not None for case in run.cases.values())
    ]
    heading = ["case", *([f"{table.counted} per second"] if table.counted else []), "vreid_ext"]
    heading += [f"limit: {' / '.join(limits)}", "vreid_ext / limit"] if limits else []
    heading += [f"{names.get(name, name)}" for name in others]
    heading += [f"memory, {names.get(name, name)}" for name in remembered]
    heading += [f"cosine, {names.get(name, name)}" for name in compared]
    lines = []
    for case, rows in run.cases.items():
        median = rows[table.ours]["median"]
        cells = [case, *([_rate(case, table.counted, median)] if table.counted else []), duration(median)]
        if limits:
            limit, share = next((rows[name] for name in limits if name in rows), None), of_limit(table, rows)
            cells += [duration(limit["median"]), f"{share:.2f}"] if limit and share else ["", ""]
        baselines = competitors(table, rows)
        cells += [
            _times(ratio(table, rows, name), name in baselines) if name in rows else "" for name in others
        ]
        cells += [_megabytes(rows.get(name, {}).get("beyond_mb")) for name in remembered]
        cells += [f"{rows[name]['cosine']:.5f}" if name in rows else "" for name in compared]
        lines.append(cells)
    return markdown(heading, lines)


def summary(shown: dict[str, list[Run]], link: Callable[[Path], str]) -> list[str]:
    """For each op and device: the fastest competitor in the best and in the worst case, and the limit."""
    heading = ["", "cases", "best case", "worst case", "time / limit", "measured"]
    lines = []
    for name, table in TABLES.items():
        for device in dict.fromkeys(run.device for run in shown[name] if table.summary):
            of_device = [run for run in shown[name] if run.device == device]
            cases = {case: rows for run in of_device for case, rows in run.cases.items()}
            fastest = sorted(
                (min((time, name) for name, time in found.items()), case)
                for case, rows in cases.items()
                if (found := competitors(table, rows))
            )
            texts = [f"{_times(time)} {NAMES.get(name, name)} ({case})" for (time, name), case in fastest]
            shares = [share for rows in cases.values() if (share := of_limit(table, rows))]
            limit = dict.fromkeys(f"{share:.2f}" for share in (min(shares), max(shares))) if shares else ()
            versions = [f"[{run.version}]({link(run.file)})" for run in of_device]
            measured_on = f"{_machine(of_device[0])}; {'; '.join(versions)}"
            best, worst = (texts[-1], texts[0] if len(texts) > 1 else "the same") if texts else ("", "")
            lines.append([table.op, str(len(cases)), best, worst, " to ".join(limit), measured_on])
    return markdown(heading, lines)


def best_and_worst(shown: dict[str, list[Run]]) -> list[str]:
    """For each op: the fastest competitor in the best and in the worst case over all CPUs."""
    lines = []
    for name, table in TABLES.items():
        times = sorted(
            (time, NAMES.get(competitor, competitor), case, run.device)
            for run in shown[name]
            if table.summary and "gpu" not in run.machine
            for case, rows in run.cases.items()
            if (found := competitors(table, rows))
            for time, competitor in [min((time, competitor) for competitor, time in found.items())]
        )
        if times:
            best, worst = (f"{_times(time)} {what} ({case})" for time, what, case, _ in (times[-1], times[0]))
            cpus = len({device for *_, device in times})
            lines.append([table.op, best, worst, f"{len(times)} on {cpus} CPU{'s' if cpus > 1 else ''}"])
    return markdown(["", "best case", "worst case", "cases"], lines)


# Tables of benchmarks/gallery.py and their files.
ENGINES = {"engines": "engines", "engine of 10^6": "million"}
DEPLOYMENT = "deployment"  # the table of benchmarks/deployment.py
# The tables of benchmarks/kernel_account.py.
PRODUCTS = "products"
STREAMS = "streams"

# Assumptions of `plan`: bytes per second of a disk, and positives per query.
_DISK, _POSITIVES = 1e9, 50


def plan(shown: dict[str, list[Run]]) -> list[str]:
    """Estimated times and sizes for larger galleries, from the rate of the newest run with a file."""
    run = shown["million"][0]
    ((case, rows),) = run.cases.items()
    queries, items, d = map(int, re.findall(r"\d+", case))
    rate = 2 * queries * items * d / rows["the matrix product"]["median"] * 1e3
    lines = []
    for gallery, processes in ((10**8, 1), (10**8, 16), (10**9, 128)):
        product, read = 2 * queries * gallery * d / rate / processes, 4 * gallery * d / _DISK / processes
        lines.append(
            [
                f"10^{len(str(gallery)) - 1}",
                f"{4 * gallery * d / 1e9:.0f} GB",
                str(processes),
                *(f"{seconds:.0f} s" for seconds in (product, read, product + read)),
                "0" if processes == 1 else f"{16 * _POSITIVES * queries / 1e6:.1f} MB",
                f"{32 * gallery / 1e9:.1f} GB",
                f"{32 * gallery / processes / 1e9:.2f} GB",
            ]
        )
    heading = [
        "gallery",
        "file",
        "processes",
        "product",
        "read",
        "sum",
        "exchanged",
        "all labels",
        "own labels",
    ]
    return [
        f"Product: {rate / 1e9:.0f} GFLOP/s for each process, as measured on {_machine(run)}; {run.version}.",
        "",
        *markdown(heading, lines),
    ]


def accuracy(name: str, group: str, link: Callable[[Path], str]) -> list[str]:
    """The figures of a group of rows, and the difference of each to its baseline and to the row `frame`.

    Args:
        name: the file in benchmarks/results/accuracy, without its suffix.
        group: a key of `GROUPS` in benchmarks/accuracy_rows.py.
    """
    file = RESULTS / "accuracy" / f"{name}.json"
    rows = [row for row in json.loads(file.read_text())["rows"] if row["group"] == group]
    if not rows:
        return ["Not measured yet."]
    strongest = [] if {row["baseline"] for row in rows} == {"frame"} else ["frame"]
    lines = []
    for row in rows:
        cells = [f"`{row['row']}`", f"`{row['baseline']}`" if row["baseline"] else ""]
        for condition in ("clean", "corrupted"):
            figures = row[condition]
            cells += [_interval(figures[figure]) for figure in ("mAP", "rank1")]
            for other in (row["baseline"], *strongest):
                minus = figures["minus"].get(other)
                cells.append(_interval(minus["mAP"]) if minus else "")
        lines.append([*cells, str(len(row["seeds"])), f"{row['cpu_hours']:.1f}"])
    machines = [machine for row in rows for machine in row["machines"]]
    cpus, dates, torches = ({machine[fact] for machine in machines} for fact in ("cpu", "date", "torch"))
    days = " to ".join(sorted({min(dates), max(dates)}))
    made_on = f"{', '.join(sorted(cpus))}, {days}, torch {', '.join(sorted(torches))}"
    minus = ["minus baseline", *(f"minus `{other}`" for other in strongest)]
    heading = ["row", "baseline", "mAP", "rank-1", *minus, "corrupted: mAP", "rank-1", *minus]
    counts = f"{rows[0]['clean']['queries']} queries of {rows[0]['clean']['persons']} persons"
    return [
        f"{counts}; {made_on} ([rows]({link(file)})).",
        "",
        *markdown([*heading, "seeds", "CPU hours"], lines),
    ]


def adaptation(part: str, link: Callable[[Path], str]) -> list[str]:
    """The figures before and after adaptations ("gain"), or the clusters of each round ("rounds")."""
    file = RESULTS / "accuracy" / "adaptation.json"
    if not file.is_file():
        return ["Not measured yet."]
    content = json.loads(file.read_text())
    lines, machine = [], content["machine"]
    for row in content["rows"]:
        names = [row["source"], row["target"]]
        if part == "rounds":
            for each in row["rounds"]:
                scores = each["scores"]
                counts = [str(each[name]) for name in ("round", "clusters", "noise")]
                kept = [f"{scores[name]:.3f}" for name in ("ari", "precision", "recall", "f")]
                lines.append([*names, *counts, f"{scores['persons']} in {each['tracklets']}", *kept])
        else:
            (difference,) = row["differences"]
            cells = [
                f"{100 * side[0][figure]:.1f}"
                for figure in ("mAP", "rank1")
                for side in (row["before"], row["rows"])
            ]
            cells += [_interval(difference[figure]) for figure in ("mAP", "rank1")]
            lines.append([*names, *cells, f"{difference['queries']} of {difference['persons']}"])
    heading = {
        "gain": [
            "mAP before",
            "after",
            "rank-1 before",
            "after",
            "mAP gain",
            "rank-1 gain",
            "queries of persons",
        ],
        "rounds": ["round", "clusters", "noise", "persons", "ARI", "pair precision", "recall", "F"],
    }[part]
    return [
        f"{machine['cpu']}, {machine['date']}, torch {machine['torch']} ([rows]({link(file)})).",
        "",
        *markdown(["source", "target", *heading], lines),
    ]


def engines(name: str, link: Callable[[Path], str]) -> list[str]:
    """The engines of a gallery, measured by benchmarks/gallery.py; a figure that is missing is left out."""
    file = RESULTS / "gallery" / f"{name}.json"
    lines = [
        f"`python benchmarks/gallery.py`, [rows]({link(file)}):",
        "",
        "| engine | rows | write | query | with filter | ids of brute force "
        "| first query of a process | on disk | installed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in json.loads(file.read_text(encoding="utf-8")):
        exact = "all" if row["query_exact"] and row["filtered_exact"] else "not all"
        write, first = (f"{row[key]:.2g} s" if key in row else "" for key in ("write_s", "first_query_s"))
        size = f"{row['install_bytes'] / 1e6:.0f} MB" if "install_bytes" in row else ""
        lines.append(
            f"| {row['engine']} | {row['rows']:,} | {write} | {row['query_ms']:.0f} ms "
            f"| {row['filtered_ms']:.0f} ms | {exact} | {first} "
            f"| {row['disk_bytes'] / 1e6:.0f} MB | {size} |"
        )
    return lines


def deployment(link: Callable[[Path], str]) -> list[str]:
    """Whole models in every runtime, measured by benchmarks/deployment.py."""
    file = RESULTS / "deployment" / "cpu.json"
    if not file.is_file():
        return ["Not measured yet."]
    content = json.loads(file.read_text(encoding="utf-8"))
    machine, lines = content["machine"], []
    for row in content["rows"]:
        frames = int(re.findall(r", (\d+) frames", row["case"])[0])
        rate = 1e3 * frames / row["median"]
        cells = [f"{rate:.1f}", f"{1 / row['per_ours']:.2f} x", f"{row['beyond_mb']:.0f} MB"]
        lines.append([row["case"], row["provider"], *cells, f"{row['file_mb']:.1f} MB"])
    heading = ["model", "runtime", "frames per second", "rate / torch", "peak memory", "file"]
    return [
        f"{machine['cpu']}, {machine['isa']}, threads: {machine['threads']}; {machine['date']}, torch "
        f"{machine['torch']} ([rows]({link(file)})).",
        "",
        *markdown(heading, lines),
    ]


def products(link: Callable[[Path], str]) -> list[str]:
    """Accounts of the kernels that multiply matrices, predicted by benchmarks/kernel_account.py."""
    file = RESULTS / "kernels" / "account.json"
    lines = []
    for step in json.loads(file.read_text(encoding="utf-8"))["steps"]:
        for row in step["rows"]:
            loop, cycles = row["loop"], row["cycles"]
            if not loop["tensor"] or "__half" in row["kernel"]:  # as with __nv_bfloat16
                continue
            moved = [f"{loop[name]:.0f}" for name in ("shared_loads", "shared_bytes", "global_bytes")]
            counts = [f"{loop[name]:.0f}" for name in ("tensor", "integers", "floats")]
            units = [f"{cycles[unit]:.0f}" for unit in ("tensor", "integer", "shared", "L2", "issue")]
            prediction = [row["bound"], f"{row['share']:.0%}", f"{row['teraflops']:.0f}"]
            resources = [f"{row['registers']}", f"{row['shared'] / 1024:.0f} KB", f"{row['blocks']}"]
            cells = [
                step["name"],
                row["gpu"],
                f"`{row['kernel']}`",
                *counts,
                *moved,
                f"{loop['barriers']:.0f}",
            ]
            lines.append([*cells, *resources, *units, *prediction])
    heading = ["step", "GPU", "kernel", "tensor", "integer", "float", "shared loads", "shared bytes"]
    heading += [
        "global bytes",
        "barriers",
        "registers",
        "shared memory",
        "blocks",
        "cycles: tensor",
        "integer",
    ]
    heading += ["shared", "L2", "issue", "bound", "share of the float16 peak, at most", "TFLOP/s, at most"]
    return [f"`python benchmarks/kernel_account.py` ([rows]({link(file)})):", "", *markdown(heading, lines)]


def streams(link: Callable[[Path], str]) -> list[str]:
    """Accounts of the kernels that read maps, rows or distances, predicted by benchmarks/kernel_account.py.

    Left out: kernels whose main loop has no 16-byte load, which read small tables or rows that are not
    aligned.
    """
    file = RESULTS / "kernels" / "streams.json"
    lines = []
    for step in json.loads(file.read_text(encoding="utf-8"))["steps"]:
        for row in step["rows"]:
            loop, cycles = row["loop"], row["cycles"]
            if not loop["wide_loads"] or "__half" in row["kernel"]:  # as with __nv_bfloat16
                continue
            wide, narrow = loop["wide_loads"], loop["global_loads"] - loop["wide_loads"]
            names = "instructions", "integers", "floats", "conversions", "shuffles", "barriers"
            counts = [f"{loop[name]:.0f}" for name in names]
            moved = [f"{wide:.0f}", f"{narrow:.0f}", f"{loop['wide_stores']:.0f}"]
            units = [f"{cycles[unit]:.0f}" for unit in ("memory", "latency", "integer", "issue")]
            resources = [f"{row['registers']}", f"{row['blocks']}", f"{row['in_flight'] / 1024:.0f} KB"]
            prediction = [row["bound"], f"{row['share']:.0%}"]
            cells = [step["name"], row["gpu"], f"`{row['kernel']}`"]
            lines.append([*cells, *counts, *moved, *resources, *units, *prediction])
    heading = ["step", "GPU", "kernel", "instructions", "integer", "float", "conversions", "shuffles"]
    heading += [
        "barriers",
        "16-byte loads",
        "other loads",
        "16-byte stores",
        "registers",
        "blocks",
        "in flight",
    ]
    heading += ["cycles: memory", "latency", "integer", "issue", "bound", "share of the bandwidth, at most"]
    command = "`python benchmarks/kernel_account.py --passes 5`"
    return [f"{command} ([rows]({link(file)})):", "", *markdown(heading, lines)]


def fill(page: Path, text: str, shown: dict[str, list[Run]]) -> str:
    """The text of a page with all tables filled in.

    Raises:
        ValueError: a marker has the name of an unknown table.
    """

    def link(file: Path) -> str:
        return os.path.relpath(file, page.parent)

    drawn = set()

    def block(name: str) -> list[str]:
        if name == "summary":
            return summary(shown, link)
        if name == "best and worst":
            return best_and_worst(shown)
        if name == "plan":
            return plan(shown)
        if name == DEPLOYMENT:
            return deployment(link)
        if name == PRODUCTS:
            return products(link)
        if name == STREAMS:
            return streams(link)
        if name in ENGINES:
            return engines(ENGINES[name], link)
        if name.startswith("accuracy "):
            return accuracy(*name.split()[1:], link)
        if name.startswith("adaptation "):
            return adaptation(name.split()[1], link)
        if name not in TABLES:
            known = [*TABLES, "summary", "best and worst", "plan", DEPLOYMENT, PRODUCTS, STREAMS, *ENGINES]
            raise ValueError(f"{page.name}: expected a table of {known}, got {name!r}")
        lines = []
        for run in shown[name]:
            lines += [f"{_machine(run)}; {run.version} ([rows]({link(run.file)})).", ""]
            lines += [*measured(TABLES[name], run), ""]
            picture = PICTURES / f"bench_{run.file.stem}.svg"
            if picture.exists() and picture not in drawn:
                drawn.add(picture)
                lines += [f"![Times of {TABLES[name].op}]({link(picture)})", ""]
        return lines[:-1]

    return BLOCK.sub(lambda found: found[1] + "\n" + "\n".join(block(found[2])) + "\n\n" + found[3], text)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if a page is out of date"
    )
    check, shown, stale = parser.parse_args().check, runs(), []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (new := fill(page, text, shown)) != text:
            stale.append(page)
            if not check:
                page.write_text(new, encoding="utf-8")
    print(*(f"{page.relative_to(ROOT)}: {'out of date' if check else 'written'}" for page in stale), sep="\n")
    return int(check and bool(stale))


def _machine(run: Run) -> str:
    return ", ".join([run.device, *([run.machine["isa"]] if "isa" in run.machine else [])])


def _interval(figure: dict[str, Any]) -> str:
    """A figure with its interval in percent; a difference in bold type if zero is outside the interval."""
    value, low, high = (100 * figure[name] for name in ("value", "low", "high"))
    if "decided" not in figure:
        return f"{value:.1f} [{low:.1f}, {high:.1f}]"
    text = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if figure["decided"] else text


def _times(value: float, competitor: bool = True) -> str:
    """A ratio of times as text, in bold type for a competitor that is faster."""
    text = f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} x"
    return f"**{text}**" if competitor and value < 1 else text


def _rate(case: str, counted: str, milliseconds: float) -> str:
    """What is done per second, from the number that the case states."""
    found = re.search(rf"(\d+) {counted}", case)
    if found is None:
        raise ValueError(f"case: expected a number of {counted}, got {case!r}")
    return f"{1e3 * int(found[1]) / milliseconds:.1f}"


def _megabytes(value: float | None) -> str:
    return f"{value:.0f} MB" if value else ""


if __name__ == "__main__":
    sys.exit(main())
