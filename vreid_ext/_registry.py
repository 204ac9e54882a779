"""Registries of models and data sets by name."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
Factory = TypeVar("Factory", bound=Callable[..., Any])


class Registry(Generic[Result]):
    """Functions or classes by name.

    Args:
        kind: name of the objects for error messages, such as "model" or "data set".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._factories: dict[str, Callable[..., Result]] = {}

    def register(self, name: str) -> Callable[[Factory], Factory]:
        """Decorator that registers a function or class under a name.

        Raises:
            ValueError: the name is already registered.
        """

        def register(factory: Factory) -> Factory:
            if name in self._factories:
                raise ValueError(
                    f"name: expected an unused {self.kind} name, got {name!r}, which is registered"
                )
            self._factories[name] = factory
            return factory

        return register

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._factories)

    def factory(self, name: str) -> Callable[..., Result]:
        """The function or class registered under a name.

        Raises:
            ValueError: unknown name; the message suggests the closest registered name.
        """
        if name not in self._factories:
            near = get_close_matches(str(name), self._factories, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(self.names())
            raise ValueError(f"name: expected a {self.kind} name, one of {known}, got {name!r}{hint}")
        return self._factories[name]
