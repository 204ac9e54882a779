"""Networks of other packages as frozen models, in eval, extract, search and Embedder."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime", reason="needs the extra [export]")

from networks import write_network

from vreid_ext import Embedder, data, engine
from vreid_ext.data import Tracklet, build_dataset
from vreid_ext.engine.network import Network

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture
def onnx_file(tmp_path):
    """A file with a fixed number of images, 2, and the function that it computes."""
    return tmp_path / "net.onnx", write_network(tmp_path / "net.onnx", batch=2)


@pytest.fixture(scope="module")
def clips():
    """Pixels (B,T,h,w,3) 0 to 255, and the clips of the test transform."""
    pixels = torch.randint(0, 256, (3, 3, 3, 32, 16), dtype=torch.uint8)
    transform = data.test_transform(32, 16)
    return pixels.numpy().astype(np.float32), torch.stack([transform(each) for each in pixels])


VALID = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])


def mean_of(features, valid):
    return np.stack([row[keep].mean(0) for row, keep in zip(features, valid.numpy())])


@pytest.mark.parametrize("valid", [None, VALID])
@pytest.mark.parametrize(("values", "color"), [("auto", "auto"), ("unit", "rgb"), ("bytes", "bgr")])
def test_the_feature_is_the_mean_over_the_frames(onnx_file, clips, valid, values, color):
    path, network = onnx_file
    pixels, normalized = clips
    model = Network(1, weights=path, values=values, color=color).eval()
    assert (model.size, model.of_clips) == ((32, 16), False)
    given = pixels / 255
    if values == "auto":
        given = (given - MEAN[:, None, None]) / STD[:, None, None]
    elif values == "bytes":
        given = pixels[:, :, ::-1]
    features = network(given.reshape(9, 3, 32, 16)).reshape(3, 3, -1)
    expected = mean_of(features, torch.ones(3, 3, dtype=torch.bool) if valid is None else valid)
    np.testing.assert_allclose(model(normalized, valid).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_an_input_of_integers_gets_bytes(tmp_path, clips):
    from onnx import TensorProto

    network = write_network(tmp_path / "net.onnx", pixels=TensorProto.UINT8)
    model = Network(1, weights=tmp_path / "net.onnx").eval()
    assert model.values == "bytes"
    pixels, normalized = clips
    expected = network(pixels.reshape(9, 3, 32, 16)).reshape(3, 3, -1).mean(1)
    np.testing.assert_allclose(model(normalized).numpy(), expected, rtol=1e-4)


def test_openvino_reads_what_the_file_states_about_its_input(onnx_file, clips, tmp_path):
    openvino = pytest.importorskip("openvino", reason="needs the extra [deploy]")
    path, network = onnx_file
    steps = openvino.preprocess.PrePostProcessor(openvino.Core().read_model(path))
    steps.input().tensor().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().reverse_channels().mean((255 * MEAN).tolist()).scale((255 * STD).tolist())
    model = steps.build()
    model.set_rt_info("images[123.7,116.3,103.5]", ["conversion_parameters", "mean_values"])
    model.set_rt_info("True", ["conversion_parameters", "reverse_input_channels"])
    openvino.save_model(model, tmp_path / "net.xml", compress_to_fp16=False)
    opened = Network(1, weights=tmp_path / "net.xml").eval()
    assert (opened.values, opened.color) == ("bytes", "bgr")
    pixels, normalized = clips
    given = (pixels / 255 - MEAN[:, None, None]) / STD[:, None, None]
    expected = network(given.reshape(9, 3, 32, 16)).reshape(3, 3, -1).mean(1)
    np.testing.assert_allclose(opened(normalized).numpy(), expected, rtol=1e-3, atol=1e-3)
    assert not torch.equal(opened.digest, Network(1, weights=path).digest)


def test_eval_extract_search_and_embedder(onnx_file, mars_root, tmp_path, vreid):
    path, _ = onnx_file
    recipe = ["dataset.name=mars", f"dataset.root={mars_root}", "train.workers=0"]
    code, out, err = vreid("eval", str(path), *recipe, "--json")
    assert code == 0, err
    figures = json.loads(out)
    assert figures["file"] == str(tmp_path / "net-eval-mars-dense-1.json")
    assert figures["rows"][0]["valid_queries"] > 0
    features = tmp_path / "features"
    for command in (
        ["extract", str(path), *recipe, "--out", str(features)],
        ["search", str(features), str(features), "--top", "1", "--json"],
    ):
        code, out, err = vreid(*command)
        assert code == 0, err
    again = engine.evaluate_checkpoint(path, recipe, out=tmp_path / "again.json", features=features)
    assert again["rows"][0]["mAP"] == figures["rows"][0]["mAP"]

    query = build_dataset("mars", mars_root).query[0]
    images = [Tracklet((frame,), 0, 0, frame) for frame in query.paths]
    transform = data.test_transform(32, 16)
    rows = engine.extract_features(Network(1, weights=path), images, frames=1, transform=transform)
    feature = Embedder(path, device="cpu").embed(query.paths)
    torch.testing.assert_close(feature, rows.mean(0), rtol=1e-4, atol=1e-5)


def test_errors(onnx_file, tmp_path, clips):
    path, _ = onnx_file
    with pytest.raises(ValueError, match=r"^model: expected one that can be trained, got 'network'"):
        Network(1, weights=path).train()(clips[1])
    with pytest.raises(ValueError, match=r"^network: expected an existing file, got .*none.onnx'"):
        Network(1, weights=tmp_path / "none.onnx")
    with pytest.raises(ValueError, match=r"^network: expected a file .onnx or .xml, got .*net.pth'"):
        Network(1, weights=tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"^values: expected one of"):
        Network(1, weights=path, values="percent")
    with pytest.raises(ValueError, match=r"^runtime: expected one that opens .onnx files, got 'tensorrt'"):
        Network(1, weights=path, runtime="tensorrt")
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"^network: .*bad.onnx' cannot be opened by onnxruntime: "):
        Network(1, weights=tmp_path / "bad.onnx")
    with pytest.raises(ValueError, match=r"or a network file \(.onnx, .xml\), got .*none.onnx'"):
        engine.open_checkpoint(tmp_path / "none.onnx")
