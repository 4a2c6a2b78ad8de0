"""The operations on the CPU, by the native kernels of `bnn._native`. Importing registers them.

Every result equals the specification's bit for bit, but for sums of real numbers, which are added up in another order;
no result depends on the number of threads. Dtypes that the kernels do not have go to the specification.
"""

from bnn.ops.cpu import (
    averages,
    batch_norm,
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
from bnn.ops.cpu.native import instruction_set

__all__ = [
    "averages",
    "batch_norm",
    "instruction_set",
    "normed_conv",
    "norms",
    "packing",
    "pooling",
    "product_gradients",
    "products",
    "rounding",
    "row_sums",
    "steps",
]
