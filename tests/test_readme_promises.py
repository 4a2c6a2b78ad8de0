"""What the README promises before anything is installed: bits that are kept, and trainings that end while one waits."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from bnn import ApproxSign, BinaryBlock, BinaryConv2d, Sign
from bnn.cost.count import count_network
from bnn.data import Dataset
from bnn.presets import prepare
from bnn.training.recipe import load_recipe, locate_recipe, parse_arguments, recipe_parser
from tests.contracts import randn, saved_bytes
from tests.test_documented_commands import COMMANDS, OF_EVERY_RUN

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def block(quantizer: nn.Module, **parts: nn.Module) -> BinaryBlock:
    return BinaryBlock(BinaryConv2d(8, 8, 3, padding=1, input_quantizer=quantizer), nn.BatchNorm2d(8), **parts)


class Clamped(nn.Module):
    """A block with its input as the shortcut, and a clamp behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.block = block(ApproxSign(), activation=nn.Hardtanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x, x)


def added_bits(preset: str, make: Callable[[], nn.Module]) -> int:
    """Bits that a block among others saves for each element of its input under a preset.

    The network that they are in knows nothing of presets.
    """

    def saved(blocks: int) -> int:
        def build(**_parts: object) -> nn.Module:
            return nn.Sequential(*(make() for _ in range(blocks)), nn.Flatten(), nn.Linear(8 * 64, 2))

        step = prepare(preset, build, input_shape=(8, 8, 8))
        with saved_bytes() as found:
            step.model(x)
        return 8 * sum(found.values())

    x = randn(64, 8, 8, 8).contiguous(memory_format=torch.channels_last)
    # What is kept of a channel or a weight, which does not grow with the batch, is less than half a bit.
    return round((saved(3) - saved(2)) / x.numel())


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
@pytest.mark.parametrize(
    ("make", "bits", "words"),
    [
        (
            lambda: block(Sign()),
            2,
            "two bits an activation under the presets `edge` and `edge-min` behind a hard",
        ),
        (lambda: block(ApproxSign()), 3, "three behind a polynomial one"),
        (Clamped, 4, "and a fourth where its result is clamped"),
    ],
)
def test_bits_of_an_activation_under_a_preset(preset, make, bits, words):
    assert words in " ".join(README.split())
    assert added_bits(preset, make) == bits


# Of a preset's or of plain layers on two cores: 600 epochs of ResNet-20 took 64 hours there.
MULTIPLY_ACCUMULATES_A_SECOND = 1e10
EXAMPLES = {"digits": 3_823, "mnist": 60_000, "mtj": 60_000, "recu": 50_000}
"""Of the data that are not the reader's own."""
TRAININGS = [arguments for page, arguments in COMMANDS if page == "README.md" and arguments[0] in EXAMPLES]


def described(recipe: str) -> Dataset:
    shape = [3, 32, 32] if recipe == "recu" else [1, 8, 8] if recipe == "digits" else [1, 28, 28]
    name = "mnist" if recipe == "mtj" else recipe  # which this recipe takes its network by
    description = {"name": name, "source": recipe, "classes": list("0123456789"), "image_shape": shape}
    ones = [1.0] * shape[0]
    counts = {"train_images": EXAMPLES[recipe], "test_images": 10}
    return Dataset.from_description({**description, "mean": ones, "std": ones, "reads": "pictures", **counts})


def hours(arguments: list[str]) -> float:
    name, *options = arguments
    recipe = load_recipe(locate_recipe(name))
    own = [word for word in options if word not in OF_EVERY_RUN and not word.startswith("runs/")]
    run = recipe.with_data(described(name), parse_arguments(recipe_parser(recipe, prog="bnn"), own))
    forward = sum(layer.multiply_accumulates for layer in count_network(run.model, run.data.image_shape).layers)
    return 3 * forward * EXAMPLES[name] * run.epochs / MULTIPLY_ACCUMULATES_A_SECOND / 3600


@pytest.mark.parametrize("arguments", TRAININGS, ids=" ".join)
def test_a_training_of_the_readme_takes_an_hour_at_most(arguments):
    assert hours(arguments) < 1


def test_a_training_of_days_would_be_noticed():
    assert len(TRAININGS) >= 4
    assert 24 < hours(["recu", "--model", "resnet20", "--epochs", "600", "--data-dir", "."]) < 200
