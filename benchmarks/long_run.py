"""Monitors two hours of training and evaluation: memory, open files, throughput.

    python benchmarks/long_run.py --out DIR --hours 2
    python benchmarks/long_run.py --summary DIR

Runs `vreid train` with data-loader workers on a rendered set. It evaluates after every epoch and writes a
checkpoint after every tenth. Linux only: memory and open files are read from /proc.

Writes `set`, `run`, `rows.jsonl` (one row per minute) and `summary.json` to DIR.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PERSONS, P, K = 40, 4, 4
RECIPE = [
    f"batch.p={P}",
    f"batch.k={K}",
    "train.workers=2",
    "train.epochs=1000000",
    "train.checkpoint_every=10",
    "train.eval_every=1",
    "schedule.name=step",
]
TICK, SAMPLE, ROW = 0.5, 5.0, 60.0  # intervals in seconds: read the log, sample the processes, write a row
WARM_UP, WINDOW = 30.0, 600.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """IDs of a process and of all its running descendants."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*"):
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except OSError:  # the process has ended
                continue
    return found


def memory(pid: int) -> tuple[float, float]:
    """(resident, proportional) memory in MiB: a page shared by k processes counts fully and as 1/k."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    return tuple(int(fields[name].split()[0]) / 1024 for name in ("Rss", "Pss"))  # type: ignore[return-value]


def handles(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, of its terminated children (after wait) and of its running descendants."""

    def spent(one: int, count: int) -> int:
        # The name in parentheses may contain spaces. Fields 11 to 14 after it: user and system time of the
        # process, then of its terminated children.
        values = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        return sum(int(value) for value in values[11 : 11 + count])

    total = spent(pid, 4)
    for child in tree(pid)[1:]:
        try:
            total += spent(child, 2)
        except OSError:
            continue
    return total / TICKS_PER_SECOND


class Log:
    """Counts the steps and the evaluated epochs in a growing log.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path, self.place = path, 0
        self.steps = self.epochs = 0

    def read(self) -> bool:
        """Read new lines; returns whether they contain the end of an epoch."""
        if not self.path.is_file():
            return False
        with self.path.open("rb") as file:
            file.seek(self.place)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self.place += len(new)
        kinds = [json.loads(line)["kind"] for line in new.splitlines()]
        self.steps += kinds.count("step")
        self.epochs += kinds.count("eval")
        return "eval" in kinds


def watch(process: subprocess.Popen[bytes], out: Path, seconds: float, evaluated: int) -> None:
    log = Log(out / "run" / "log.jsonl")
    begin = last = time.monotonic()
    paused = 0.0
    sampled = written = begin
    samples: list[tuple[float, ...]] = []
    epoch_end: dict[str, float] | None = None
    with (out / "rows.jsonl").open("w") as rows:
        while (now := time.monotonic()) - begin < seconds:
            if process.poll() is not None:
                raise RuntimeError(f"training ended after {now - begin:.0f} s with code {process.returncode}")
            if now - last > 10 * TICK:  # both processes were suspended
                paused += now - last
            last = now
            if log.read():
                epoch_end = {
                    "active_s": now - begin - paused,
                    "cpu_s": cpu_seconds(process.pid),
                    "clips": log.steps * P * K + log.epochs * evaluated,
                }
            if now - sampled >= SAMPLE:
                sampled = now
                resident, _ = memory(process.pid)
                proportional = count = 0.0
                processes = tree(process.pid)
                for one in processes:
                    try:
                        proportional += memory(one)[1]
                        count += handles(one)
                    except (OSError, KeyError):  # a worker has ended
                        continue
                samples.append((resident, proportional, handles(process.pid), count, len(processes)))
            if now - written >= ROW and epoch_end is not None and samples:
                written = now
                columns = list(zip(*samples, strict=True))
                row = {
                    "seconds": now - begin,
                    "paused_s": paused,
                    "epochs": log.epochs,
                    "rss_mib": statistics.median(columns[0]),
                    "rss_max_mib": max(columns[0]),
                    "tree_pss_max_mib": max(columns[1]),
                    "handles": statistics.median(columns[2]),
                    "handles_max": max(columns[2]),
                    "tree_handles_max": max(columns[3]),
                    "processes_max": max(columns[4]),
                    "epoch_end": epoch_end,
                }
                rows.write(json.dumps(row) + "\n")
                rows.flush()
                samples = []
            time.sleep(TICK)


def slope(x: list[float], y: list[float]) -> float:
    return statistics.linear_regression(x, y).slope


def summary(out: Path) -> dict[str, Any]:
    """Summary of the rows: start and end of the run, and slopes after the first ten minutes."""
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    end = rows[-1]["seconds"]
    steady = [row for row in rows if row["seconds"] >= min(WINDOW, end / 4)]

    def rate(start: float, stop: float) -> dict[str, float]:
        """Throughput between the epochs that are recorded in the first and in the last row of a window."""
        part = [row for row in rows if start <= row["seconds"] <= stop]
        first, last = part[0]["epoch_end"], part[-1]["epoch_end"]
        clips = last["clips"] - first["clips"]
        return {
            "clips": clips,
            "clips_per_second": clips / (last["active_s"] - first["active_s"]),
            "clips_per_cpu_second": clips / (last["cpu_s"] - first["cpu_s"]),
        }

    window = min(WINDOW, end / 3)
    first, last = rate(WARM_UP, WARM_UP + ROW + window), rate(end - ROW - window, end)
    hours = [row["seconds"] / 3600 for row in steady]
    return {
        "seconds": end,
        "paused_s": rows[-1]["paused_s"],
        "epochs": rows[-1]["epochs"],
        "clips": rows[-1]["epoch_end"]["clips"],
        "rss_mib": {
            "at_ten_minutes": steady[0]["rss_mib"],
            "at_the_end": steady[-1]["rss_mib"],
            "slope_per_hour": slope(hours, [row["rss_mib"] for row in steady]),
        },
        "tree_pss_max_mib": {
            "at_ten_minutes": steady[0]["tree_pss_max_mib"],
            "at_the_end": steady[-1]["tree_pss_max_mib"],
            "slope_per_hour": slope(hours, [row["tree_pss_max_mib"] for row in steady]),
        },
        "handles": {
            "first": rows[0]["handles"],
            "last": rows[-1]["handles"],
            "most_of_all_processes": [rows[0]["tree_handles_max"], rows[-1]["tree_handles_max"]],
        },
        "first_ten_minutes": first,
        "last_ten_minutes": last,
        "last_to_first": {
            name: last[name] / first[name] for name in ("clips_per_second", "clips_per_cpu_second")
        },
    }


def run(out: Path, hours: float) -> None:
    from vreid_ext import engine
    from vreid_ext.data.synth import synthesize
    from vreid_ext.engine.build import dataset_of
    from vreid_ext.engine.comparison import Comparison

    out.mkdir(parents=True, exist_ok=True)
    if not (out / "set").exists():
        synthesize(out / "set", ids=PERSONS)
    overrides = [*RECIPE, f"dataset.root={out / 'set'}"]
    recipe = engine.load_recipe("synth_sta", overrides)
    evaluated = len(Comparison(dataset_of(recipe.dataset)).tracklets)
    command = [sys.executable, "-m", "vreid_ext", "train", "synth_sta", "--out", str(out / "run"), *overrides]
    with (out / "train.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            watch(process, out, hours * 3600, evaluated)
        finally:
            process.terminate()  # not SIGINT: background processes of a shell ignore it
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="a new folder, or one that contains the rendered set")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--summary", type=Path, help="only summarise the rows of this folder")
    given = parser.parse_args()
    if (given.out is None) == (given.summary is None):
        parser.error("--out, --summary: expected one of them, got both or none")
    if given.out is not None:
        run(given.out.absolute(), given.hours)
    out = given.out or given.summary
    text = json.dumps(summary(out), indent=2)
    (out / "summary.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
