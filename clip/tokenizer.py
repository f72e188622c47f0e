"""Text to token ids, through open_clip's tokenizer (which brings vocabulary, ftfy and regex)."""

from functools import lru_cache

import torch
from torch import Tensor

CONTEXT_LENGTH = 77
SHOWN = 80  # characters of a text in an error message


class TooLong(ValueError):
    """A text that CLIP would have to cut."""


@lru_cache(maxsize=1)
def _tokenizer():
    # Imported late: open_clip takes seconds to import and only text needs it.
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=CONTEXT_LENGTH)


def tokenize(texts: list[str], truncate: bool = False) -> Tensor:
    """Token ids of ``texts``: start token, text, end token, zeros. int64 [N, 77].

    Args:
        truncate: cut a text after 76 tokens, and end it; of a caption the beginning says most.

    Raises:
        TooLong: a text needs more than 77 tokens and is not to be cut: of a class name that would silently change what
            is asked.
    """
    tokenizer = _tokenizer()
    tokens = torch.zeros(len(texts), CONTEXT_LENGTH, dtype=torch.long)
    for row, text in zip(tokens, texts, strict=True):
        ids = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
        if truncate and len(ids) > CONTEXT_LENGTH:
            ids = [*ids[: CONTEXT_LENGTH - 1], tokenizer.eot_token_id]
        if len(ids) > CONTEXT_LENGTH:
            raise TooLong(f"text needs {len(ids)} tokens, CLIP reads at most {CONTEXT_LENGTH}: {cut(text)!r}")
        row[: len(ids)] = torch.tensor(ids)
    return tokens


def cut(text: str) -> str:
    """The beginning of a text that would fill the screen, for an error message."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
