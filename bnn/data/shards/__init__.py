"""Large sets of pictures as shards: files of JPEG bytes, made in one pass, decoded where a batch needs them."""

from bnn.data.shards.dataset import ShardImages, sharded
from bnn.data.shards.files import Shards, read_shards
from bnn.data.shards.writing import write_shards

__all__ = ["ShardImages", "Shards", "read_shards", "sharded", "write_shards"]
