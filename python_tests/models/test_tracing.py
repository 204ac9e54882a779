"""The four systems through torch's older exporters: a file gives the model's features by itself."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from vreid_ext.models import ASTA, DRSTA, STA, STAL

SIZE = (32, 16)


class Trunk(nn.Sequential):
    out_channels = 12

    def __init__(self):
        super().__init__(nn.Conv2d(3, 12, 4, stride=4), nn.ReLU())


def make(name):
    torch.manual_seed(0)
    if name == "stal":
        model = STAL(5, backbone="resnet18", split="layer2", part_dim=8, roi_size=4)
    elif name == "asta":
        model = ASTA(5, backbone=Trunk(), input_size=SIZE)
    else:
        model = STA(5, backbone=Trunk()) if name == "sta" else DRSTA(5, backbone=Trunk(), hidden=8, regions=3)
    return model.eval()


def inputs(name, clips, frames):
    draw = torch.Generator().manual_seed(clips)
    size = (64, 32) if name == "stal" else SIZE
    pixels = torch.randn(clips, frames, 3, *size, generator=draw)
    if name != "stal":
        return (pixels,)
    valid = torch.ones(clips, frames, dtype=torch.bool)
    return pixels, valid, torch.rand(clips, frames, 14, 3, generator=draw)


SYSTEMS = ["sta", "drsta", "stal", "asta"]
ALONE = """
import sys, torch
sys.modules["vreid_ext"] = None  # an import of it would raise
folder, *names = sys.argv[1:]
for name in names:
    if name == "stal":
        import torchvision  # ROI pooling is an operator of it
    model = torch.jit.load(f"{folder}/{name}.pt")
    for given, wanted in torch.load(f"{folder}/{name}.cases"):
        bound = 1e-4 * float(wanted.abs().max())
        for _ in range(2):
            torch.testing.assert_close(model(*given), wanted, rtol=1e-4, atol=bound)
"""


def test_a_traced_file_gives_the_models_features_without_the_package(tmp_path):
    for name in SYSTEMS:
        model = make(name)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # deprecated, and every check of a shape is a Python branch
            torch.jit.trace(model, inputs(name, 2, 3)).save(tmp_path / f"{name}.pt")
            sizes = [(2, 3), (1, 1), (4, 5)]
            cases = [inputs(name, *size) for size in sizes]
            torch.save([(given, model(*given)) for given in cases], tmp_path / f"{name}.cases")
    subprocess.run([sys.executable, "-W", "ignore", "-c", ALONE, tmp_path, *SYSTEMS], check=True)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_older_onnx_exporter_gives_the_models_features(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra [export]")
    model, given = make(name), inputs(name, 2, 3)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, given, tmp_path / "model.onnx", dynamo=False, opset_version=17)
        wanted = model(*given)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    # A mask without a gap leaves the graph.
    fed = {node.name: value for node, value in zip(session.get_inputs(), given, strict=False)}
    (feature,) = session.run(None, {name: value.numpy() for name, value in fed.items()})
    torch.testing.assert_close(
        torch.from_numpy(feature), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max())
    )


def test_tensorboard_draws_the_graph(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="needs tensorboard")
    with warnings.catch_warnings(), torch.no_grad(), tensorboard.SummaryWriter(tmp_path) as writer:
        warnings.simplefilter("ignore")
        for name in SYSTEMS:
            writer.add_graph(make(name), inputs(name, 2, 3))
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size > 10_000
