"""From a file to frames."""

from datasets.decode.decoders import DECODERS

__all__ = ["DECODERS"]
