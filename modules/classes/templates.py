"""Classes from their names: each name in several sentences, encoded by the text tower."""

import logging
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.tokenizer import TooLong, cut
from clip.towers import Towers
from modules.classes.base import Classes, FixedClasses, encode_distinct
from modules.classes.descriptor_files import fingerprint
from utils.text import shown

logger = logging.getLogger(__name__)


# Of MoTE's 28 templates: 4 nouns, each plain, with a person, and with 5 verbs.
NOUNS = ("photo", "video", "example", "demonstration")
VERBS = ("using", "doing", "during", "performing", "practicing")
ACTIONS = ("{}", "a person {}", *(f"a person {verb} {{}}" for verb in VERBS))
# A template set of your own is one more entry: any number of strings with one {} for the class name. A single template
# needs none: network.templates takes it as it is.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "single": ("a video of a person {}.",),  # Text4Vis, BIKE
    "mote28": tuple(f"a {noun} of {action}." for noun in NOUNS for action in ACTIONS),
    "person": ("a person {}",),  # TVTSv2
    "name": ("{}",),  # the bare class name, ViFi-CLIP
}
CHUNK = 512  # texts that are encoded at once, where no graph holds them all


class LiveTexts:
    """Classes whose texts are encoded in every step, because the text tower trains.

    Args:
        tokens: int64 [K, M, L], see ``tokenize_classes``.
        fingerprint: of the texts.
    """

    needs_text = True

    def __init__(self, tokens: Tensor, fingerprint: str = ""):
        self.tokens, self.fingerprint = tokens, fingerprint

    def __len__(self) -> int:
        return len(self.tokens)

    def parameters(self) -> Iterable[nn.Parameter]:
        """See ``Classes``."""
        return ()

    def encode(self, towers: Towers, labels: Tensor | None = None) -> Tensor:
        """See ``Classes``."""
        # Where only shapes are computed (engine.flops), the lengths of texts are values all the same.
        tokens = self.tokens.cpu() if towers.logit_scale.is_meta else self.tokens
        chunk = None if torch.is_grad_enabled() else CHUNK
        if labels is None:
            return class_features(towers, tokens, chunk)
        return encode_distinct(lambda some: class_features(towers, tokens[some], chunk), labels, len(tokens))


def templates_of(value: str) -> tuple[str, ...]:
    """The templates that ``network.templates`` names: a set of ``TEMPLATES``, or one template itself.

    Raises:
        ValueError: no such set, and no text with one {}.
    """
    if value in TEMPLATES:
        return TEMPLATES[value]
    if value.count("{}") != 1 or set("{}") & set(value.replace("{}", "")):
        known = ", ".join(TEMPLATES)
        raise ValueError(
            f"network.templates: expected one of {known}, or a template with one {{}} for the class name, found "
            f"{shown(value)}"
        )
    return (value,)


def template_classes(towers: Towers, class_names: list[str], templates: str, is_live: bool = False) -> Classes:
    """Classes from their names, on the towers' device.

    Args:
        class_names: or sentences, see ``modules.classes.sentences``.
        templates: a key of ``TEMPLATES``, or a template.
        is_live: the text tower trains; else it encodes now, in eval mode, and is not needed any more.

    Raises:
        ValueError: see ``tokenize_classes``.
    """
    tokens = tokenize_classes(towers, class_names, templates).to(towers.logit_scale.device)
    texts = fingerprint([[template.format(name) for template in templates_of(templates)] for name in class_names])
    if is_live:
        return LiveTexts(tokens, texts)
    logger.info("encoding %d classes x %d templates", *tokens.shape[:2])
    was_training = towers.training
    with torch.no_grad():
        features = class_features(towers.eval(), tokens, CHUNK)
    towers.train(was_training)
    return FixedClasses(features, texts)


def tokenize_classes(towers: Towers, class_names: list[str], templates: str) -> Tensor:
    """Tokens of every class in every template, see ``templates_of``: int64 [K, M, L].

    Raises:
        ValueError: a class name does not fit into the text tower's context; it is named.
    """
    return tokenize_filled(towers, class_names, templates_of(templates))


def tokenize_filled(towers: Towers, class_names: list[str], prompts: Sequence[str]) -> Tensor:
    """Tokens of every class in each of M sentences with a {}: int64 [K, M, L].

    Raises:
        ValueError: see ``tokenize_classes``.
    """
    tokens = []
    for label, name in enumerate(class_names):
        try:
            tokens.append(towers.tokenize([prompt.format(name) for prompt in prompts]))
        except TooLong as error:
            raise ValueError(f"class name too long (label {label}, {cut(name)!r}): {error}") from None
    return torch.stack(tokens)


def class_features(towers: Towers, tokens: Tensor, chunk: int | None = None) -> Tensor:
    """Unit class features [K, D] from tokens [K, M, L]: each text normalised, mean, normalised again.

    Args:
        chunk: texts that are encoded at once; None: all.
    """
    return F.normalize(text_features(towers, tokens, chunk).mean(dim=1), dim=-1)


def text_features(towers: Towers, tokens: Tensor, chunk: int | None = None) -> Tensor:
    """Unit features [..., D] of texts from tokens [..., L]; fp32.

    Args:
        chunk: texts that are encoded at once; None: all.
    """
    texts = tokens.flatten(0, -2)
    embeddings = torch.cat([towers.encode_text(some) for some in texts.split(chunk or len(texts))])
    return F.normalize(embeddings.float(), dim=-1).unflatten(0, tokens.shape[:-1])
