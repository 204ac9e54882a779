"""Runs of one recipe, each in a child of this process, which has imported everything already.

As a script, with a recipe's file: says "ready", reads jobs from stdin, a JSON object a line, and answers each
with a line {"code", "error", ...}. A job:

    out         the run's folder
    extract     a run whose features are written to `out` instead of training
    at_line     the child kills itself before it executes so many lines of the engine
    at_save     the same, counted over the lines of a checkpoint's saving alone
    in_write    [n, seconds]: killed from outside, so long after the n-th checkpoint has begun to appear
    read_only   [folder, rows]: the folder cannot be written to once the run has logged so many rows
    count       answer with the number of "lines" and "saves" that `at_line` and `at_save` choose from
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from torch import nn

from vreid_ext import engine
from vreid_ext.engine import runlog
from vreid_ext.engine.features import export_features
from vreid_ext.models import TrainingOutput, register_model

ENGINE = str(Path(engine.__file__).parent)


@register_model("forgetful")
class Forgetful(nn.Module):
    """Has all that a resumed run must bring back: batch statistics, dropout, weights slow to write."""

    def __init__(self, num_classes):
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 64, 2))
        self.widen = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, 8192))
        self.classifier = nn.Linear(8192, num_classes)

    def forward(self, clips, valid=None):
        feature = self.embed(clips.flatten(0, 1)).mean((2, 3)).unflatten(0, clips.shape[:2]).mean(1)
        feature = self.widen(feature)
        return TrainingOutput(self.classifier(feature), feature, {}) if self.training else feature


def trace(at_line=None, at_save=None):
    """Count the engine's lines from here on; SIGKILL at a given one."""
    seen = {"lines": 0, "saves": 0}
    saving = [0]  # frames of `_save` on the stack

    def line(frame, event, _):
        if event == "line":
            seen["lines"] += 1
            seen["saves"] += bool(saving[0])
            if seen["lines"] == at_line or (saving[0] and seen["saves"] == at_save):
                os.kill(os.getpid(), signal.SIGKILL)
        elif event == "return" and frame.f_code.co_name == "_save":
            saving[0] -= 1
        return line

    def call(frame, event, _):
        code = frame.f_code
        if code.co_filename.startswith(ENGINE):
            saving[0] += code.co_name == "_save"
            return line
        return line if saving[0] and code.co_filename.endswith("shutil.py") else None

    sys.settrace(call)
    return seen


def mount_read_only(folder, rows):
    """A mount of the folder onto itself; as on a disk that has failed, even root cannot write to it."""
    mount = ["mount", "--bind", "-o", "ro", folder, folder]
    if rows == 0:
        subprocess.run(mount, check=True)
    write, written = runlog.RunLog.write, itertools.count(1)

    def writes(*args, **values):
        write(*args, **values)
        if next(written) == rows:
            subprocess.run(mount, check=True)

    runlog.RunLog.write = writes


def child(recipe, job, answer):
    out = Path(job["out"])
    if "read_only" in job:
        mount_read_only(*job["read_only"])
    seen = {}
    if job.keys() & {"at_line", "at_save", "count"}:
        seen = trace(job.get("at_line"), job.get("at_save"))
    try:
        if "extract" in job:
            export_features(job["extract"], out, ["eval.shard=2"])
        else:
            engine.train(recipe, out, quiet=True)
    except BaseException as error:
        os.write(answer, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    os.write(answer, json.dumps(seen).encode())
    os._exit(0)


def kill_in_write(pid, out, number, seconds):
    """Wait for the n-th temporary folder of a checkpoint, then a little, then kill."""
    seen = set()
    while len(seen) < number:
        seen.update(path.name for path in (out / "checkpoints").glob(".*.partial"))
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)


def answer_of(recipe, job):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        child(recipe, job, write)
    os.close(write)
    if "in_write" in job:
        kill_in_write(pid, Path(job["out"]), *job["in_write"])
    with os.fdopen(read) as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if "read_only" in job:
        subprocess.run(["umount", job["read_only"][0]], check=True)
    return {"code": os.waitstatus_to_exitcode(status), "error": None, **json.loads(told or "{}")}


def main():
    import torch.utils.tensorboard  # noqa: F401

    recipe = engine.load_recipe(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer_of(recipe, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
