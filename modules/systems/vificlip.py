"""ViFi-CLIP (Rasheed et al., CVPR 2023): both towers of CLIP are fine-tuned on video, and nothing is added.

Frame features are averaged and compared with one sentence a class, which the text tower encodes anew in every step.
Clips are mixed and labels smoothed (``solver.mixup``, ``cutmix``, ``label_smoothing``).
"""

from typing import Any

from modules.systems.clip import PlainCLIP


class ViFiCLIP(PlainCLIP):
    """CLIP, the mean over frames, and texts that train; the embeddings of tokens stay CLIP's."""

    preset = "vifi"

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # The released program embeds the tokens of all classes once, before it trains, and its checkpoints have no
        # token embedding. Other text towers keep theirs where they like, and train it.
        if embedding := getattr(self.towers, "token_embedding", None):
            embedding.requires_grad_(False)
