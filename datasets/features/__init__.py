"""Frame features on disk, in the place of videos, and vectors of videos."""

from datasets.features.cache import FeatureCache

__all__ = ["FeatureCache"]
