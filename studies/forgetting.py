"""A network that is taught one task after the other forgets; a posterior of its weights forgets less.

Prediction: on digits whose pixels are permuted anew for each task, and without old examples, Bayesian gradient descent
keeps more of the first tasks than stochastic gradient descent does, and so do correlated posteriors (FOO-VB). Beside
them stand what a device would train: int8 accumulators, whose hysteresis keeps a weight that has flipped from flipping
back. Sources: Zeno, Golan, Hoffer and Soudry 2018, arXiv 1803.10123, and 2021, arXiv 2010.00373.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from bnn.data import digits
from bnn.methods import BGD, FOOVB
from bnn.models import mlp
from bnn.presets import prepare
from studies.study import Curve, Finding, Measured

TASKS, EPOCHS, BATCH, HIDDEN = 4, 12, 100, 64
Update = Callable[[Tensor, Tensor], object]
"""Takes a batch's images and labels and changes a network."""


def measure(*, seed: int = 0) -> Measured:
    """Accuracy on each of four tasks after the last of them, by what trained the network."""
    contestants = {
        "SGD": sgd,
        "BGD": bgd,
        "FOO-VB": foo_vb,
        "int8 accumulators": lambda seed: accumulators(seed, hysteresis_steps=20.0),
        "the same without hysteresis": lambda seed: accumulators(seed, hysteresis_steps=0.0),
    }
    accuracies = {name: after_all_tasks(*make(seed), seed=seed) for name, make in contestants.items()}
    means = {name: sum(of_tasks) / TASKS for name, of_tasks in accuracies.items()}
    return Measured(
        title="What is left of earlier tasks",
        x_label="task, in the order of training",
        y_label="test accuracy after the last task",
        findings=[
            Finding("points on average over the tasks, BGD above SGD", 100 * (means["BGD"] - means["SGD"]), low=0),
            Finding("points on average, FOO-VB above SGD", 100 * (means["FOO-VB"] - means["SGD"]), low=0),
            Finding("accuracy on the last task, SGD", accuracies["SGD"][-1], low=0.9),
            Finding("the same, BGD", accuracies["BGD"][-1], low=0.9),
            Finding("the same, FOO-VB, which pays with it", accuracies["FOO-VB"][-1], high=0.9),
            Finding("average, int8 accumulators", means["int8 accumulators"]),
            Finding("the same without hysteresis", means["the same without hysteresis"]),
        ],
        curves=[Curve(name, range(1, TASKS + 1), of_tasks) for name, of_tasks in accuracies.items()],
    )


def sgd(seed: int) -> tuple[nn.Module, Update]:
    """A float network with plain steps."""
    model = network(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def update(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return model, update


def bgd(seed: int) -> tuple[nn.Module, Update]:
    """The same network with a deviation of each weight."""
    model = network(seed)
    optimizer = BGD(model.parameters(), deviation=0.1, generator=torch.Generator().manual_seed(seed))
    return model, lambda images, labels: optimizer.step(closure(model, images, labels))


def foo_vb(seed: int) -> tuple[nn.Module, Update]:
    """The same network with correlated posteriors."""
    model = network(seed)
    optimizer = FOOVB(model.parameters(), deviation=0.08, generator=torch.Generator().manual_seed(seed))
    return model, lambda images, labels: optimizer.step(closure(model, images, labels))


def accumulators(seed: int, *, hysteresis_steps: float) -> tuple[nn.Module, Update]:
    """A binary network with one int8 accumulator a weight, as the preset `edge-min` trains it."""
    step = prepare(
        "edge-min", lambda: mlp(input_shape=(1, 8, 8), hidden=(HIDDEN, HIDDEN)), input_shape=(1, 8, 8), seed=seed
    )
    step.optimizer.param_groups[0]["hysteresis_steps"] = hysteresis_steps
    return step.model, lambda images, labels: step.take(images.view(-1, 1, 8, 8), labels)


def network(seed: int) -> nn.Module:
    """64-64-64-10 with ReLUs."""
    torch.manual_seed(seed)
    widths = [64, HIDDEN, HIDDEN, 10]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def closure(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """The negative logarithm of a batch's likelihood, with its gradients."""

    def loss() -> Tensor:
        model.zero_grad()
        value = nn.functional.cross_entropy(model(images), labels, reduction="sum")
        value.backward()
        return value

    return loss


def after_all_tasks(model: nn.Module, update: Update, *, seed: int) -> list[float]:
    """Test accuracy on each task after training on one after the other."""
    data = digits()
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(64, generator=generator) for _ in range(TASKS)]

    def pixels(images: Tensor, order: Tensor) -> Tensor:
        return (images.flatten(1)[:, order].float() / 128 - 0.6).view(-1, 1, 8, 8)

    for order in orders:
        images, labels = pixels(data.train.images, order), data.train.labels.long()
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(images), generator=generator).split(BATCH):
                update(images[batch], labels[batch])
    model.eval()
    labels = data.test.labels.long()
    with torch.no_grad():
        return [float((model(pixels(data.test.images, order)).argmax(1) == labels).float().mean()) for order in orders]
