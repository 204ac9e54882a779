"""Whoever observes tensors sees an op, gets its reference, or gets an error: never a constant."""

import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from vreid_ext import _observers, losses, ops
from vreid_ext import nn as layers

NATIVE = pytest.param("native", marks=pytest.mark.filterwarnings("ignore:There is a performance drop"))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(n):
    return torch.arange(n) % (n // 2)


# Every op that has a gradient, as a function of one tensor, and that tensor at a size n.
OPS = {
    "attention_map": (lambda x, **how: ops.attention_map(x, **how), lambda n: draw(n, 3, 5, 8, 4)),
    "block_scores": (lambda x, **how: ops.block_scores(x, 4, **how), lambda n: draw(n, 3, 8, 4).abs()),
    "fuse": (
        lambda x, **how: ops.fuse(x, x.mean(2).abs().mean(3)[..., ::2], **how),
        lambda n: draw(n, 3, 5, 8, 4),
    ),
    "sta_pool": (lambda x, **how: ops.sta_pool(x, 4, **how).pooled, lambda n: draw(n, 3, 5, 8, 4)),
    "inter_frame_distance": (
        lambda x, **how: ops.inter_frame_distance(x, "all", **how),
        lambda n: draw(n, 3, 8, 4),
    ),
    "region_pool": (
        lambda x, **how: ops.region_pool(x.flatten(3)[:, :, :2], x, **how).features,
        lambda n: draw(n, 3, 5, 4, 2),
    ),
    "hellinger_overlap": (
        lambda x, **how: ops.hellinger_overlap(x.softmax(3), **how),
        lambda n: draw(n, 3, 2, 6),
    ),
    "temporal_pool": (lambda x, **how: ops.temporal_pool(x[..., 0], x, **how), lambda n: draw(n, 3, 2, 6)),
    "batch_hard": (
        lambda x, **how: ops.batch_hard(x, labels(x.shape[0]), **how).positive_distance,
        lambda n: draw(2 * n, 6),
    ),
    "batch_hard_triplet": (
        lambda x, **how: ops.batch_hard_triplet(x, labels(x.shape[0]), margin=2.0, **how),
        lambda n: draw(2 * n, 6),
    ),
    "mined_distance": (
        lambda x, **how: ops.mined_distance(x, torch.ones(1, x.shape[0], dtype=torch.int64), **how),
        lambda n: draw(2 * n, 6),
    ),
    "part_distance": (
        lambda x, **how: ops.part_distance(x, x[..., 0].abs(), x + 1, x[..., 0].abs(), **how),
        lambda n: draw(n, 3, 6),
    ),
}


@pytest.fixture(params=sorted(OPS))
def op(request):
    function, inputs = OPS[request.param]
    return request.param, function, inputs


def traced(function, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and every check of a shape is a Python branch
        return torch.jit.trace(function, (x,))


def operators(graph):
    return {node.kind() for node in graph.nodes() if node.kind().startswith("vreid_ext::")}


def test_a_trace_holds_plain_torch_of_any_size(op):
    name, function, inputs = op
    if name in ("batch_hard", "batch_hard_triplet"):  # the labels are data, and of one size

        def function(x):
            return OPS[name][0](x)

        given = inputs(4)
    else:
        given = inputs(5)
    with torch.no_grad():
        module = traced(function, inputs(4))
        torch.testing.assert_close(module(given + 1), function(given + 1), rtol=1e-5, atol=1e-5)
    assert not operators(module.graph), "a traced file runs without this package"


def test_a_trace_with_a_named_backend_holds_the_operator(op):
    name, function, inputs = op
    with torch.no_grad():
        module = traced(lambda x: function(x, backend="native"), inputs(4))
        given = inputs(4) + 1
        torch.testing.assert_close(module(given), function(given, backend="native"), rtol=0, atol=0)
    assert operators(module.graph) == {f"vreid_ext::{name}"}


def test_a_traced_loss_takes_another_batch():
    module = traced_pair(lambda x, y: ops.batch_hard_triplet(x, y), draw(8, 4), labels(8))
    x, y = draw(12, 4, seed=1), torch.arange(12) // 3
    torch.testing.assert_close(module(x, y), ops.batch_hard_triplet(x, y))


def test_a_traced_ranking_holds_the_operator():
    """Its reference depends on numbers, which a trace would take for constants."""
    module = traced_pair(lambda q, g: ops.top_k(q, g, 2)[1], draw(4, 6), draw(7, 6, seed=1))
    assert operators(module.graph) == {"vreid_ext::top_k"}
    query, gallery = draw(3, 6, seed=2), draw(9, 6, seed=3)
    torch.testing.assert_close(module(query, gallery), ops.top_k(query, gallery, 2)[1], rtol=0, atol=0)


def traced_pair(function, *inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(function, inputs)


def test_forward_mode_is_the_references(op):
    _, function, inputs = op
    x = inputs(4)
    tangent = draw(*x.shape, seed=1)
    wanted = torch.func.jvp(lambda x: function(x, backend="reference"), (x,), (tangent,))[1]
    assert wanted.abs().sum() > 0
    torch.testing.assert_close(torch.func.jvp(function, (x,), (tangent,))[1], wanted)
    with forward_ad.dual_level(), torch.no_grad():
        dual = forward_ad.make_dual(x, tangent)
        torch.testing.assert_close(forward_ad.unpack_dual(function(dual)).tangent, wanted)


def test_forward_mode_through_a_kernel_is_an_error(op):
    name, function, inputs = op
    x = inputs(4)
    with pytest.raises(RuntimeError, match="backend: expected 'auto' or 'reference' under forward-mode AD"):
        torch.func.jvp(lambda x: function(x, backend="native"), (x,), (x,))
    with forward_ad.dual_level():
        function(x, backend="native")  # no tangent, no error
        with (
            pytest.raises(RuntimeError, match=f"expected .*, got .native.: no other .* of {name}"),
            torch.no_grad(),
        ):
            function(forward_ad.make_dual(x, x), backend="native")


def test_forward_mode_through_rankings_is_an_error():
    x, index = draw(4, 6), torch.arange(4)
    with pytest.raises(RuntimeError, match="a forward-mode derivative of pair_distances"):
        torch.func.jvp(lambda x: ops.pair_distances(x, x + 1, index, index), (x,), (x,))


def test_compiled_forward_mode_is_the_references():
    function, inputs = OPS["sta_pool"]
    x = inputs(2)

    def tangent(x):
        return torch.func.jvp(function, (x,), (x,))[1]

    torch.testing.assert_close(torch.compile(tangent, backend="aot_eager")(x), tangent(x))


def test_transforms_give_autograds_derivatives(op):
    _, function, inputs = op
    x = inputs(4).requires_grad_()

    def total(x):
        return function(x).square().sum()

    (wanted,) = torch.autograd.grad(total(x), x)
    torch.testing.assert_close(torch.func.grad(total)(x.detach()), wanted)
    rows = torch.autograd.functional.jacobian(function, x, vectorize=True)  # legacy vmap over backward
    one_by_one = torch.autograd.functional.jacobian(function, x)
    torch.testing.assert_close(rows, one_by_one)
    torch.testing.assert_close(torch.func.jacrev(function)(x.detach()), one_by_one)


@pytest.mark.parametrize("backend", ["auto", NATIVE])
def test_vmap_is_a_loop(op, backend):
    _, function, inputs = op
    stacked = torch.stack([inputs(4), inputs(4) + 1])
    wanted = torch.stack([function(each, backend=backend) for each in stacked])
    got = torch.vmap(lambda x: function(x, backend=backend))(stacked)
    torch.testing.assert_close(got, wanted)


def test_second_derivatives_under_transforms_are_right():
    x = draw(8, 4).double()
    hessian = torch.func.hessian(lambda x: ops.batch_hard_triplet(x, labels(8), metric="squared"))(x)
    step = 1e-6 * torch.ones_like(x)
    gradient = torch.func.grad(lambda x: ops.batch_hard_triplet(x, labels(8), metric="squared"))
    wanted = (gradient(x + step) - gradient(x - step)) / 2e-6
    torch.testing.assert_close(hessian.sum((2, 3)), wanted, rtol=1e-5, atol=1e-6)


def test_losses_look_at_no_numbers_of_a_transform():
    x, y = draw(3, 8, 4), torch.arange(8) // 4
    for loss in (losses.AITLoss(0.1), lambda a, b, c: losses.AttributeLoss({"a": 4})(a, c[:, None])):
        wanted = torch.stack([loss(each, each, y) for each in x])
        torch.testing.assert_close(torch.vmap(lambda each, loss=loss: loss(each, each, y))(x), wanted)


class Calls(TorchFunctionMode):
    def __init__(self):
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


class Dispatched(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [Calls, Dispatched])
def test_modes_see_the_operator(op, mode):
    name, function, inputs = op
    x = inputs(4)
    with mode() as observer:
        got = function(x)
    assert f"vreid_ext.{name}.default" in observer.seen
    torch.testing.assert_close(got, function(x), rtol=0, atol=0)


def test_profilers_see_the_operator(op):
    name, function, inputs = op
    x = inputs(4)
    with torch.profiler.profile() as profile, torch.no_grad():
        function(x)
    assert f"vreid_ext::{name}" in {event.key for event in profile.key_averages()}


class Tagged(torch.Tensor):
    pass


def test_subclasses_pass_through(op):
    _, function, inputs = op
    plain, tagged = inputs(4).requires_grad_(), inputs(4).as_subclass(Tagged).requires_grad_()
    result = function(tagged)
    assert type(result) is Tagged
    torch.testing.assert_close(result.as_subclass(torch.Tensor), function(plain), rtol=0, atol=0)
    result.square().sum().backward()
    function(plain).square().sum().backward()
    torch.testing.assert_close(tagged.grad.as_subclass(torch.Tensor), plain.grad)


@pytest.mark.filterwarnings(
    "ignore:The PyTorch API of MaskedTensors", "ignore:sta_pool is not implemented in"
)
def test_a_subclass_with_rules_of_its_own_refuses_unknown_operators():
    from torch.masked import masked_tensor

    x = draw(2, 3, 4, 4, 2)
    with pytest.raises(TypeError, match=r"vreid_ext\.sta_pool\.default"):
        ops.sta_pool(masked_tensor(x, torch.ones_like(x).bool()))


def test_fake_tensors_have_shapes_and_no_numbers():
    from torch._subclasses import FakeTensorMode

    fake = FakeTensorMode().from_tensor
    x, y = fake(draw(8, 4)), fake(labels(8))
    assert ops.batch_hard(x, y).valid.shape == (8,)
    assert ops.top_k(x, x, 2)[1].shape == (8, 2)
    assert losses.AITLoss()(x, x, y).shape == ()
    with pytest.raises(RuntimeError, match="k_reciprocal: expected ordinary tensors"):
        ops.k_reciprocal(x, x)
    with pytest.raises(RuntimeError, match="jaccard_graph: expected ordinary tensors"):
        ops.jaccard_graph(x)


def test_re_ranking_refuses_a_tracer():
    with pytest.raises(RuntimeError, match=r"k_reciprocal: expected ordinary tensors .*, got a tracer"):
        traced(lambda x: ops.k_reciprocal(x, x, 2, 2).rows(0, 4), draw(4, 6))
    with pytest.raises(RuntimeError, match=r"jaccard_graph: expected ordinary tensors .*, got a tracer"):
        traced(lambda x: ops.jaccard_graph(x, 2, 2).distance, draw(4, 6))


def test_saved_tensors_pass_through_hooks_and_checkpoints(op):
    _, function, inputs = op
    x, copied, again = (inputs(4).requires_grad_() for _ in range(3))
    packed = []

    def pack(tensor):
        packed.append(tensor)
        return tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, torch.Tensor.clone):
        result = function(copied)
    result.sum().backward()
    function(x).sum().backward()
    checkpoint(function, again, use_reentrant=False).sum().backward()
    assert packed
    torch.testing.assert_close(copied.grad, x.grad)
    torch.testing.assert_close(again.grad, x.grad)


class Distance(nn.Module):
    def forward(self, x, y):
        return ops.batch_hard_triplet(x, y, margin=0.1)


def test_symbolic_traces_hold_the_ops_as_leaves():
    graph = torch.fx.symbolic_trace(layers.STAPooling(4))
    assert [node.target for node in graph.graph.nodes if node.op == "call_function"] == [ops.sta_pool]
    x = draw(2, 3, 4, 8, 4)
    torch.testing.assert_close(graph(x).pooled, layers.STAPooling(4)(x).pooled, rtol=0, atol=0)
    x, y = draw(8, 4), labels(8)
    torch.testing.assert_close(torch.fx.symbolic_trace(Distance())(x, y), Distance()(x, y))
    with pytest.raises(TypeError, match=r"inputs: expected .*, got Proxy"):
        torch.fx.symbolic_trace(losses.TripletLoss())


def test_hooks_of_modules_keep_the_result():
    layer, seen = layers.STAPooling(4), []
    layer.register_full_backward_hook(lambda module, into, out: seen.append(len(out)))
    x = draw(2, 3, 4, 8, 4).requires_grad_()
    layer(x).pooled.sum().backward()
    assert seen == [3]


WITHOUT_PRIVATE_NAMES = """
import torch, torch._dynamo  # dynamo imports them by name
places = [(torch._C, "_len_torch_dispatch_stack"), (torch._C, "_len_torch_function_stack"),
          (torch._C, "_functorch"), (torch._C._autograd, "_profiler_enabled"), (torch._C, "_has_storage")]
kept = [(owner, name, getattr(owner, name)) for owner, name in places]
for owner, name in places:
    delattr(owner, name)
from vreid_ext import _observers, ops
for owner, name, value in kept:  # torch's own code needs them
    setattr(owner, name, value)

x = torch.rand(2, 3, 4, 4, 2, requires_grad=True)
def run(x, backend):
    return ops.sta_pool(x, 4, backend=backend).pooled
results = []
for backend in ("native", "reference"):
    x.grad = None
    result = run(x, backend)
    result.square().sum().backward()
    results.append((result, x.grad))
torch.testing.assert_close(*results)
assert _observers.observed(), "every call goes through the dispatcher"
tangents = [torch.func.jvp(lambda x: run(x, backend), (x,), (x,))[1] for backend in ("auto", "reference")]
torch.testing.assert_close(*tangents)
"""


def test_a_torch_without_the_level_of_forward_mode(monkeypatch):
    monkeypatch.setattr(_observers, "forward_ad", SimpleNamespace(make_dual=forward_ad.make_dual))
    assert not _observers.forward_mode()
    with forward_ad.dual_level():
        assert _observers.forward_mode()


def test_a_torch_without_the_private_names():
    subprocess.run([sys.executable, "-c", WITHOUT_PRIVATE_NAMES], check=True)
