"""The pages that users read: links lead somewhere, and the example runs."""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import bnn.cli
import hwsim.cli
from bnn import (
    ApproxSign,
    BinaryBlock,
    BinaryConv2d,
    BinaryNorm,
    BitTensor,
    L1BatchNorm,
    MaxPool2d,
    RPReLU,
    Sign,
    Ternary,
)
from bnn.layers import AvgPool2d
from bnn.models.zoo import RELEASED
from bnn.quantizers.gradients import Int8Gradient
from tests.contracts import randn, saved_bytes

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.parts))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def test_architecture_names_every_part():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    parts = {path.name for path in (ROOT / "bnn").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not [name for name in parts - {"__main__.py"} if name not in text]


def test_the_reference_is_built_from_the_docstrings(tmp_path):
    reference = load("reference")
    names = reference.modules()
    assert {"bnn", "bnn.training.step", "hwsim.devices.mtj"} <= set(names)
    reference.write(tmp_path, ["bnn.training.step", "bnn.errors"])
    page = (tmp_path / "bnn" / "training" / "step.html").read_text(encoding="utf-8")
    assert "It is the only one of the package" in page


def test_public_things_have_docstrings():
    documented, missing = 0, []
    for name in load("reference").modules():
        module = importlib.import_module(name)
        for public, thing in vars(module).items():
            if public.startswith("_") or getattr(thing, "__module__", None) != name or not callable(thing):
                continue
            members = [member for key, member in vars(thing).items() if not key.startswith("_") and callable(member)]
            for part in [thing, *(members if inspect.isclass(thing) else [])]:
                if inspect.getdoc(part):
                    documented += 1
                else:
                    missing.append(f"{name}.{public}: {part}")
    assert documented > 500
    assert len(missing) <= 0.05 * documented, missing


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_example_trains_and_prints_what_stands_below_it(capsys):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ((example, printed),) = re.findall(r"```python\n(.*?)```.*?```\n(.*?)```", readme, flags=re.DOTALL)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(example, names)
    gradients = [parameter.grad for parameter in names["model"].parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert capsys.readouterr().out == printed


def saved_bits(layer: nn.Module, x: torch.Tensor) -> float:
    """Bits that the layer saves for each element of its input, parameters and what is made of them aside."""

    def of_batch(part: torch.Tensor) -> int:
        with saved_bytes() as found:
            layer(part.detach().clone().requires_grad_())
        return 8 * sum(found.values())

    # What is saved of the batch grows with it, what is saved of the weight does not.
    half = len(x) // 2
    return (of_batch(x) - of_batch(x[:half])) / x[half:].numel()


class Unit(nn.Module):
    """A block that recomputes, with its own input as the shortcut if `residual`."""

    def __init__(self, quantizer: nn.Module, activation: nn.Module | None, *, residual: bool) -> None:
        super().__init__()
        rounding = Int8Gradient(generator=torch.Generator().manual_seed(0))
        conv = BinaryConv2d(8, 8, 3, padding=1, input_quantizer=quantizer, grad_quantizer=rounding)
        self.block = BinaryBlock(conv, nn.BatchNorm2d(8), activation=activation, recompute=True)
        self.residual = residual
        assert self.block.is_fused

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x, x if self.residual else None)


def saved_by_layers() -> Iterator[tuple[str, float]]:
    def conv(**options: object) -> BinaryConv2d:
        return BinaryConv2d(8, 8, 3, padding=1, **options)

    x = randn(8, 8, 16, 16).contiguous(memory_format=torch.channels_last)
    bits = BitTensor.from_dense(x)
    of_bits = {"`BinaryConv2d`, input of bits": conv(), "`MaxPool2d(2)`, input of bits": MaxPool2d(2)}
    layers = {
        "`nn.Conv2d`": nn.Conv2d(8, 8, 3, padding=1, bias=False),
        "`BinaryConv2d` behind `Sign`, the default": conv(),
        "`BinaryConv2d` behind `ApproxSign`": conv(input_quantizer=ApproxSign()),
        "`BinaryConv2d` behind `Ternary`": conv(input_quantizer=Ternary()),
        "`BinaryConv2d` with `learned_scale`": conv(learned_scale=True),
        "`nn.BatchNorm2d`": nn.BatchNorm2d(8),
        "`L1BatchNorm`": L1BatchNorm(8),
        "`nn.Hardtanh`": nn.Hardtanh(),
        "`RPReLU`": RPReLU(8),
        "`BinaryNorm`": BinaryNorm(8),
        "`nn.MaxPool2d(2)`": nn.MaxPool2d(2),
        "`MaxPool2d(2)`": MaxPool2d(2),
        "`nn.AvgPool2d(2)`": nn.AvgPool2d(2),
        "`AvgPool2d(2)`": AvgPool2d(2),
        "`BinaryBlock` of `BinaryConv2d` and `nn.BatchNorm2d`": BinaryBlock(conv(), nn.BatchNorm2d(8)),
        "`BinaryBlock` that recomputes, behind `Sign`": Unit(Sign(), None, residual=False),
        "`BinaryBlock` that recomputes, behind `ApproxSign`": Unit(ApproxSign(), None, residual=False),
        "`BinaryBlock` that recomputes, behind `ApproxSign`, with `nn.Hardtanh` and its input as the shortcut": Unit(
            ApproxSign(), nn.Hardtanh(), residual=True
        ),
    }
    yield from ((name, saved_bits(layer, x)) for name, layer in layers.items())
    yield from ((name, saved_bits(layer, bits)) for name, layer in of_bits.items())
    one, two = (nn.Sequential(*(Unit(Sign(), Sign(), residual=False) for _ in range(n))) for n in (1, 2))
    yield "`BinaryBlock` that recomputes, with `Sign`, behind another", saved_bits(two, bits) - saved_bits(one, bits)


def test_readme_says_what_each_layer_saves():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, section = readme.partition("### What a layer saves")
    table = re.findall(r"^\| (`.*?) \| ([\d.]+) \|", section, flags=re.MULTILINE)
    assert {name: float(bits) for name, bits in table} == dict(saved_by_layers())


def commands() -> Iterator[tuple[str, list[str], list[str]]]:
    """The commands of all pages: the page, what is called, and the options that it is given."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = [re.sub(r"\\\n", " ", block) for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)]
        lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
        for program, command, rest in re.findall(
            r"\b(bnn|hwsim) (train|recipes|eval|predict|report|budget|compress|decompress|inspect|quantize|shrink"
            r"|diagnose|synthesize|switching|sweep) ([^;|\n]*)",
            "\n".join(lines),
        ):
            arguments = rest.split(" -- ")[0].split()
            called = [program, command]
            if command == "sweep" or (command == "train" and arguments[0][0] != "-" and arguments[0] != "mine.py"):
                called.append(arguments[0])
            elif command == "train":
                called += ["--resume", "RUN"]
            yield page.name, called, [word.partition("=")[0] for word in arguments if word.startswith("-")]


def test_commands_have_the_options_that_pages_give_them(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    helps: dict[tuple[str, ...], str] = {}
    for page, called, options in commands():
        if tuple(called) not in helps:
            program, *arguments = called
            with pytest.raises(SystemExit, match="0"):
                {"bnn": bnn.cli.main, "hwsim": hwsim.cli.main}[program]([*arguments, "--help"])
            helps[tuple(called)] = capsys.readouterr().out
        for option in options:
            assert re.search(rf"{re.escape(option)}\b", helps[tuple(called)]), f"{page}: {' '.join(called)} {option}"
    assert len(helps) > 10


def test_the_table_of_the_zoo_is_that_of_its_networks():
    page = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| `")]
    found = {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in rows}
    assert found == {
        name: [
            released.larq_name,
            f"{released.top_1:.2f} / {released.top_5:.2f}",
            f"{released.parameters:,}",
            f"{released.binary_weights:,}",
            f"{released.low_bit_macs / 1e6:,.1f}",
            f"{released.real_macs / 1e6:,.1f}",
        ]
        for name, released in RELEASED.items()
    }
