"""Texts that are compared with videos as they are, such as captions; class names are ``modules.classes``'s."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clip.tokenizer import TooLong
from clip.towers import Towers
from utils.distributed import rank, sum_over_processes, world_size

CHUNK = 512  # texts that are encoded at once


class EncodedTexts(NamedTuple):
    """N texts after the text tower."""

    embeddings: Tensor  # float32 [N, D] on the CPU, not normalised
    num_cut: int  # of the texts, how many were longer than the tower reads


@torch.inference_mode()
def encode_texts(towers: Towers, texts: Sequence[str]) -> EncodedTexts:
    """Encode texts on the towers' device, in fp32 and each distinct one once; the processes share them.

    A text that is longer than the tower's context is cut. Which texts are encoded together depends on nothing but
    their order, so that the embeddings do not depend on the number of processes.
    """
    distinct = list(dict.fromkeys(texts))
    device, was_training = towers.logit_scale.device, towers.training
    embeddings = torch.zeros(len(distinct), towers.spec.embed_dim, device=device)
    is_cut = torch.zeros(len(distinct), device=device)
    towers.eval()
    for start in range(rank() * CHUNK, len(distinct), world_size() * CHUNK):
        place = slice(start, start + CHUNK)
        tokens, is_cut[place] = _tokenize(towers, distinct[place], device)
        embeddings[place] = towers.encode_text(tokens).float()
    towers.train(was_training)
    rows = {text: row for row, text in enumerate(distinct)}
    places = torch.tensor([rows[text] for text in texts], dtype=torch.long)
    embeddings, is_cut = (sum_over_processes(table).cpu()[places] for table in (embeddings, is_cut))
    return EncodedTexts(embeddings, int(is_cut.sum()))


def _tokenize(towers: Towers, texts: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [N, L] of texts, and which of them were cut, float [N]."""
    is_cut = torch.zeros(len(texts), device=device)
    for place, text in enumerate(texts):
        try:
            towers.tokenize([text])
        except TooLong:
            is_cut[place] = 1.0
    return towers.tokenize(texts, truncate=True).to(device), is_cut
