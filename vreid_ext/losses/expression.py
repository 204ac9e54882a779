"""Losses of pytorch-metric-learning, built from text such as "CircleLoss(m=0.25, gamma=256)"."""

import ast
import inspect
from collections.abc import Iterator, Mapping
from copy import deepcopy
from difflib import get_close_matches
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vreid_ext.losses import metric_learning

# Classes of pytorch-metric-learning's `losses` that no recipe can use, and the reason.
_UNUSABLE = {
    "BaseLossWrapper": "is a base class",
    "BaseMetricLossFunction": "is a base class",
    "EmbeddingRegularizerMixin": "is a base class",
    "GenericPairLoss": "is a base class",
    "WeightRegularizerMixin": "is a base class",
    "CrossBatchMemory": "keeps a memory that a checkpoint does not contain",
    "DynamicSoftMarginLoss": "keeps a histogram that a checkpoint does not contain",
    "MultipleLosses": "is written as a sum here",
    "SelfSupervisedLoss": "requires two views of each sample",
    "VICRegLoss": "requires two views of each sample",
}


class LossExpression(nn.Module):
    """Weighted sum of losses of pytorch-metric-learning.

        text = [weight *] Loss(arguments) + [weight *] Loss(arguments) + ...

    An argument is a literal (number, string, True, None, list, tuple, dict) or the call of a class of
    `pytorch_metric_learning.distances`, `.reducers` or `.regularizers`. Every loss also takes `miner`, the
    call of a class of `.miners`. `BatchHardMiner` and `TripletMarginLoss` are those of
    `losses.metric_learning`. `num_classes` and the size of the embeddings are added if a class takes them and
    the text does not contain them.

    Args:
        text: the expression. It is parsed, not evaluated as Python.
        num_classes: number of classes of the labels.
        embedding_size: D of the embeddings.
        source: name of the text for error messages.

    Call: `loss(embeddings, labels)` with embeddings (n,D) and integer labels (n,) returns the unweighted
    terms by name. The name of a term is that of its class; a second one of the same class ends in 2.

    Attributes:
        weights: weight of each term.

    Raises:
        ImportError: pytorch-metric-learning is not installed.
        ValueError: the text is not such an expression, a name is unknown, or a class rejects its arguments or
            a batch of random embeddings.
    """

    def __init__(self, text: str, num_classes: int, embedding_size: int, *, source: str = "loss.pml") -> None:
        super().__init__()
        if not metric_learning.INSTALLED:
            raise ImportError(
                f"{source}: requires pytorch-metric-learning; install it with "
                "pip install 'vreid-ext[metric-learning]'"
            )
        self.source = source
        sizes = {
            "num_classes": num_classes,
            "embedding_size": embedding_size,
            "descriptors_dim": embedding_size,
            "l": embedding_size,  # of ManifoldLoss
        }
        self.weights: dict[str, float] = {}
        self.losses = nn.ModuleDict()
        self.miners = nn.ModuleDict()
        for weight, call in self._terms(text):
            kind = _name(call)
            number = 1 + sum(each.rstrip("0123456789") == kind for each in self.weights)
            name = kind if number == 1 else f"{kind}{number}"
            self.weights[name] = weight
            miner = [each.value for each in call.keywords if each.arg == "miner"]
            call.keywords = [each for each in call.keywords if each.arg != "miner"]
            self.losses[name] = self._built("losses", call, sizes)
            if miner and not (isinstance(miner[0], ast.Constant) and miner[0].value is None):
                if not isinstance(miner[0], ast.Call):
                    raise self._error("the call of a miner", ast.unparse(miner[0]))
                self.miners[name] = self._built("miners", miner[0], {})
            self._try(name, num_classes, embedding_size)

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {name: self._term(name, embeddings, labels) for name in self.losses}

    def _term(self, name: str, embeddings: Tensor, labels: Tensor) -> Tensor:
        mined = self.miners[name](embeddings, labels) if name in self.miners else None
        term: Tensor = self.losses[name](embeddings, labels, mined)
        return term

    def _terms(self, text: str) -> Iterator[tuple[float, ast.Call]]:
        """Weight and call of each summand of the text."""
        try:
            node = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._error("[weight *] Loss(...) + ...", text) from error
        summands = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            summands.append(node.right)
            node = node.left
        for each in (node, *reversed(summands)):
            weight, call = 1.0, each
            if isinstance(each, ast.BinOp) and isinstance(each.op, ast.Mult):
                factor, call = each.left, each.right
                value = factor.value if isinstance(factor, ast.Constant) else None
                if not isinstance(value, int | float) or not 0 < value < float("inf"):
                    raise self._error("finite numbers above 0 as weights", ast.unparse(factor))
                weight = float(value)
            if not isinstance(call, ast.Call):
                raise self._error("[weight *] Loss(...) + ...", ast.unparse(call))
            yield weight, call

    def _built(self, kind: str, call: ast.Call, sizes: Mapping[str, int]) -> Any:
        """The object of a call. `kind` is the module with its class, or "arguments" for any of three."""
        classes, name = _classes(kind), _name(call)
        if kind == "losses" and name in _UNUSABLE:
            raise self._error("a loss that recipes support", f"{name}, which {_UNUSABLE[name]}")
        if name not in classes:
            near = get_close_matches(name, classes, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise self._error(f"one of the {kind} {', '.join(sorted(classes))}", f"{name!r}{hint}")
        arguments = [self._value(each) for each in call.args]
        options: dict[str, Any] = {}
        for each in call.keywords:
            if each.arg is None:
                raise self._error("arguments by name", ast.unparse(call))
            options[each.arg] = self._value(each.value)
        taken = _parameters(classes[name])
        unset = [each for each in taken[len(arguments) :] if each in sizes and each not in options]
        try:
            return classes[name](*arguments, **options, **{each: sizes[each] for each in unset})
        except Exception as error:
            raise self._rejected(ast.unparse(call), error) from error

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Call):
            return self._built("arguments", node, {})
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._error(
                "literals or calls of distances, reducers and regularizers as arguments", ast.unparse(node)
            ) from error

    def _try(self, name: str, num_classes: int, embedding_size: int) -> None:
        """Compute a copy of a term on random embeddings. Classes do not check all of their arguments."""
        generator = torch.Generator("cpu").manual_seed(0)
        rows = torch.randn(8, embedding_size, generator=generator, device="cpu", dtype=torch.float32)
        labels = torch.arange(8, device="cpu") // 2 % num_classes
        copy = deepcopy(self)
        try:
            with torch.random.fork_rng([]):
                term = copy._term(name, rows, labels)
            if not isinstance(term, Tensor) or term.dim():
                raise TypeError("the loss is not a scalar; use a reducer that reduces")
        except Exception as error:
            raise self._rejected(name, error) from error

    def _error(self, expected: str, got: str) -> ValueError:
        return ValueError(f"{self.source}: expected {expected}, got {got}")

    def _rejected(self, what: str, error: Exception) -> ValueError:
        return ValueError(f"{self.source}: expected valid arguments, got {what}: {error}")

    def extra_repr(self) -> str:
        return " + ".join(f"{weight:g} * {name}" for name, weight in self.weights.items())


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func)


def _classes(kind: str) -> dict[str, type]:
    """Classes by name that a recipe may call."""
    from pytorch_metric_learning import distances, losses, miners, reducers, regularizers

    def of(*modules: ModuleType) -> dict[str, type]:
        members = [item for module in modules for item in vars(module).items()]
        return {name: value for name, value in members if inspect.isclass(value)}

    if kind == "losses":
        usable = {name: value for name, value in of(losses).items() if name not in _UNUSABLE}
        return usable | {"TripletMarginLoss": metric_learning.TripletMarginLoss}
    if kind == "miners":
        return of(miners) | {"BatchHardMiner": metric_learning.BatchHardMiner}
    return of(distances, reducers, regularizers)


def _parameters(kind: type) -> list[str]:
    """Names of the arguments of a class; those of its base class, too, if it passes on *args."""
    names: list[str] = []
    for each in kind.__mro__:
        if "__init__" not in vars(each):
            continue
        parameters = list(inspect.signature(each.__init__).parameters.values())[1:]  # type: ignore[misc]
        names += [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            break
    return names
