"""The exchanges by their names."""

from collections.abc import Callable

from bnn.distributed.exact import Exact
from bnn.distributed.exchange import Exchange, Mode
from bnn.distributed.ranks import Ranks
from bnn.distributed.votes import Count, Vote

MODES: dict[Mode, Callable[[Ranks], Exchange]] = {"exact": Exact, "count": Count, "vote": Vote}
"""What makes the exchange of each name."""


def exchange_of(mode: Mode, ranks: Ranks) -> Exchange:
    """The exchange of a name."""
    return MODES[mode](ranks)
