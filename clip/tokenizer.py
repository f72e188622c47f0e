"""Text to token ids, through open_clip's tokenizer (which brings vocabulary, ftfy and regex)."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

CONTEXT_LENGTH = 77
SHOWN = 80  # characters of a text in an error message


class TooLong(ValueError):
    """A text that CLIP would have to cut."""


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    # Imported late: open_clip takes seconds to import and only text needs it.
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=CONTEXT_LENGTH)


def tokenize(
    texts: list[str], truncate: bool = False, context_length: int = CONTEXT_LENGTH, tokenizer: Any = None
) -> Tensor:
    """Token ids of ``texts``: start token, text, end token, zeros. int64 [N, L].

    Args:
        truncate: cut a text after L - 1 tokens, and end it; of a caption the beginning says most.
        context_length: L.
        tokenizer: an open_clip ``SimpleTokenizer`` that prepares texts in its own way; None: CLIP's.

    Raises:
        TooLong: a text needs more than L tokens and is not to be cut: of a class name that would silently change what
            is asked.
    """
    tokenizer = tokenizer or _tokenizer()
    tokens = torch.zeros(len(texts), context_length, dtype=torch.long)
    for row, text in zip(tokens, texts, strict=True):
        ids = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
        if truncate and len(ids) > context_length:
            ids = [*ids[: context_length - 1], tokenizer.eot_token_id]
        check_length(text, len(ids), context_length)
        row[: len(ids)] = torch.tensor(ids)
    return tokens


def check_length(text: str, length: int, context_length: int) -> None:
    """See that a text of so many tokens fits.

    Raises:
        TooLong: it does not.
    """
    if length > context_length:
        raise TooLong(f"text needs {length} tokens, CLIP reads at most {context_length}: {cut(text)!r}")


def cut(text: str) -> str:
    """The beginning of a text that would fill the screen, for an error message."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
