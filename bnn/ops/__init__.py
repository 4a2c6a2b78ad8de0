"""The operations on packed bits, `torch.ops.bnn.<name>`; the package itself calls them by `functions`.

Each operation is declared in one place, by subject, with its schema, its shape rule and its specification in plain
torch, which runs on every device: `packing`, `products`, `product_gradients`, `pooling`, `averages`, `batch_norm`,
`normed_conv`, `row_sums`, `norms`, `rounding`, `steps`. A backend is a folder of kernels that take the specification's
place on one kind of device; `bnn.ops.cpu` is one. Every kernel is tested against its specification. `memory` holds the
memory of large results.

`bnn.bits.BitTensor` gives packed rows their shape back and is what most code should use.
"""

from bnn.ops import (  # declares the operations and registers the CPU's kernels
    averages,
    batch_norm,
    cpu,
    normed_conv,
    norms,
    packing,
    pooling,
    product_gradients,
    products,
    rounding,
    row_sums,
    steps,
)
from bnn.ops.geometry import PoolWindow, Window
from bnn.ops.operation import OPERATIONS, Backend, functions
from bnn.ops.packing import packed_bytes

__all__ = [
    "OPERATIONS",
    "Backend",
    "PoolWindow",
    "Window",
    "averages",
    "batch_norm",
    "cpu",
    "functions",
    "normed_conv",
    "norms",
    "packed_bytes",
    "packing",
    "pooling",
    "product_gradients",
    "products",
    "rounding",
    "row_sums",
    "steps",
]
