import pytest

from bnn.cli.budget.configurations import TrainingConfiguration
from bnn.cli.budget.measure import measure
from bnn.cli.budget.networks import find_network
from bnn.errors import RunError


@pytest.mark.slow
def test_a_step_that_fails_is_one_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nfrom torch import nn\n\n\nclass Fails(nn.Module):\n    def forward(self, x):\n"
        "        raise RuntimeError('no luck\\nat all')\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Linear(4, 2), Fails())\n"
    )
    with pytest.raises(RunError) as caught:
        measure(find_network(f"{path}:build", (4,)), TrainingConfiguration("standard", "adam", 8))
    assert str(caught.value) == (
        "the step of standard could not be measured: the model or loss fails on a batch of [8, 4]: no luck"
    )
