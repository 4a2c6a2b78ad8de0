"""A directory is exported whole or not at all, and what cannot be exported is said in one line."""

import platform
import subprocess

import pytest
import torch
from torch import nn

from bnn.codec import Model
from bnn.data import Preprocessing
from bnn.export import ExportError
from bnn.export.commands import export_c, export_c_training, write_directory
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear
from bnn.models import gxnor_cnn, mlp
from bnn.presets import prepare
from bnn.quantizers import Ternary
from tests.export.networks import STRICT, needs_gcc

SHAPE = (2, 8, 8)


def small(**options) -> Model:
    return Model(mlp(input_shape=SHAPE, hidden=(8,), classes=3), **options)


def files(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_files_and_what_they_take(tmp_path):
    line = export_c(small(), tmp_path / "c", name="digits", input_shape=SHAPE)
    assert files(tmp_path / "c") == ["digits.c", "digits.h"]
    assert "1,048 binary weights" in line
    assert "DIGITS_CLASSES 3" in (tmp_path / "c" / "digits.h").read_text()
    assert files(tmp_path) == ["c"]


def test_all_layers_that_cannot_be_exported_are_named(tmp_path):
    network = nn.Sequential(
        BinaryConv2d(2, 4, 3, input_quantizer=None, groups=2),
        nn.GroupNorm(2, 4),
        BinaryBlock(BinaryConv2d(4, 4, 3, input_quantizer=Ternary()), nn.BatchNorm2d(4)),
        nn.GELU(),
        nn.Flatten(),
        BinaryLinear(64, 3),
    )
    with pytest.raises(ExportError) as error:
        export_c(Model(network), tmp_path / "c", input_shape=SHAPE)
    assert str(error.value) == (
        "these layers cannot be exported: 0 (BinaryConv2d: it has 2 groups); 1 (GroupNorm);"
        " 2 (BinaryBlock: its input goes through Ternary, which is no sign); 3 (GELU)"
    )
    assert files(tmp_path) == []


def test_ternary_weights_are_refused(tmp_path):
    with pytest.raises(ExportError, match="its weight is not binary"):
        export_c(Model(gxnor_cnn()), tmp_path / "c", input_shape=(1, 28, 28))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        (small(), {}, "--input-shape 3,32,32"),
        (small(), {"input_shape": (3, 8, 8)}, "cannot be followed"),
        (small(), {"input_shape": SHAPE, "name": "two words"}, "'two words'"),
        (small(), {"input_shape": SHAPE, "name": "main", "example": True}, "'main' cannot begin"),
        (Model(Branching()), {"input_shape": (3,)}, "cannot be followed"),
        (Model(nn.Sequential(BinaryConv2d(2, 3, 3))), {"input_shape": SHAPE}, "row of float32 logits"),
    ],
)
def test_what_cannot_be_exported_is_one_line(model, options, reason, tmp_path):
    with pytest.raises(ExportError, match=reason) as error:
        export_c(model, tmp_path / "c", **options)
    assert "\n" not in str(error.value)
    assert files(tmp_path) == []


def test_products_in_bfloat16_become_those_of_float32_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="of bfloat16, those of an export of float32"):
        export_c(small(precision="bfloat16"), tmp_path / "c", input_shape=SHAPE)


def test_a_norm_with_nan_is_refused(tmp_path):
    model = small()
    with torch.no_grad():
        model.network[1].norm.bias[0] = torch.nan
    with pytest.raises(ExportError, match="sign of NaN"):
        export_c(model, tmp_path / "c", input_shape=SHAPE)


def test_a_directory_that_is_not_empty_stays_as_it_is(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ExportError, match="is not an empty directory"):
        export_c(small(), tmp_path, input_shape=SHAPE)
    with pytest.raises(ExportError, match="is not an empty directory"):
        export_c(small(), tmp_path / "notes", input_shape=SHAPE)
    assert files(tmp_path) == ["notes"]


def test_nothing_is_left_of_files_that_cannot_be_written(tmp_path):
    with pytest.raises(ExportError, match="cannot be written"):
        write_directory(tmp_path / "c", {"one": b"1", "no/such/folder": b"2"})
    assert files(tmp_path) == []


def bytes_of_ram(line: str) -> int:
    return int(line.split("RAM: ")[1].split(" bytes")[0].replace(",", ""))


def test_ram_that_is_too_small_is_told_by_how_much(tmp_path):
    takes = bytes_of_ram(export_c(small(), tmp_path / "c", input_shape=SHAPE))
    assert bytes_of_ram(export_c(small(), tmp_path / "same", input_shape=SHAPE, fit=takes)) == takes
    with pytest.raises(ExportError) as error:
        export_c(small(), tmp_path / "less", input_shape=SHAPE, fit=takes - 5)
    assert str(error.value) == (
        f"the network takes {takes:,} bytes of RAM beside the stack, 5 more than the {takes - 5:,} that --fit allows:"
        " take a smaller network"
    )
    assert files(tmp_path) == ["c", "same"]


def test_ram_of_what_learns_is_told_by_how_much(tmp_path):
    step = prepare("edge-min", lambda: mlp(input_shape=SHAPE, hidden=(8,), classes=3), input_shape=SHAPE)
    options = {"model": Model(step.model), "optimizer": step.optimizer, "batch_size": 4, "input_shape": SHAPE}
    takes = bytes_of_ram(export_c_training(directory=tmp_path / "c", **options))
    with pytest.raises(ExportError, match=rf"{takes:,} bytes of RAM .*, 1 more than .* or a --batch-size below 4"):
        export_c_training(directory=tmp_path / "less", fit=takes - 1, **options)
    export_c_training(directory=tmp_path / "smaller", fit=takes - 1, **{**options, "batch_size": 3})
    assert files(tmp_path) == ["c", "smaller"]


@needs_gcc
def test_a_compiler_that_cannot_count_ones_names_its_slower_path(tmp_path):
    export_c(small(), tmp_path / "c", input_shape=SHAPE)

    def said(*flags: str) -> str:
        compiler = ("gcc", *STRICT, *flags, "-c", str(tmp_path / "c" / "network.c"), "-o", str(tmp_path / "network.o"))
        return subprocess.run(compiler, check=True, capture_output=True, text=True).stderr

    assert said("-DWITHOUT_POPCOUNT") == ""
    if platform.machine() == "x86_64":
        assert said("-mpopcnt") == ""
        assert "slower path: this compiler has no instruction that counts ones" in said("-mno-popcnt")


def test_names_of_classes_cannot_end_their_strings(tmp_path):
    preprocessing = Preprocessing(SHAPE, (0.5, 0.5), (0.5, 0.5))
    model = small(preprocessing=preprocessing, classes=('"; system("x"); "', "été??/", "c\\"))
    export_c(model, tmp_path / "c")
    source = (tmp_path / "c" / "network.c").read_text()
    assert '"\\042\\073 system(\\042x\\042)\\073 \\042"' in source
    assert '"\\303\\251t\\303\\251\\077\\077\\057"' in source
    assert '"c\\134"' in source
