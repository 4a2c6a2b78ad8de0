import errno
import json
import math
import os

import pytest

from bnn.errors import RunError
from bnn.training import directory
from bnn.training.directory import append_metrics, create, drop_metrics_after, read_json, read_metrics, write_json


def test_json_round_trip_leaves_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1, "text": "τ"})
    write_json(tmp_path / "a.json", {"x": 2})
    assert read_json(tmp_path / "a.json") == {"x": 2}
    assert os.listdir(tmp_path) == ["a.json"]


def test_number_that_is_not_finite_becomes_null(tmp_path):
    write_json(tmp_path / "a.json", {"x": math.nan, "y": -math.inf, "z": 1.5})
    append_metrics(tmp_path, {"epoch": 0, "loss": math.inf})
    assert read_json(tmp_path / "a.json") == {"x": None, "y": None, "z": 1.5}
    assert read_metrics(tmp_path) == [{"epoch": 0, "loss": None}]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_to_write_keeps_the_old_file_whole(step, tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"x": 1})
    append_metrics(tmp_path, {"epoch": 0})
    metrics = (tmp_path / "metrics.jsonl").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(RunError, match=r"a.json cannot be written: No space left on device; earlier results"):
        write_json(tmp_path / "a.json", {"x": 2})
    with pytest.raises(RunError, match=r"metrics.jsonl cannot be written: No space left"):
        drop_metrics_after(tmp_path, epoch=0)
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics
    assert sorted(os.listdir(tmp_path)) == ["a.json", "metrics.jsonl"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null"])
def test_damaged_json_is_one_line_with_its_path(content, tmp_path):
    (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(RunError, match=rf"^{tmp_path}/summary.json (is damaged|cannot be read): [^\n]+$"):
        read_json(tmp_path / "summary.json")


def test_missing_json_says_that_this_is_no_run(tmp_path):
    with pytest.raises(RunError, match=rf"config.json is missing: {tmp_path} is not the directory of a run"):
        read_json(tmp_path / "config.json")


def test_metrics_whose_last_line_was_cut_short_are_read_without_it(tmp_path):
    for epoch in range(3):
        append_metrics(tmp_path, {"epoch": epoch, "loss": 0.5})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert [record["epoch"] for record in read_metrics(tmp_path)] == [0, 1]
    drop_metrics_after(tmp_path, epoch=2)
    append_metrics(tmp_path, {"epoch": 2})
    assert [record["epoch"] for record in read_metrics(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"epoch": "x"}', "\x00", "null"])
def test_damaged_line_of_metrics_is_named(line, tmp_path):
    append_metrics(tmp_path, {"epoch": 0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n" + json.dumps({"epoch": 1}) + "\n")
    with pytest.raises(RunError, match=r"metrics.jsonl, line 2, is damaged \([^\n]+\): mend or delete it$"):
        drop_metrics_after(tmp_path, epoch=1)


def test_metrics_are_dropped_from_an_epoch_on(tmp_path):
    for epoch in range(4):
        append_metrics(tmp_path, {"epoch": epoch})
    drop_metrics_after(tmp_path, epoch=2)
    assert [record["epoch"] for record in read_metrics(tmp_path)] == [0, 1]


def test_missing_metrics_are_an_error_to_read_but_not_to_drop(tmp_path):
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be read"):
        read_metrics(tmp_path)
    with pytest.warns(RuntimeWarning, match=r"metrics.jsonl lacks 2 of the 2 epochs done \(1, 2\)"):
        drop_metrics_after(tmp_path, epoch=2)
    assert read_metrics(tmp_path) == []


def test_metrics_that_lack_an_epoch_are_told(tmp_path):
    for epoch in (0, 2, 3):
        append_metrics(tmp_path, {"epoch": epoch})
    with pytest.warns(RuntimeWarning, match=r"lacks 1 of the 3 epochs done \(2\); their figures are lost$"):
        drop_metrics_after(tmp_path, epoch=3)
    assert [record["epoch"] for record in read_metrics(tmp_path)] == [0, 2]


def test_metrics_are_forced_to_disk_with_their_name(tmp_path, monkeypatch):
    forced = []
    monkeypatch.setattr(directory.os, "fsync", lambda file: forced.append(os.readlink(f"/proc/self/fd/{file}")))
    append_metrics(tmp_path, {"epoch": 0})
    assert forced == [str(tmp_path / "metrics.jsonl"), str(tmp_path)]


def test_a_start_that_was_killed_before_its_configuration_leaves_an_empty_directory(tmp_path):
    for name in ("lock", "lock.json", ".bnn-0123456789abcdef.new"):
        (tmp_path / name).touch()
    create(tmp_path)
    (tmp_path / "config.json").touch()
    with pytest.raises(RunError, match="is not empty"):
        create(tmp_path)
