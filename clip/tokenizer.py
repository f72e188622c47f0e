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


def tokenize(texts: list[str]) -> Tensor:
    """Token ids of ``texts``: start token, text, end token, zeros. int64 [N, 77].

    Raises:
        TooLong: a text needs more than 77 tokens. CLIP's own tokenizer can cut such a text;
            for a class name that would silently change what is asked, so the text is named instead.
    """
    tokenizer = _tokenizer()
    tokens = torch.zeros(len(texts), CONTEXT_LENGTH, dtype=torch.long)
    for row, text in zip(tokens, texts, strict=True):
        ids = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
        if len(ids) > CONTEXT_LENGTH:
            raise TooLong(f"text needs {len(ids)} tokens, CLIP reads at most {CONTEXT_LENGTH}: {cut(text)!r}")
        row[: len(ids)] = torch.tensor(ids)
    return tokens


def cut(text: str) -> str:
    """The beginning of a text that would fill the screen, for an error message."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
