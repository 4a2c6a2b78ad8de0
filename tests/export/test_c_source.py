"""Generated C gives what the network gives: every sign before the head, and so its logits."""

import platform
import subprocess
from dataclasses import replace

import pytest
import torch
from torch import nn

from bnn.codec import Model
from bnn.export import c_source, commands, program_of
from bnn.export.program import AveragePool, Map, Product, Program, Signs, Thresholds, Value
from bnn.layers import BinaryBlock, MaxPool2d
from bnn.models import binarynet, cnv, mlp, resnet8, resnet18, resnet20, vgg_small
from bnn.models.resnet_imagenet import ResidualUnit
from bnn.models.zoo import quicknet_small
from bnn.presets import prepare
from bnn.quantizers import Sign
from tests.export.networks import (
    SANITIZED,
    compiled,
    examples,
    logits_of,
    narrow_quicknet,
    needs_gcc,
    network,
    of_parts,
    plain,
)

pytestmark = needs_gcc
SHAPE = (3, 16, 16)
# Without it, x86-64 has no instruction that counts ones.
POPCOUNT = ("-mpopcnt",) if platform.machine() == "x86_64" else ()


def narrow_resnet8():
    return resnet8(input_shape=SHAPE, classes=5, width=6)


@pytest.mark.parametrize(("preset", "flags"), [("standard", POPCOUNT), ("edge-min", SANITIZED)])
def test_signs_of_a_chain_are_exact_to_the_last_bit(preset, flags, tmp_path):
    model = network(plain, SHAPE, preset=preset)
    given, logits = examples(model, SHAPE, 50)
    assert len(set(logits.argmax(1).tolist())) > 1
    program = compiled(model, tmp_path / "c", *flags)
    # A single sign would change whole numbers before the last norm.
    assert torch.equal(logits_of(program, given), logits)
    early = subprocess.run([program], input=b"x" * 800, capture_output=True, check=False)
    assert early.returncode == 1
    assert early.stdout.count(b"\n") == 1
    assert b"after 32 of its bytes" in early.stderr


@pytest.mark.parametrize(("preset", "flags"), [("standard", POPCOUNT), ("edge-min", ("-DWITHOUT_POPCOUNT",))])
def test_a_residual_network(preset, flags, tmp_path):
    model = network(narrow_resnet8, SHAPE, preset=preset, pixels=False)
    given, logits = examples(model, SHAPE, 50)
    program = compiled(model, tmp_path / "c", *flags, shape=SHAPE)
    torch.testing.assert_close(logits_of(program, given), logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("preset", ["standard", "edge-min"])
def test_a_network_of_the_zoo(preset, tmp_path):
    model = network(narrow_quicknet, (3, 32, 32), preset=preset)
    given, logits = examples(model, (3, 32, 32), 20)
    torch.testing.assert_close(logits_of(compiled(model, tmp_path / "c"), given), logits, rtol=0, atol=1e-5)


def norms_outside() -> nn.Sequential:
    """Norms of images behind blocks, which hand 16 bits on under the presets; the kinds of ResNetE-18 in little."""
    return nn.Sequential(
        nn.BatchNorm2d(3),
        BinaryBlock(nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(8), activation=nn.ReLU()),
        MaxPool2d(3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        ResidualUnit(8, 8, stride=1, store=None, input_quantizer=Sign()),
        ResidualUnit(8, 16, stride=2, store=None, input_quantizer=Sign()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(16),
        nn.Linear(16, 5),
    )


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
def test_norms_outside_of_blocks_take_and_give_16_bits(preset, tmp_path):
    model = network(norms_outside, (3, 32, 32), preset=preset)
    given, logits = examples(model, (3, 32, 32), 200)
    found = logits_of(compiled(model, tmp_path / "c"), given)
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-5)
    narrow = []
    handles = [
        m.register_forward_hook(lambda _, x, y: narrow.append((x[0].dtype, y.dtype))) for m in model.network[3:9:5]
    ]
    with torch.no_grad():
        model.network(torch.zeros(2, 3, 32, 32))
    for handle in handles:
        handle.remove()
    assert narrow == [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32)], "of images alone"


def test_layers_outside_of_blocks(tmp_path):
    model = network(of_parts, SHAPE, preset="standard")
    given, logits = examples(model, SHAPE, 50)
    torch.testing.assert_close(logits_of(compiled(model, tmp_path / "c"), given), logits, rtol=0, atol=1e-5)


def test_a_chain_has_thresholds_alone_before_its_head():
    program = program_of(network(plain, SHAPE, preset="edge-min"))
    products = [step for step in program.steps if isinstance(step, Product)]
    assert all(isinstance(step.tail, Thresholds) for step in products[:-1])
    assert not [step for step in program.steps if isinstance(step, Map | Signs)]
    source = c_source(program).source
    assert "malloc" not in source
    assert "float sum" in source  # of the first layer, and of no other
    assert source.count("sum_reals_of_bits, finish_") == 1


@pytest.mark.slow
@pytest.mark.parametrize("build", [plain, narrow_resnet8, of_parts], ids=lambda build: build.__name__)
def test_ten_thousand_inputs_under_sanitizers(build, tmp_path):
    model = network(build, SHAPE, preset="standard" if build is of_parts else "edge-min")
    given, logits = examples(model, SHAPE, 10_000)
    found = logits_of(compiled(model, tmp_path / "c", *SANITIZED), given)
    if build is plain:
        assert torch.equal(found, logits)
    else:
        torch.testing.assert_close(found, logits, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["standard", "edge", "edge-min"])
@pytest.mark.parametrize(
    ("build", "shape", "count"),
    [
        (mlp, (1, 28, 28), 1000),
        (cnv, (3, 32, 32), 200),
        (binarynet, (3, 32, 32), 50),
        (resnet20, (3, 32, 32), 200),
        (resnet18, (3, 32, 32), 20),
        (vgg_small, (3, 32, 32), 50),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_networks_of_the_package(build, shape, count, preset, tmp_path):
    model = network(build, shape, preset=preset)
    given, logits = examples(model, shape, count)
    found = logits_of(compiled(model, tmp_path / "c", "-O2", *POPCOUNT), given)
    if build in (mlp, cnv, binarynet):
        assert torch.equal(found, logits)
    # Under `standard` real stems are torch's, whose sums may have another order.
    torch.testing.assert_close(found, logits, rtol=1e-5 if preset == "standard" else 0, atol=1e-5)


def test_terms_of_real_convolutions_are_added_in_one_rounding():
    """By this package's kernels, and by torch where images or weights have no kernel; linear layers are torch's."""
    model = prepare("edge-min", narrow_quicknet, input_shape=(3, 32, 32)).model.eval()
    steps = program_of(Model(model), (3, 32, 32)).steps
    fuses = [step.fuses for step in steps if isinstance(step, Product) and step.weight.is_floating_point()]
    assert fuses == [True, True, True, True, False]  # stem, by channel, pixel by pixel, to more channels, head


def without_head(program: Program) -> Program:
    """Ends with the image whose means the head takes, as a row in the order of height, width, channels."""
    head = max(number for number, step in enumerate(program.steps) if isinstance(step, AveragePool))
    image = program.steps[head].x
    row = Value(program.output.number + 1, "float32", 1, 1, image.size)
    return replace(program, steps=(*program.steps[:head], Map(image, row, ())), output=row, classes=())


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["standard", "edge-min"])
def test_a_network_of_the_zoo_at_its_size(preset, tmp_path, monkeypatch):
    shape = (3, 224, 224)
    model = network(quicknet_small, shape, preset=preset)
    given, logits = examples(model, shape, 10)
    found = logits_of(compiled(model, tmp_path / "c", "-O2", *POPCOUNT), given)
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-5)
    monkeypatch.setattr(commands, "program_of", lambda *arguments: without_head(program_of(*arguments)))
    found = logits_of(compiled(model, tmp_path / "image", "-O2", *POPCOUNT), given)
    with torch.no_grad():
        image = model.network[:-3](model.preprocessing.normalized(given))
    expected = image.float().permute(0, 2, 3, 1).flatten(1)
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert torch.equal(found, expected)
    else:  # torch sums some shapes in another order, and a last bit of bfloat16 may hang on it
        torch.testing.assert_close(found, expected, rtol=2**-6 if preset == "edge-min" else 1e-4, atol=2e-5)
