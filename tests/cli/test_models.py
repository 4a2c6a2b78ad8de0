"""`bnn models`."""

import re

from bnn.models.zoo import RELEASED


def test_models_lists_every_network(bnn, monkeypatch):
    # One of the zoo for all, which take seconds.
    monkeypatch.setattr("bnn.models.RELEASED", {"quicknet": RELEASED["quicknet"]})
    code, output, _ = bnn("models")
    assert code == 0
    for name in (
        "mlp",
        "cnv",
        "binarynet",
        "vgg_small",
        "resnet18",
        "resnet20",
        "resnete18",
        "birealnet18",
        "quicknet",
    ):
        assert re.search(rf"^ *{name} ", output, re.MULTILINE)
