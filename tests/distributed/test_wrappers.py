"""No wrapper of torch's lets ranks train accumulators apart without a word."""

import pytest

from tests.distributed.processes import results_of
from tests.distributed.wrapped import errors


@pytest.mark.slow
def test_accumulators_refuse_the_gradient_of_one_rank_of_several(tmp_path):
    for found in results_of(errors, ranks=2, folder=tmp_path):
        lines = {name: bytes(line.tolist()).decode() for name, line in found.items()}
        for preset in ("edge", "edge-min"):
            assert "one of 2 processes" in lines[f"{preset} DDP"]
            assert "torchrun" in lines[f"{preset} DDP"]
            assert "have become a" in lines[f"{preset} fully_shard"]
            assert "torchrun" in lines[f"{preset} fully_shard"]
        assert not any("\n" in line for line in lines.values())
        # What DDP does see, it exchanges; and a process of a group may train a network of its own.
        assert lines["standard DDP"] == lines["edge alone"] == ""
