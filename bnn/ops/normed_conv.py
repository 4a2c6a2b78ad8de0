"""The backward pass of a convolution of real images and the batch norm behind it, whose product never is whole.

Kept for it are the images and the codes of the norm's result (see `bnn.ops.batch_norm`). The product is formed again,
once for the sums of the norm's gradient and once for the gradient itself.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.ops.batch_norm import norm_gradient, norm_gradient_terms
from bnn.ops.operation import operation
from bnn.ops.product_gradients import real_conv2d_backward_weight
from bnn.ops.products import empty_images, float_conv2d


@operation(
    "(Tensor grad, Tensor codes, float[] slopes, Tensor x, Tensor weight, int[] window, Tensor moments, Tensor? scale,"
    " Tensor? gamma, float eps) -> (Tensor, Tensor)",
    shape=lambda grad, codes, slopes, x, weight, *_: (
        empty_images(x, weight.shape),
        x.new_empty((3, weight.shape[0])),
    ),
)
def normed_conv2d_backward_weight(
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
) -> tuple[Tensor, Tensor]:
    """Gradients of the weight of `float_conv2d`, as float16, and of the batch norm of its result.

    It is `norm_gradient` behind `norm_gradient_terms`, and `real_conv2d_backward_weight` of that.

    Args:
        grad: of the norm's result, float32 or bfloat16 [N, O, H', W'].
        codes: of that result.
        slopes: of the codes.
        x: the images, float32 [N, C, H, W].
        weight: float32 [O, C / groups, kh, kw].
        window: of the convolution.
        moments: float32 [2, O] of `batch_statistics`.
        scale: float32 [O], or None for 1.
        gamma: float32 [O], or None for 1.
        eps: of the norm.

    Returns:
        float32 [O, C / groups, kh, kw]; float32 [3, O], the gradients of scale, gamma and beta.
    """
    y = float_conv2d(x, weight, window, torch.float16)
    terms, _, of_parameters = norm_gradient_terms(grad, codes, slopes, y, moments, scale, gamma, eps)
    of_product = norm_gradient(grad, codes, slopes, y, terms)
    return real_conv2d_backward_weight(of_product, x, weight.shape, window), of_parameters
