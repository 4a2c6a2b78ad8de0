"""Bad local minima vanish with over-parameterization, even where labels are noise.

Prediction: a network of one hidden layer of leaky ReLUs on Gaussian inputs of random labels has few differentiable
minima with training errors once its weights outnumber the examples, so that descent from random starts ends without
errors. Source: Soudry and Hoffer 2017, arXiv 1702.05777.
"""

import torch
from torch import Tensor

from studies.study import Curve, Finding, Measured

EXAMPLES, INPUTS, RESTARTS, STEPS = 80, 10, 20, 1500
HIDDEN = (2, 4, 8, 16, 32, 64)


def measure(*, seed: int = 0) -> Measured:
    """The share of 20 trainings that end without an error, by the weights of the hidden layer."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(EXAMPLES, INPUTS, generator=generator)
    labels = torch.randint(2, (EXAMPLES,), generator=generator).float().mul_(2).sub_(1)
    errors = [final_errors(x, labels, hidden, generator) for hidden in HIDDEN]
    solved = [float((error == 0).float().mean()) for error in errors]
    ratios = [hidden * INPUTS / EXAMPLES for hidden in HIDDEN]
    return Measured(
        title="Random labels are learned once weights outnumber them",
        x_label="hidden weights over examples",
        y_label="of trainings",
        log="x",
        findings=[
            Finding(f"without errors, with {ratios[0]:g} weights an example", solved[0], high=0.05),
            Finding(f"without errors, with {ratios[-1]:g} weights an example", solved[-1], low=0.95),
        ],
        curves=[
            Curve("share without errors", ratios, solved),
            Curve("mean training error", ratios, [float(error.mean()) for error in errors]),
        ],
    )


def final_errors(x: Tensor, labels: Tensor, hidden: int, generator: torch.Generator) -> Tensor:
    """Training errors [restarts], in 0..1, after full-batch Adam on the logistic loss from random starts."""
    first = torch.randn(RESTARTS, x.shape[1], hidden, generator=generator) / x.shape[1] ** 0.5
    last = torch.randn(RESTARTS, hidden, 1, generator=generator) / hidden**0.5
    weights = [first.requires_grad_(), last.requires_grad_()]
    optimizer = torch.optim.Adam(weights, lr=0.02)
    for _ in range(STEPS):
        outputs = torch.nn.functional.leaky_relu(x @ first, 0.1).matmul(last).squeeze(2)
        torch.nn.functional.softplus(-labels * outputs).mean(1).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    outputs = torch.nn.functional.leaky_relu(x @ first, 0.1).matmul(last).squeeze(2)
    return (outputs.detach() * labels <= 0).float().mean(1)
