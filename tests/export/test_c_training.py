"""C that learns: a step gives the accumulators of `edge-min`, to the bit, and ten epochs its accuracy."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnn.codec import Model
from bnn.data import Preprocessing, digits
from bnn.export import ExportError
from bnn.export.commands import export_c_training
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, MaxPool2d
from bnn.models import cnv, mlp, resnet8
from bnn.presets import prepare
from bnn.quantizers import ApproxSign, Sign
from bnn.quantizers.gradients import IntegerGradient
from bnn.training import TrainingStep, warmup_cosine
from tests.export.networks import SANITIZED, STRICT, needs_gcc

pytestmark = needs_gcc
BATCH = 5
SHAPE = (3, 10, 10)
HERE = Path(__file__).parent


def chain() -> nn.Sequential:
    """Padding, stride, dilation, odd widths, poolings before and behind the sign, and a flattened image."""
    return nn.Sequential(
        BinaryBlock(BinaryConv2d(3, 12, 3, padding=1, input_quantizer=None), nn.BatchNorm2d(12), activation=Sign()),
        BinaryBlock(BinaryConv2d(12, 36, 3, padding=1), nn.BatchNorm2d(36), pool=MaxPool2d(2), activation=Sign()),
        BinaryBlock(BinaryConv2d(36, 33, 3, padding=2, stride=2), nn.BatchNorm2d(33), activation=Sign(window=0.5)),
        MaxPool2d(2),
        nn.Sequential(
            BinaryBlock(BinaryConv2d(33, 16, 2, padding=1, dilation=2), nn.BatchNorm2d(16), activation=Sign())
        ),
        nn.Flatten(),
        BinaryBlock(BinaryLinear(16 * 4, 40), nn.BatchNorm1d(40, momentum=0.2), activation=Sign()),
        BinaryBlock(BinaryLinear(40, 5), nn.BatchNorm1d(5)),
    )


def narrow_mlp() -> nn.Sequential:
    return mlp(input_shape=SHAPE, hidden=(40, 24), classes=5)


def prepared(build, shape, *, is_exact: bool = True, preset: str = "edge-min") -> tuple[TrainingStep, Model]:
    """A step of a preset, and its network as a model. Inputs are whole numbers over 128 where they are exact."""
    step = prepare(preset, build, input_shape=shape, seed=3)
    channels = shape[0]
    statistics = ((0.0,) * channels, (128 / 255,) * channels) if is_exact else ((0.45,) * channels, (0.27,) * channels)
    model = Model(step.model, preprocessing=Preprocessing(shape, *statistics))
    step.model.train()
    return step, model


def drawn(shape, classes: int, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    images[:, :, :2] = 9  # a border that is the same in all examples, whose gradients are often 0
    return images, torch.randint(0, classes, (count,), generator=generator)


def compiled(directory: Path, model: Model, step: TrainingStep, batch_size: int, *flags: str) -> Path:
    """The program of tests/export/training_main.c around an exported network."""
    export_c_training(model, step.optimizer, directory / "c", batch_size=batch_size)
    program = directory / "program"
    names = [f"-I{directory / 'c'}", "-o", str(program), str(HERE / "training_main.c")]
    subprocess.run(["gcc", *STRICT, *flags, *names, "-lm"], check=True)
    return program


def given_to_learn(images: Tensor, labels: Tensor) -> bytes:
    numbers = torch.cat((torch.tensor([len(labels)]), labels)).to(torch.int32)
    return numbers.numpy().tobytes() + images.movedim(1, -1).contiguous().numpy().tobytes()


def learned(program: Path, images: Tensor, labels: Tensor) -> tuple[list[float], bytes]:
    """The losses of steps by batches, and what the program holds afterwards: accumulators and norms of each block."""
    run = subprocess.run([program], input=given_to_learn(images, labels), capture_output=True, check=True)
    return [float(word) for word in run.stderr.split()], run.stdout


def check(step: TrainingStep, state: bytes) -> Tensor:
    """Compares accumulators, to the bit, and what is learned of norms, with the network's; gives the logits."""
    for block in step.model.modules():
        if isinstance(block, BinaryBlock):
            weight, norm = block.product.store.weight.detach(), block.norm
            by_taps = weight.movedim(1, -1) if weight.dim() == 4 else weight
            size, columns = weight.numel(), 11 * len(weight)
            assert torch.equal(numbers(state[:size], np.int8), by_taps.contiguous().flatten())
            found = numbers(state[size : size + 4 * columns], np.float32).view(-1, 11)
            for column, expected in enumerate((norm.weight, norm.bias, norm.running_mean, norm.running_var)):
                torch.testing.assert_close(found[:, column], expected.detach(), rtol=1e-5, atol=1e-6)
            state = state[size + 4 * columns :]
    return numbers(state, np.float32)


def numbers(content: bytes, dtype) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype).copy())


def check_steps(step: TrainingStep, model: Model, program: Path, images: Tensor, labels: Tensor, batch: int) -> None:
    losses, state = learned(program, images, labels)
    step.model.train()
    for first in range(0, len(images), batch):
        x = model.preprocessing.normalized(images[first : first + batch])
        result = step.take(x, labels[first : first + batch])
        assert losses.pop(0) == pytest.approx(result.loss, rel=1e-5)
    logits = check(step, state)
    with torch.no_grad():
        expected = model.eval()(model.preprocessing.normalized(images[:1]))
    torch.testing.assert_close(logits[None], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("preset", ["edge-min", pytest.param("edge-fast", marks=pytest.mark.slow)])
def test_a_chain_gives_the_accumulators_and_logits_of_the_preset(preset, tmp_path):
    step, model = prepared(chain, SHAPE, preset=preset)
    # The last batch is smaller; without recovery, sanitizers end the program.
    check_steps(
        step, model, compiled(tmp_path, model, step, BATCH, *SANITIZED, "-O0"), *drawn(SHAPE, 5, 2 * BATCH - 1), BATCH
    )


def test_a_perceptron_learns_the_same_and_nothing_from_what_is_wrong(tmp_path):
    step, model = prepared(narrow_mlp, SHAPE)
    program = compiled(tmp_path, model, step, BATCH)
    images, labels = drawn(SHAPE, 5, BATCH + 1)
    wrong = labels.clone()
    wrong[1] = 5
    # A label that no class has, and a batch of one example.
    losses, state = learned(program, images, wrong)
    assert np.isnan(losses).tolist() == [True, True]
    check(step, state)
    check_steps(step, model, program, images[:BATCH], labels[:BATCH], BATCH)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "shape", "batch"), [(mlp, (1, 28, 28), 16), (cnv, (3, 32, 32), 4)], ids=["mlp", "cnv"]
)
def test_a_step_of_networks_of_the_package(build, shape, batch, tmp_path):
    step, model = prepared(build, shape)
    check_steps(step, model, compiled(tmp_path, model, step, batch, "-O2"), *drawn(shape, 10, batch), batch)


@pytest.mark.slow
@pytest.mark.parametrize("is_of_pixels", [True, False], ids=["pixels", "floats"])
@pytest.mark.parametrize("build", [chain, narrow_mlp])
def test_ten_thousand_random_examples_under_sanitizers(build, is_of_pixels, tmp_path):
    step, model = prepared(build, SHAPE)
    if not is_of_pixels:
        model = Model(step.model)
    export_c_training(model, step.optimizer, tmp_path / "c", batch_size=BATCH, input_shape=SHAPE)
    program = tmp_path / "program"
    names = [f"-I{tmp_path / 'c'}", "-o", str(program), str(HERE / "training_fuzz.c")]
    flags = (*SANITIZED, "-fsanitize=float-cast-overflow")
    subprocess.run(["gcc", *STRICT, *flags, *names, "-lm"], check=True)
    ran = subprocess.run([program], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    losses, steps = map(int, ran.stdout.split())
    assert 0.3 * steps < losses < steps


def small_digits() -> nn.Sequential:
    return mlp(input_shape=(1, 8, 8), hidden=(128, 128))


@pytest.mark.slow
def test_ten_epochs_of_digits_reach_the_accuracy_of_python(tmp_path):
    data, epochs, batch = digits(), 10, 32
    correct: dict[str, int] = {}
    step, model = prepared(small_digits, data.image_shape, is_exact=False)
    export_c_training(model, step.optimizer, tmp_path / "c", batch_size=batch, example=True)
    subprocess.run(["make", "-C", str(tmp_path / "c"), "CC=gcc"], check=True, capture_output=True)
    images, labels = data.train.images, data.train.labels
    orders = [torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch)) for epoch in range(epochs)]
    count = len(labels) // batch * batch
    order = torch.cat([order[:count] for order in orders])
    steps = len(order) // batch
    rows = torch.cat((images[order], data.test.images)).movedim(1, -1).flatten(1)
    given = torch.cat((labels[order], torch.full((len(data.test.labels),), 255))).to(torch.uint8)[:, None]
    content = torch.cat((given, rows), dim=1).numpy().tobytes()
    ran = subprocess.run([tmp_path / "c" / "learn", str(steps)], input=content, capture_output=True, check=True)
    guesses = torch.tensor([int(line) for line in ran.stdout.split(b"\n") if line.isdigit()])
    correct["c"] = int((guesses == data.test.labels).sum())
    factor, rates = warmup_cosine(steps), [group["lr"] for group in step.optimizer.param_groups]
    step.model.train()
    for number, rows_of in enumerate(order.split(batch)):
        for group, rate in zip(step.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor(number)
        step.take(model.preprocessing.normalized(images[rows_of]), labels[rows_of])
    with torch.no_grad():
        logits = model.eval()(model.preprocessing.normalized(data.test.images))
    correct["python"] = int((logits.argmax(1) == data.test.labels).sum())
    assert len(guesses) == len(data.test.labels)
    assert correct["c"] > 0.9 * len(guesses)
    assert abs(correct["c"] - correct["python"]) <= 0.02 * len(guesses), correct


def test_all_layers_that_do_not_learn_are_named(tmp_path):
    network = nn.Sequential(
        BinaryBlock(BinaryConv2d(3, 4, 3, input_quantizer=None), nn.BatchNorm2d(4), activation=ApproxSign()),
        nn.GELU(),
        BinaryBlock(BinaryConv2d(4, 4, 3, learned_scale=True), nn.BatchNorm2d(4), activation=Sign()),
        nn.Flatten(),
        nn.Linear(144, 3),
    )
    step, model = prepared(lambda: network, SHAPE)
    with pytest.raises(ExportError) as error:
        export_c_training(model, step.optimizer, tmp_path / "c", batch_size=2)
    assert str(error.value) == (
        "these layers cannot be trained in C: 0 (its activation is not Sign, but ApproxSign); 1 (there is no GELU in a"
        " chain of blocks); 2 (it has a learned scale, groups or a rectifier); 4 (there is no Linear in a chain of"
        " blocks)"
    )
    assert not (tmp_path / "c").exists()


def test_a_gradient_of_two_widths_is_refused(tmp_path):
    step, model = prepared(chain, SHAPE)
    step.model[0].product.grad_quantizer = IntegerGradient(5, weight_bits=8, generator=torch.Generator())
    with pytest.raises(ExportError, match=r"0 \(the gradient of its product has two widths\)"):
        export_c_training(model, step.optimizer, tmp_path / "c", batch_size=2)


def test_networks_that_are_no_chain_are_refused(tmp_path):
    step, model = prepared(lambda: resnet8(input_shape=(3, 16, 16), width=6), (3, 16, 16))
    with pytest.raises(ExportError, match="there is no _Block in a chain of blocks"):
        export_c_training(model, step.optimizer, tmp_path / "c", batch_size=2)


def test_a_batch_that_edge_min_would_cut_is_refused(tmp_path):
    step, model = prepared(narrow_mlp, SHAPE)
    for batch_size in (1, 9):
        with pytest.raises(ExportError, match=f"batches of 2 to 8 examples, got {batch_size}"):
            export_c_training(model, step.optimizer, tmp_path / "c", batch_size=batch_size, largest_batch=8)
