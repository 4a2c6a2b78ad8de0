"""Several processes, the ranks of `torch.distributed`, that train one network."""

from bnn.distributed.exact import Exact, shares_slices
from bnn.distributed.exchange import Exchange, Mode, Part, current_exchange, exchange, exchanging
from bnn.distributed.modes import MODES, exchange_of
from bnn.distributed.ranks import Ranks, join, leave
from bnn.distributed.votes import Count, Vote

__all__ = [
    "MODES",
    "Count",
    "Exact",
    "Exchange",
    "Mode",
    "Part",
    "Ranks",
    "Vote",
    "current_exchange",
    "exchange",
    "exchange_of",
    "exchanging",
    "join",
    "leave",
    "shares_slices",
]
