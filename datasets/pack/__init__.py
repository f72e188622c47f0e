"""Videos packed for fast reading: python -m datasets.pack"""

from datasets.pack.shards import ShardPack

__all__ = ["ShardPack"]
