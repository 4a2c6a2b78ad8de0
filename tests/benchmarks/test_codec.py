import json
import sys
import zlib

import pytest
import torch
from torch import nn

from benchmarks import codec
from bnn.codec import save
from bnn.layers import BinaryLinear
from bnn.quantizers import Ternary
from bnn.weights import LatentStore


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    model = nn.Sequential(
        BinaryLinear(300, 200),
        BinaryLinear(200, 100, store=lambda shape: LatentStore(shape, quantizer=Ternary(threshold=0.14))),
        nn.Linear(100, 10),
    )
    generator = torch.Generator().manual_seed(0)
    for layer in (model[0], model[1]):
        layer.store.initialize(generator)
    path = tmp_path_factory.mktemp("codec") / "m.bnnz"
    save(model, path)
    return path


@pytest.fixture(scope="module")
def kinds(file):
    return codec.compare(file)


def test_tensors_are_counted_by_kind(kinds):
    assert {name: kind.elements for name, kind in kinds.items()} == {"binary": 60_000, "ternary": 20_000, "real": 1_010}
    assert kinds["real"].entropy_bits is None
    binary, ternary = codec.bits(kinds["binary"]), codec.bits(kinds["ternary"])
    assert 1 <= binary[".bnnz"] < 1.01
    assert 0.999 < binary["order 0"] <= 1
    # A deviation of 0.0707 leaves 4.8 % of the weights beyond 0.14: 0.27 + 0.05 bits.
    assert ternary["order 0"] == pytest.approx(0.32, abs=0.02)
    assert ternary[".bnnz"] < 1.03 * ternary["order 0"]
    assert all(binary[name] >= 1 and ternary[name] > ternary["order 0"] for name in ("zlib", "xz"))


def test_rivals_get_the_shorter_of_two_forms(file, kinds):
    entry = next(entry for entry in codec.read(file) if codec.kind_of(entry) == "ternary")
    packed, plain = codec.forms(entry)
    assert (len(packed), len(plain)) == (4_000, 20_000)
    expected = min(len(zlib.compress(packed, 9)), len(zlib.compress(plain, 9)))
    assert kinds["ternary"].rival_bytes["zlib"] == expected


def test_real_forms_hold_the_same_bytes(file):
    for entry in codec.read(file):
        if not entry.levels:
            plain, by_place = codec.forms(entry)
            assert sorted(plain) == sorted(by_place)
            assert plain == codec.decode(entry).numpy().tobytes()


def test_prints_a_row_a_kind_and_writes_json(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["codec", str(file), "--json", str(tmp_path / "out.json")])
    codec.main()
    printed = capsys.readouterr().out
    assert f"{file.stat().st_size:,} bytes" in printed
    assert [line.split()[0] for line in printed.splitlines()[3:]] == ["binary", "ternary", "real"]
    report = json.loads((tmp_path / "out.json").read_text())[str(file)]
    assert report["kinds"]["binary"]["elements"] == 60_000
    payload = sum(kind["elements"] * kind["bits"][".bnnz"] / 8 for kind in report["kinds"].values())
    assert report["header_bytes"] + payload == pytest.approx(report["file_bytes"])


def test_a_folder_that_is_no_run_ends_with_the_error_of_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["codec", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        codec.main()
    assert left.value.code == 1
    assert capsys.readouterr().err.startswith("bnn: ")
