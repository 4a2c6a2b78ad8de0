"""Examples of real labels pull the weights together; those of random labels, each its own way.

Prediction: the coherence m = |sum g_i|² / sum |g_i|² of the gradients of m examples counts those that one example's
step helps; it is above 1 at first and far higher for real labels than for random ones, and falls towards 1 and below
as the examples are fitted. So it tells what generalizes from what is learned by heart, and the sign's straight-through
gradient should leave it. Source: Chatterjee and Zielinski 2022, arXiv 2203.10036; the measure: 2020, arXiv 2008.01217.
"""

import torch
from torch import Tensor
from torch.func import grad, vmap

from bnn.data import digits
from studies.study import Curve, Finding, Measured

EXAMPLES, HIDDEN, EPOCHS, BATCH, RATE = 500, 64, 40, 50, 0.2
Weights = dict[str, Tensor]


def measure(*, seed: int = 0) -> Measured:
    """Coherence while a float and a binary network of one hidden layer learn digits of real and of random labels."""
    data = digits()
    images = data.train.images[:EXAMPLES].flatten(1).float() / 128 - 1
    real = data.train.labels[:EXAMPLES].long()
    generator = torch.Generator().manual_seed(seed)
    random = real[torch.randperm(EXAMPLES, generator=generator)]
    curves = {
        (network, labels): train(images, of, binary=network == "binary", seed=seed)
        for network in ("float", "binary")
        for labels, of in (("real", real), ("random", random))
    }
    copies = coherence(start(images.shape[1], generator), images[:1].expand(50, -1), real[:1].expand(50), binary=False)
    first = {key: max(values[:5]) for key, values in curves.items()}
    return Measured(
        title="Gradients of real labels agree",
        x_label="epochs",
        y_label="coherence of 500 examples",
        log="y",
        findings=[
            Finding("coherence of 50 copies", copies, 49.99, 50.01),
            Finding("early, real over random labels, float", first["float", "real"] / first["float", "random"], low=2),
            Finding("the same, binary", first["binary", "real"] / first["binary", "random"], low=2),
            Finding(
                "at the end over early, real labels, float",
                curves["float", "real"][-1] / first["float", "real"],
                high=0.5,
            ),
        ],
        curves=[
            Curve(f"{network}, {labels} labels", range(EPOCHS + 1), values, dashed=labels == "random")
            for (network, labels), values in curves.items()
        ],
    )


def start(inputs: int, generator: torch.Generator) -> Weights:
    """Weights drawn evenly from ±1 / sqrt(fan-in)."""
    return {
        name: (torch.rand(out, fan_in, generator=generator) * 2 - 1) / fan_in**0.5
        for name, out, fan_in in (("first", HIDDEN, inputs), ("last", 10, HIDDEN))
    }


def logits(weights: Weights, image: Tensor, *, binary: bool) -> Tensor:
    """Of one image: a hidden layer of ReLUs, or one of binary weights and activations."""
    if not binary:
        return weights["last"] @ torch.relu(weights["first"] @ image)
    fan_in = len(image)
    return weights["last"] @ _sign(_sign(weights["first"]) @ image / fan_in**0.5)


def _sign(x: Tensor) -> Tensor:
    """The sign, with the gradient of Hardtanh."""
    window = x.clamp(-1, 1)
    return window + (torch.where(x < 0, -1.0, 1.0) - window).detach()


def gradients(weights: Weights, images: Tensor, labels: Tensor, *, binary: bool) -> Weights:
    """Of each example's loss: [examples, ...]."""

    def loss(weights: Weights, image: Tensor, label: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits(weights, image, binary=binary), label)

    of_each: Weights = vmap(grad(loss), in_dims=(None, 0, 0))(weights, images, labels)
    return of_each


def coherence(weights: Weights, images: Tensor, labels: Tensor, *, binary: bool) -> float:
    """|sum g_i|² / sum |g_i|², in 0..examples."""
    rows = torch.cat([g.flatten(1) for g in gradients(weights, images, labels, binary=binary).values()], dim=1)
    return float(rows.sum(0).square().sum() / rows.square().sum())


def train(images: Tensor, labels: Tensor, *, binary: bool, seed: int) -> list[float]:
    """The coherence before training and after each epoch of stochastic gradient descent."""
    generator = torch.Generator().manual_seed(seed)
    weights = start(images.shape[1], generator)
    values = [coherence(weights, images, labels, binary=binary)]
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            steps = gradients(weights, images[batch], labels[batch], binary=binary)
            weights = {name: weight - RATE * steps[name].mean(0) for name, weight in weights.items()}
        values.append(coherence(weights, images, labels, binary=binary))
    return values
