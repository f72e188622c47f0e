"""Class names to class features: template sets, and their encoding by CLIP's text tower."""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.model import CLIP
from clip.tokenizer import cut, tokenize

logger = logging.getLogger(__name__)


def _mote28() -> tuple[str, ...]:
    """The 28 templates of MoTE: 4 nouns, each plain, with a person, and with 5 verbs."""
    verbs = ("using", "doing", "during", "performing", "practicing")
    actions = ("{}", "a person {}", *(f"a person {verb} {{}}" for verb in verbs))
    return tuple(
        f"a {noun} of {action}." for noun in ("photo", "video", "example", "demonstration") for action in actions
    )


# A template set of your own is one more entry: any number of strings with one {} for the class name.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "single": ("a video of a person {}.",),  # Text4Vis, BIKE
    "mote28": _mote28(),
    "name": ("{}",),  # the bare class name, ViFi-CLIP
}


def tokenize_classes(class_names: list[str], templates: str) -> Tensor:
    """Tokens of every class in every template of a set of ``TEMPLATES``: int64 [K, M, 77].

    Raises:
        ValueError: a class name does not fit into 77 tokens; it is named.
    """
    prompts = TEMPLATES[templates]
    tokens = []
    for label, name in enumerate(class_names):
        try:
            tokens.append(tokenize([prompt.format(name) for prompt in prompts]))
        except ValueError as error:
            raise ValueError(f"class name too long (label {label}, {cut(name)!r}): {error}") from None
    return torch.stack(tokens)


def check_text_tower(clip: CLIP, tokens: Tensor) -> None:
    """See that a text tower knows all tokens, which one of another vocabulary does not.

    Raises:
        ValueError: it does not, or is made for shorter texts.
    """
    longest, highest = int(tokens.argmax(dim=-1).max()) + 1, int(tokens.max())
    if highest >= clip.config.vocab_size or longest > clip.config.context_length:
        raise ValueError(
            f"network.arch: its text tower reads {clip.config.context_length} of {clip.config.vocab_size} tokens, the "
            f"class names need {longest} of {highest + 1}"
        )


def class_features_from_tokens(clip: CLIP, tokens: Tensor, chunk: int | None = None) -> Tensor:
    """Unit class features [K, D] from tokens [K, M, 77]: each text normalised, mean, normalised again.

    ``chunk`` bounds the number of texts that are encoded at once.
    """
    texts = tokens.flatten(0, 1)
    embeddings = torch.cat([clip.encode_text(part) for part in texts.split(chunk or len(texts))])
    embeddings = F.normalize(embeddings.float(), dim=-1).unflatten(0, tokens.shape[:2])
    return F.normalize(embeddings.mean(dim=1), dim=-1)


@torch.no_grad()
def encode_classes(clip: CLIP, class_names: list[str], templates: str, chunk: int = 512) -> Tensor:
    """Class features [K, D] of a frozen text tower in eval mode, in fp32 on its device."""
    logger.info("encoding %d classes x %d templates", len(class_names), len(TEMPLATES[templates]))
    tokens = tokenize_classes(class_names, templates)
    check_text_tower(clip, tokens)
    tokens = tokens.to(clip.token_embedding.weight.device)
    was_training = clip.training
    features = class_features_from_tokens(clip.eval(), tokens, chunk)
    clip.train(was_training)
    return features
