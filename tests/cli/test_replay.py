"""Fine-tuning by the command line: samples of a run, new classes beside them, and what may learn in a budget."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bnn
from bnn.cli import main
from bnn.training.replay import load

SIZE = ["--image-size", "16", "--epochs", "1", "--batch-size", "4", "--preset", "edge-min"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Pictures of two classes in `old` and of another in `new`, four of each, and a run of the former."""
    place = tmp_path_factory.mktemp("pets")
    for label, name in enumerate(("old/bright", "old/dark", "new/dark", "new/grey")):
        (place / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((16, 16), 60 * label + 10 * number, np.uint8)
            Image.fromarray(pixels).save(place / name / f"{number}.png")
    assert main(["train", "images", "--data-dir", str(place / "old"), *SIZE, "--out", str(place / "run")]) == 0
    assert main(["replay", str(place / "run"), "--freeze", "1", "--fit", "700B"]) == 0
    return place


def tuned(place: Path, out: str, *more: str) -> int:
    words = ["--start", str(place / "run"), "--replay", str(place / "run" / "replay.safetensors")]
    return main(["train", "images", "--data-dir", str(place / "new"), *SIZE, *words, *more, "--out", str(place / out)])


def test_new_classes_are_learned_beside_samples_of_those_that_are_known(place, capsys):
    assert tuned(place, "tuned") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "replay: 5 samples of 2 classes in 650 bytes, 1,024 bits each; 3 of them in a step, beside 1 new ones" in said
    )
    assert bnn.load(place / "tuned" / "model.bnnz").classes == ("bright", "dark", "grey")
    kept = load(place / "tuned" / "replay.safetensors", generator=torch.Generator())
    assert kept.classes == ("bright", "dark", "grey")
    assert kept.labels.bincount().min() >= 1
    assert main(["eval", str(place / "tuned"), "--data-dir", str(place / "new")]) == 0
    assert main(["report", str(place / "tuned")]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--freeze", "1", "--fit", "200B"), "2 classes take at least 2 samples of 130 bytes: there is room for 1"),
        (("--freeze", "nine", "--fit", "1MiB"), "there is no layer 'nine' to freeze up to"),
        (("--freeze", "1", "--fit", "much"), "'much' is not a size"),
        (("--freeze", "1", "--fit", "1MiB", "--seed", "-1"), "--seed is in 0..2**63-1, got -1"),
    ],
)
def test_samples_that_cannot_be_kept_are_one_line(words, message, place, capsys):
    assert main(["replay", str(place / "run"), *words, "-o", str(place / "no")]) in (1, 2)
    assert_one_line(message, capsys)
    assert not (place / "no").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--freeze", "2"), "the samples to replay are of layer 1: leave out --freeze 2"),
        (("--batch-size", "1"), "a batch of 1 has no room for new examples and replayed ones"),
        (("--grey",), "has images of 1 channels, the samples to replay 3"),
        (("--model", "mlp"), "no layer of"),
    ],
)
def test_samples_that_do_not_fit_a_training_are_one_line(words, message, place, capsys):
    assert tuned(place, "no", *words) == 1
    assert_one_line(message, capsys)
    assert not (place / "no").exists()


def test_what_may_learn_in_so_much_memory(place, capsys):
    command = ["budget", "--start", str(place / "run"), "--batch", "4"]
    assert main([*command, "--fit", "7MiB", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tunings"]
    expected = [("0", 5, 1024), ("1", 4, 1024), ("2", 3, 512), ("5", 2, 64), ("6", 1, 64)]
    assert [(row["freeze"], row["layers"], row["bits"]) for row in rows] == expected
    for row in rows:
        assert row["samples"] == (7 * 2**20 - row["step_bytes"]) // (row["bits"] // 8 + 2)
    assert main([*command, "--fit", "2MiB"]) == 1
    assert_one_line("nothing may learn in 2.00 MiB: the layers behind 6 alone take", capsys)
    assert main([*command, "--input", "3,16,16"]) == 2
    assert_one_line("leave out --input", capsys)
    assert main(["budget"]) == 2
    assert_one_line("name a network of `bnn models`, or with --start a run", capsys)


def assert_one_line(message: str, capsys: pytest.CaptureFixture[str]) -> None:
    errors = capsys.readouterr().err
    assert re.fullmatch(r"bnn: [^\n]+\n", errors)
    assert message in errors
