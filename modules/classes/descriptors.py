"""Classes that are sets of descriptors (OST, Chen et al., CVPR 2024): unit features [S, K, N, D], not yet averaged."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from clip.towers import Towers
from modules.classes.base import Classes, encode_distinct
from modules.classes.descriptor_files import SETS, Phrases, fingerprint, read_descriptors
from modules.classes.templates import CHUNK, text_features
from utils.text import shown

logger = logging.getLogger(__name__)

# Of OST; no full stop is added. What a class looks like is said without its name.
PROMPTS = {
    "static": "This is a video about {descriptor}",
    "steps": "A video of {name} usually includes {descriptor}",
}


class _Descriptors:
    """What fixed and live ones share.

    Args:
        phrases: the descriptors as their file has them, [S][K][N].
        texts: the sentences that the text tower reads, alike.
    """

    def __init__(self, phrases: Phrases, texts: Phrases):
        self.phrases = phrases
        self.fingerprint = fingerprint(texts)

    def __len__(self) -> int:
        return len(self.phrases[0])

    def parameters(self) -> Iterable[nn.Parameter]:
        """See ``Classes``."""
        return ()


class FixedDescriptors(_Descriptors):
    """Unit features [S, K, N, D] that nothing trains."""

    needs_text = False

    def __init__(self, phrases: Phrases, texts: Phrases, features: Tensor):
        super().__init__(phrases, texts)
        self.features = features

    def encode(self, towers: Towers, labels: Tensor | None = None) -> Tensor:
        """[S, K, N, D]; of ``labels``, int64 [n]: [S, n, N, D]. See ``Classes``."""
        features = self.features.to(towers.logit_scale.device)
        return features if labels is None else features[:, labels]


class LiveDescriptors(_Descriptors):
    """Descriptors that are encoded in every step, because the text tower trains: those of the batch's classes alone.

    Args:
        tokens: int64 [S, K, N, L].
    """

    needs_text = True

    def __init__(self, phrases: Phrases, texts: Phrases, tokens: Tensor):
        super().__init__(phrases, texts)
        self.tokens = tokens

    def encode(self, towers: Towers, labels: Tensor | None = None) -> Tensor:
        """[S, K, N, D]; of ``labels``, int64 [n]: [S, n, N, D]. See ``Classes``."""
        # Where only shapes are computed (engine.flops), the lengths of texts are values all the same.
        tokens = self.tokens.cpu() if towers.logit_scale.is_meta else self.tokens
        chunk = None if torch.is_grad_enabled() else CHUNK
        if labels is None:
            return text_features(towers, tokens, chunk)
        by_class = encode_distinct(
            lambda some: text_features(towers, tokens[:, some], chunk).transpose(0, 1), labels, len(self)
        )
        return by_class.transpose(0, 1)


def descriptor_classes(
    towers: Towers,
    class_names: list[str],
    paths: str | Path | Sequence[str | Path],
    is_live: bool = False,
    num: int = 0,
) -> Classes:
    """Classes from a file of descriptors, on the towers' device.

    Args:
        paths: see ``read_descriptors``.
        is_live: the text tower trains; else it encodes now, in eval mode, and is not needed any more.
        num: N; 0: as many as the file has.

    Raises:
        FileNotFoundError, ValueError: see ``read_descriptors`` and ``tokenize_descriptors``.
    """
    phrases = read_descriptors(paths, class_names, num)
    texts = filled(phrases, class_names)
    tokens = tokenize_descriptors(towers, texts, class_names).to(towers.logit_scale.device)
    if is_live:
        return LiveDescriptors(phrases, texts, tokens)
    logger.info("encoding %d sets x %d classes x %d descriptors", *tokens.shape[:3])
    was_training = towers.training
    with torch.no_grad():
        features = text_features(towers.eval(), tokens, CHUNK)
    towers.train(was_training)
    return FixedDescriptors(phrases, texts, features)


def filled(phrases: Phrases, class_names: list[str]) -> Phrases:
    """The sentences of ``PROMPTS`` around phrases [S][K][N], alike."""
    return [
        [
            [PROMPTS[part].format(name=name, descriptor=phrase) for phrase in of_class]
            for name, of_class in zip(class_names, of_classes, strict=True)
        ]
        for part, of_classes in zip(SETS, phrases, strict=True)
    ]


def tokenize_descriptors(towers: Towers, texts: Phrases, class_names: list[str]) -> Tensor:
    """Tokens of sentences [S][K][N]: int64 [S, K, N, L].

    Raises:
        ValueError: one does not fit into the text tower's context; class and descriptor are named.
    """
    return torch.stack(
        [
            torch.stack([_tokens(towers, part, *pair) for pair in zip(class_names, of_classes, strict=True)])
            for part, of_classes in zip(SETS, texts, strict=True)
        ]
    )


def _tokens(towers: Towers, part: str, name: str, texts: list[str]) -> Tensor:
    """[N, L]"""
    rows = []
    for place, text in enumerate(texts, start=1):
        try:
            rows.append(towers.tokenize([text]))
        except ValueError as error:
            raise ValueError(f"descriptor {place} in {part} of class {shown(name)}: {error}") from None
    return torch.cat(rows)
