"""TVTSv2 (Zeng et al., 2023): a space-time image tower, trained with captions and transcripts that it puts in order.

A clip is one vector, which is compared with texts: class names, captions of a search, the transcripts of training.
"""

from collections.abc import Mapping

from modules.systems.clip import PlainCLIP


class TVTSv2(PlainCLIP):
    """CLIP whose image tower makes one vector of a clip, and no head."""

    heads: Mapping[str, str] = {"None": "None"}
    skips_head = True
