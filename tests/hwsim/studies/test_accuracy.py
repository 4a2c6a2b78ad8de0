"""Sweeps of trainings: each run once, failures and breaks lose nothing, and mistakes are found before any training."""

import json
from pathlib import Path

import pytest

from bnn.errors import RecipeError, RunError, UsageError
from hwsim.studies import accuracy

RECIPE = """
def recipe(*, spread: float = 0.0, scheme: str = "linear", epochs: int = 3, seed: int = 0):
    raise AssertionError("a sweep builds no run itself")
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "tiny.py"
    path.write_text(RECIPE)
    return path


class Training:
    """Stands for `bnn train`: writes the files of a run, but for those that are to fail."""

    def __init__(self, failing: tuple[str, ...] = ()) -> None:
        self.failing = failing
        self.calls: list[list[str]] = []

    def __call__(self, arguments) -> int:
        self.calls.append(list(arguments))
        if arguments[0] == "--resume":
            folder = Path(arguments[1])
            spread, seed = folder.name.split("-seed-")
        else:
            folder = Path(arguments[arguments.index("--out") + 1])
            assert not folder.exists() or not any(folder.iterdir()), "`bnn train` begins in an empty folder"
            spread, seed = (
                next(w.partition("=")[2] for w in arguments if w.startswith(o)) for o in ("--spread", "--seed")
            )
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"arguments": {"spread": float(spread), "seed": int(seed)}}))
        if folder.name in self.failing:
            (folder / "checkpoints" / "step-00000000.json").write_text("{}")
            return 1
        summary = {"test_accuracy": 0.9 - float(spread), "epochs": 3, "junctions": {"pulses": 5, "other": 1}}
        (folder / "summary.json").write_text(json.dumps(summary))
        return 0


def test_trains_every_value_with_every_seed_once(recipe, tmp_path):
    training, out = Training(), tmp_path / "out"
    options = {"seeds": [1, 0], "recipe_arguments": ["--epochs", "3"], "out": out, "train": training}
    assert accuracy.sweep(recipe, {"spread": ["0.1", "0"]}, **options) == []
    table = accuracy.results(out)
    assert len(training.calls) == 4
    assert training.calls[0] == [
        str(recipe),
        "--spread=0.1",
        "--seed=1",
        "--epochs",
        "3",
        "--out",
        str(out / "0.1-seed-1"),
    ]
    assert table["spread"] == [0.0, 0.0, 0.1, 0.1]
    assert table["seed"] == [0, 1, 0, 1]
    assert table["test_accuracy"] == pytest.approx([0.9, 0.9, 0.8, 0.8])
    assert table["validation_accuracy"] == [None] * 4
    assert table["pulses"] == [5] * 4
    lines = (out / "accuracy.csv").read_text().splitlines()
    assert lines[0].startswith("spread,seed,test_accuracy,validation_accuracy,epochs,pulses,")
    assert lines[1].startswith("0,0,0.9,,3,5,")
    # The same again trains nothing, and one more value only that.
    assert accuracy.sweep(recipe, {"--spread": ["0.1", "0"]}, **options) == []
    assert accuracy.results(out) == table
    assert len(training.calls) == 4
    assert accuracy.sweep(recipe, {"spread": ["0.2"]}, **options) == []
    assert accuracy.results(out)["spread"] == [0.0, 0.0, 0.1, 0.1, 0.2, 0.2]
    assert len(training.calls) == 6


def test_a_value_that_fails_loses_no_other_and_goes_on_later(recipe, tmp_path):
    training, out = Training(failing=("0.1-seed-0",)), tmp_path / "out"
    values = ["0", "0.1", "0.2"]
    assert accuracy.sweep(recipe, {"spread": values}, out=out, train=training) == ["0.1-seed-0 (exit status 1)"]
    assert accuracy.results(out)["spread"] == [0.0, 0.2]
    assert len((out / "accuracy.csv").read_text().splitlines()) == 3
    again = Training()
    assert accuracy.sweep(recipe, {"spread": values}, out=out, train=again) == []
    assert again.calls == [["--resume", str(out / "0.1-seed-0"), "--recipe", str(recipe)]]
    assert accuracy.results(out)["spread"] == [0.0, 0.1, 0.2]


def test_what_never_came_to_a_checkpoint_begins_anew(recipe, tmp_path):
    out = tmp_path / "out"
    (out / "0.0-seed-0").mkdir(parents=True)
    (out / "0.0-seed-0" / "config.json").write_text("{")
    training = Training()
    assert accuracy.sweep(recipe, {"spread": ["0"]}, out=out, train=training) == []
    assert accuracy.results(out)["test_accuracy"] == [0.9]
    assert training.calls[0][0] == str(recipe)


def test_a_break_keeps_what_was_finished(recipe, tmp_path):
    training, out = Training(), tmp_path / "out"

    def broken(arguments) -> int:
        if "--spread=0.1" in arguments:
            raise KeyboardInterrupt
        return training(arguments)

    with pytest.raises(KeyboardInterrupt):
        accuracy.sweep(recipe, {"spread": ["0", "0.1"]}, out=out, train=broken)
    assert len((out / "accuracy.csv").read_text().splitlines()) == 2


def test_a_sweep_of_which_nothing_came_leaves_the_folder_to_another(recipe, tmp_path):
    out = tmp_path / "out"
    failed = accuracy.sweep(recipe, {"spread": ["0", "1"]}, out=out, train=lambda arguments: 1)
    assert failed == ["0.0-seed-0 (exit status 1)", "1.0-seed-0 (exit status 1)"]
    assert not list(out.iterdir())
    assert (
        accuracy.sweep(recipe, {"spread": ["0"]}, out=out, recipe_arguments=["--epochs", "5"], train=Training()) == []
    )


def test_a_folder_has_one_sweep(recipe, tmp_path):
    out = tmp_path / "out"
    accuracy.sweep(recipe, {"spread": ["0"]}, out=out, recipe_arguments=["--epochs", "3"], train=Training())
    training = Training()
    with pytest.raises(RunError, match=r"has a sweep of .*tiny.py over spread with the options --epochs 3: name anoth"):
        accuracy.sweep(recipe, {"spread": ["0"]}, out=out, recipe_arguments=["--epochs", "5"], train=training)
    assert not training.calls


@pytest.mark.parametrize(
    ("over", "values", "recipe_arguments", "message"),
    [
        ("sprad", ["0"], [], "nrecognized arguments: --sprad=0"),
        ("spread", ["0", "wide"], [], "spread"),
        ("spread", ["0"], ["--spread", "1"], "--spread is swept: leave it away after `--`"),
        ("spread", ["0"], ["--seed=1"], "--seed is swept"),
        ("spread", ["0"], ["--out", "x"], "nrecognized arguments: --out x"),
        ("spread", ["0"], ["--epoch", "3"], "nrecognized arguments: --epoch 3"),
        ("seed", ["0"], [], "--seed is swept"),
        ("device", ["cpu"], [], "an option of the recipe, and tiny.py has no --device"),
    ],
)
def test_mistakes_are_found_before_any_training(recipe, tmp_path, over, values, recipe_arguments, message):
    training = Training()
    with pytest.raises(UsageError, match=message):
        accuracy.sweep(recipe, {over: values}, recipe_arguments=recipe_arguments, out=tmp_path / "out", train=training)
    assert not training.calls
    assert not (tmp_path / "out").exists()


def test_what_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match="is not a recipe"):
        accuracy.sweep(tmp_path / "none.py", {"spread": ["0"]}, out=tmp_path / "out")


def test_every_combination_of_several_options(recipe, tmp_path):
    """And the best of them by the mean validation accuracy over the seeds, whatever the test says."""
    out, validation = tmp_path / "out", {"0.0-a": 0.7, "0.0-b": 0.9, "0.1-a": 0.8, "0.1-b": 0.85}

    def train(arguments) -> int:
        folder = Path(arguments[arguments.index("--out") + 1])
        spread, scheme, seed = (
            next(w.partition("=")[2] for w in arguments if w.startswith(o)) for o in ("--spread", "--scheme", "--seed")
        )
        folder.mkdir(parents=True)
        values = {"spread": float(spread), "scheme": scheme, "seed": int(seed)}
        (folder / "config.json").write_text(json.dumps({"arguments": values}))
        correct = validation[f"{float(spread)}-{scheme}"] - 0.06 * int(seed) * (scheme == "b") * (float(spread) == 0)
        (folder / "summary.json").write_text(
            json.dumps({"test_accuracy": 1 - correct, "validation_accuracy": correct, "epochs": 3})
        )
        return 0

    over = {"spread": ["0", "0.1"], "scheme": ["a", "b"]}
    assert accuracy.sweep(recipe, over, seeds=[0, 1, 2], out=out, train=train) == []
    table = accuracy.results(out)
    assert accuracy.swept(table) == ["spread", "scheme"]
    assert len(table["seed"]) == 12
    assert (table["spread"][:4], table["scheme"][:4]) == ([0.0] * 4, ["a", "a", "a", "b"])
    assert accuracy.best(table) == {"spread": 0.1, "scheme": "b", "validation_accuracy": pytest.approx(0.85)}
    assert (out / "0.1-b-seed-2").is_dir()
    with pytest.raises(RunError, match=r"tiny.py over spread, scheme with"):
        accuracy.sweep(recipe, {"spread": ["0"]}, out=out, train=train)


def test_there_is_no_best_without_validation():
    assert accuracy.best({"spread": [0.0], "seed": [0], "validation_accuracy": [None]}) is None


def test_texts_come_after_numbers():
    assert accuracy.is_number(0)
    assert not any(map(accuracy.is_number, (True, None, "0")))
