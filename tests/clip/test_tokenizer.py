"""Tokens: equal to open_clip's, and no silent cut."""

import pickle

import open_clip
import pytest
import torch

from clip.tokenizer import tokenize


def test_tokens_equal_open_clip():
    texts = [
        "", "a photo of a dog.", "  Riding   a BIKE ", "caf\u00e9 na\u00efve \u2014 \u4f60\u597d",
        "don&amp;t &lt;b&gt;", "tying knot (not on a tie)", "1234567890 !?#", "word " * 75,
    ]  # fmt: skip
    tokens = tokenize(texts)
    assert tokens.dtype == torch.long
    assert torch.equal(tokens, open_clip.tokenize(texts))


def test_a_text_of_76_tokens_raises_and_is_named():
    with pytest.raises(ValueError, match=r"needs 78 tokens, CLIP reads at most 77: 'word word"):
        tokenize(["fine", "word " * 76])


def test_a_caption_is_cut_and_ends_with_the_end_token():
    texts = ["fine", "word " * 76, "a b c " * 40]
    assert torch.equal(tokenize(texts, truncate=True), open_clip.tokenize(texts))


def test_no_texts_give_an_empty_table():
    assert tokenize([]).shape == (0, 77)


def test_loader_workers_read_texts_without_the_weights(tiny_clip):
    reader = pickle.dumps(tiny_clip.text_reader())
    assert len(reader) < 1000
    texts = ["a cat", "a dog " * 100]
    assert torch.equal(pickle.loads(reader)(texts, truncate=True), tiny_clip.tokenize(texts, truncate=True))
