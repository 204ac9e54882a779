"""The matrix product of the CPU kernels alone, compared with `torch.mm`."""

import pytest
import torch

product = pytest.importorskip("vreid_ext.backends.native.product")


@pytest.mark.parametrize(
    ("rows", "columns", "dimensions"), [(2048, 2048, 2048), (1980, 9330, 2048), (256, 2048, 2048)]
)
def test_product(side_by_side, device, rows, columns, dimensions):
    if device != "cpu":
        pytest.skip("a product of the CPU kernels")
    x, y = torch.randn(rows, dimensions), torch.randn(columns, dimensions)
    packed_x, packed_y = product.pack(x), product.pack(y)
    torch.testing.assert_close(product.products(packed_x, packed_y), x @ y.T, rtol=1e-4, atol=1e-2)
    side_by_side(
        f"product {rows} x {columns}, D = {dimensions}",
        {
            "ours": lambda: product.products(packed_x, packed_y),
            "ours, with packing": lambda: product.products(product.pack(x), product.pack(y)),
            "torch.mm": lambda: x @ y.T,
        },
        group="matrix product",
    )
