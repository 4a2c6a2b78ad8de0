"""Taylor's importance beside leaving each channel out."""

from statistics import fmean

import pytest

from bnn.posttraining.channels import channels_of
from bnn.posttraining.importance import importance_across, left_out, taylor_importance
from bnn.posttraining.series import graph_of
from tests.posttraining.networks import binary, data


def test_of_a_binary_network_it_ranks_channels_as_leaving_them_out_does():
    """Within a layer as it is, and across the network with what eight channels of each layer cost."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is an optional dependency")
    x, labels = (part[:600] for part in data()[:2])
    graph = graph_of(binary().network, (1, 8, 8)).eval()
    found = channels_of(graph, (1, 8, 8))
    importance = taylor_importance(graph, found, x, labels)
    change = left_out(graph, found, x, labels)
    across = importance_across(graph, found, x, labels)
    assert stats.spearmanr([across[k] for k in change], list(change.values())).statistic >= 0.85
    ranks = []
    for layer in ("1.product", "2.product"):
        own = [label for label, ((name, _),) in found.removable().items() if name == layer]
        assert len(own) == 32
        ranks.append(stats.spearmanr([importance[k] for k in own], [change[k] for k in own]).statistic)
    assert fmean(ranks) >= 0.85
