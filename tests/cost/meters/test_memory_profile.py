"""The memory of a process over time: sampled, thinned, kept over interruptions, drawn, refused where it is damaged."""

import numpy as np
import pytest
import torch

import bnn.cost.meters.memory_profile
from bnn.cli import main
from bnn.cost.memory.resident import peak_rss_bytes
from bnn.cost.meters.memory_profile import MEMORY_PROFILE, MemoryProfile, read_memory_profile
from bnn.errors import Interrupted, RunError
from bnn.training import Callback, Trainer
from tests.training.tiny_runs import SignalAt, sgd_run

MIB = 2**20


class HoldsMemory(Callback):
    """Takes 64 MiB for a while in the second epoch."""

    def on_epoch_begin(self, trainer):
        if trainer.epoch == 1:
            block = torch.ones(64 * MIB // 4)
            profile = next(callback for callback in trainer.callbacks if hasattr(callback, "_take"))
            profile._take(trainer.wall_s)
            assert block[-1] == 1


def test_what_is_held_for_a_while_is_seen_at_its_time(tmp_path):
    Trainer(sgd_run(), tmp_path / "run", callbacks=[MemoryProfile(), HoldsMemory()]).fit()
    samples = np.array(read_memory_profile(tmp_path / "run"))
    wall_s, rss_mib = samples.T
    assert (np.diff(wall_s) >= 0).all()
    assert wall_s[0] < 0.5
    assert 50 < rss_mib.max() - rss_mib[0] < 80
    assert rss_mib.max() <= peak_rss_bytes() / MIB + 2  # the system counts in steps
    assert 0 < rss_mib.argmax() < len(rss_mib) - 1


def test_few_samples_are_kept_and_no_peak_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(bnn.cost.meters.memory_profile, "_MOST_SAMPLES", 8)
    levels = iter([1, 1, 9, *[1] * 30])
    profile = MemoryProfile()
    monkeypatch.setattr(bnn.cost.meters.memory_profile, "rss_bytes", lambda: next(levels) * MIB)
    for second in range(33):
        profile._take(float(second))
    kept = profile._samples
    assert len(kept) <= 8
    assert max(kept, key=lambda sample: sample[1]) == (2.0, 9.0)
    assert profile._interval_s > 0.1


def test_an_interrupted_run_goes_on_in_its_file(tmp_path):
    with pytest.raises(Interrupted):
        Trainer(sgd_run(), tmp_path / "run", callbacks=[MemoryProfile(), SignalAt(("step ends", 1, 2))]).fit()
    first = read_memory_profile(tmp_path / "run")
    assert first
    Trainer(sgd_run(), tmp_path / "run", callbacks=[MemoryProfile()]).resume()
    samples = read_memory_profile(tmp_path / "run")
    assert len(samples) > len(first) - 2
    assert [wall_s for wall_s, _ in samples] == sorted(wall_s for wall_s, _ in samples)


def test_the_command_keeps_it_and_the_report_draws_it(tmp_path, capsys):
    quick = ("--epochs=2", "--width=8", "--hidden-layers=1", "--batch-size=400", f"--out={tmp_path}/run")
    assert main(["train", "digits", *quick, "--profile-memory"]) == 0
    assert main(["report", f"{tmp_path}/run"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Memory over time" in page
    assert "seconds of training" in page
    (tmp_path / "run" / MEMORY_PROFILE).write_text("wall_s,rss_mib\n1\n")
    capsys.readouterr()
    assert main(["report", f"{tmp_path}/run"]) == 1
    assert "memory.csv is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "wall_s,rss_mib\n1,x\n", "wall_s,rss_mib\n1,2,3\n"])
def test_a_damaged_file_is_one_line(text, tmp_path):
    (tmp_path / MEMORY_PROFILE).write_text(text)
    with pytest.raises(RunError, match=r"is damaged .*delete it to go without its figure"):
        read_memory_profile(tmp_path)


def test_a_system_that_does_not_tell(monkeypatch):
    def fails() -> int:
        raise FileNotFoundError

    monkeypatch.setattr(bnn.cost.meters.memory_profile, "rss_bytes", fails)
    with pytest.raises(RunError, match="leave out --profile-memory"):
        MemoryProfile()
