"""The binary linear layer."""

from torch import Tensor

from bnn.layers import products
from bnn.layers.base import BinaryLayer
from bnn.quantizers import Quantizer, Sign
from bnn.quantizers.gradients import GradientQuantizer
from bnn.weights import StoreFactory


class BinaryLinear(BinaryLayer):
    """y = scale * (q_x(x) q_w(w)^T) + bias.

    With both quantizers of ±1 the product is exact and backward keeps one bit an input.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        store: makes the weight's store from its shape; None: that of `bnn.weights.default_store`.
        input_quantizer: pattern that is copied; None takes the input as it comes (real, or already quantized).
        grad_quantizer: pattern that is copied; what becomes of the gradient of the product before it is multiplied
            for those of input and weight. `Int8Gradient` with a generator makes these products of integers.
        learned_scale: whether a factor of each output is trained; starts at 1.
        bias: whether a term of each output is trained; starts at 0.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        store: StoreFactory | None = None,
        input_quantizer: Quantizer | None = Sign(),  # noqa: B008  (a pattern, copied)
        grad_quantizer: GradientQuantizer | None = None,
        learned_scale: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__(
            (out_features, in_features),
            store=store,
            input_quantizer=input_quantizer,
            grad_quantizer=grad_quantizer,
            learned_scale=learned_scale,
            bias=bias,
        )
        self.in_features = in_features
        self.out_features = out_features

    window = None
    """A product of matrices has none."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to float [..., out_features]."""
        x, store = self.quantized(x), self.store
        product = store.product(x, None)
        if product is None:
            product = products.linear(x, store.read(), self.grad_quantizer, store.gradient_quantizer)
        return self.scaled(product, trailing_dims=0)

    def extra_repr(self) -> str:  # noqa: D102
        out_features, in_features = self.store.shape
        return f"{in_features}, {out_features}"
