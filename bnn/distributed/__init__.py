"""Several processes, the ranks of `torch.distributed`, that train one network."""

from bnn.distributed.exchange import Exchange, current_exchange, exchanged, exchanging

__all__ = ["Exchange", "current_exchange", "exchanged", "exchanging"]
