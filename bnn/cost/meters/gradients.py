"""`GradientMeter`: how the gradients of a trained network's products are distributed."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from bnn.layers import BinaryBlock, BinaryLayer
from bnn.quantizers.gradients import LognormalFit, fit_lognormal
from bnn.training import Callback, Trainer, TrainingStep


class GradientMeter(Callback):
    """Adds `gradient_fit` to the summary: {layer: {figure: value}}, the lognormal fit of the gradient of its product.

    Of each binary layer, over a training batch of the trained network; the figures are those of
    `bnn.quantizers.gradients.LognormalFit`, and null where the gradient is 0.
    """

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Measures."""
        x, labels = next(iter(trainer.batches.epoch(0)))
        gradients = product_gradients(trainer.run, x, labels)
        fits: dict[str, LognormalFit | None] = {name: fit_lognormal(x) for name, x in gradients.items()}
        summary["gradient_fit"] = {name: None if fit is None else asdict(fit) for name, fit in fits.items()}


def product_gradients(step: TrainingStep, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The gradient of each binary layer's output, before it is quantized, by the layer's name; nothing is stepped.

    Args:
        step: its model is left as it was.
        x: a batch, which goes through the network at once.
        labels: int64 [B].
    """
    model, outputs = step.model, dict[str, Tensor]()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, BinaryLayer)}
    # A fused block calls no hooks of its parts.
    fused = [module for module in model.modules() if isinstance(module, BinaryBlock) and module.recompute]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    was_training = model.training
    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
        for name, layer in layers.items()
    ]
    try:
        for block in fused:
            block.recompute = False
        model.train()
        with torch.enable_grad():
            _, loss = step.forward(x, labels)
            gradients = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
        for block in fused:
            block.recompute = True
        model.train(was_training)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    return {name: gradient for name, gradient in zip(outputs, gradients, strict=True) if gradient is not None}
