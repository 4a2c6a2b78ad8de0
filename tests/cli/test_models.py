"""`bnn models`."""

import re


def test_models_lists_every_network(bnn):
    code, output, _ = bnn("models")
    assert code == 0
    for name in ("mlp", "cnv", "binarynet", "vgg_small", "resnet18", "resnet20", "resnete18", "birealnet18", "quicknet"):
        assert re.search(rf"^ *{name} ", output, re.MULTILINE)
