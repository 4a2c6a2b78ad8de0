"""The backward pass of a convolution of real numbers and the batch norm behind it, whose product never is whole.

Kept for it are the input and the codes of the norm's result (see `bnn.ops.batch_norm`). The product is formed again,
once for the sums of the norm's gradient and once for the gradient itself.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.ops.batch_norm import norm_gradient, norm_gradient_terms
from bnn.ops.geometry import Window
from bnn.ops.operation import operation
from bnn.ops.packing import empty_images
from bnn.ops.product_gradients import float_conv2d_backward_input, real_conv2d_backward_weight
from bnn.ops.products import float_conv2d


@operation(
    "(Tensor grad, Tensor codes, float[] slopes, Tensor x, Tensor weight, int[] window, Tensor moments, Tensor? scale,"
    " Tensor? gamma, float eps, bool with_input) -> (Tensor, Tensor, Tensor)",
    shape=lambda grad, codes, slopes, x, weight, window, moments, scale, gamma, eps, with_input: (
        empty_images(x, x.shape if with_input else (0, *x.shape[1:])),
        empty_images(weight, weight.shape),
        weight.new_empty((3, weight.shape[0])),
    ),
)
def normed_conv2d_backward(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    x: Tensor,
    weight: Tensor,
    window: Sequence[int],
    moments: Tensor,
    scale: Tensor | None,
    gamma: Tensor | None,
    eps: float,
    with_input: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input and weight of `float_conv2d`, as float16, and of the batch norm of its result.

    They are formed of `norm_gradient` behind `norm_gradient_terms`.

    Args:
        grad: of the norm's result, float32 or bfloat16 [N, O, H', W'].
        codes: of that result.
        slopes: of the codes.
        x: the input, float32 or bfloat16 [N, C, H, W].
        weight: float32 [O, C / groups, kh, kw].
        window: of the convolution.
        moments: float32 [2, O] of `batch_statistics`.
        scale: float32 [O], or None for 1.
        gamma: float32 [O], or None for 1.
        eps: of the norm.
        with_input: whether the gradient of the input is formed.

    Returns:
        Of `x`'s shape and dtype, or of no rows; float32 [O, C / groups, kh, kw]; float32 [3, O], the gradients of
        scale, gamma and beta.
    """
    y, reals = float_conv2d(x, weight, window, torch.float16), x.to(weight.dtype)
    terms, _, of_parameters = norm_gradient_terms(grad, codes, slopes, y, moments, scale, gamma, eps)
    of_product = norm_gradient(grad, codes, slopes, y, terms)
    of_weight = real_conv2d_backward_weight(of_product, reals, weight.shape, window)
    of_x = empty_images(x, x.shape if with_input else (0, *x.shape[1:]))
    if with_input:
        of_x.copy_(float_conv2d_backward_input(of_product, reals, weight, Window(*window)))
    return of_x, of_weight, of_parameters
