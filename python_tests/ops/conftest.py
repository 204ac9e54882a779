import pytest
import torch


@pytest.fixture(scope="session")
def native() -> str:
    """The native backend; the package is expected to have been built."""
    return "native"


@pytest.fixture(params=["native", "reference"])
def backend(request) -> str:
    return request.param


@pytest.fixture
def poisoned_memory():
    """Fresh allocations are filled with NaN, so that an element no kernel writes shows."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(deterministic)
