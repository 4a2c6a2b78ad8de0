"""Nodal analysis: Kirchhoff's law for a net of conductances, with some potentials given."""

from collections.abc import Mapping, Sequence

import torch

Net = Sequence[tuple[str, str, float]]


def potentials(net: Net, fixed: Mapping[str, float]) -> dict[str, float]:
    """The potentials of all nodes in V.

    Args:
        net: conductances in S between two nodes.
        fixed: potentials that sources hold.
    """
    free = sorted({node for one, other, _ in net for node in (one, other)} - fixed.keys())
    index = {node: k for k, node in enumerate(free)}
    matrix = torch.zeros(len(free), len(free), dtype=torch.float64)
    currents = torch.zeros(len(free), dtype=torch.float64)
    for one, other, conductance_S in net:
        for here, there in ((one, other), (other, one)):
            if here in index:
                matrix[index[here], index[here]] += conductance_S
                if there in index:
                    matrix[index[here], index[there]] -= conductance_S
                else:
                    currents[index[here]] += conductance_S * fixed[there]
    return {**fixed, **dict(zip(free, torch.linalg.solve(matrix, currents).tolist(), strict=True))}


def current_into(node: str, net: Net, voltages: Mapping[str, float]) -> float:
    """The current that a net delivers to a node, in A."""
    total = 0.0
    for one, other, conductance_S in net:
        if node in (one, other):
            there = other if node == one else one
            total += conductance_S * (voltages[there] - voltages[node])
    return total
