"""The findings about a network."""

from bnn.posttraining.diagnosis import diagnose
from tests.posttraining.networks import binary, data, real


def test_of_a_binary_network_there_are_all_findings():
    x, labels, _, _ = data()
    model = binary()
    found = {finding.title: finding for finding in diagnose(model, x[:96], labels[:96], never_flipped={"1": 0.95})}
    assert list(found) == [
        "Agreement of the examples' gradients",
        "Class means in the last layer",
        "Lognormal gradients",
        "Depth",
        "Signs that are as they were drawn",
        "Width of accumulators",
        "Entropy of the levels",
    ]
    assert [row.text for row in found["Depth"].rows] == ["3", "13"]
    assert "within the budget" in found["Depth"].advice
    assert "learning rate may be too low" in found["Signs that are as they were drawn"].advice
    assert "Accumulators of 8 bits" in found["Width of accumulators"].advice
    assert all(finding.limit and finding.advice for finding in found.values())
    assert all(row.value >= 0 for finding in found.values() for row in finding.rows)


def test_of_a_real_network_there_are_those_that_need_no_levels():
    x, labels, _, _ = data()
    titles = [finding.title for finding in diagnose(real(), x[:64], labels[:64])]
    assert titles == ["Agreement of the examples' gradients", "Class means in the last layer", "Lognormal gradients"]
