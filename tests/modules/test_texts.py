"""Texts to vectors: each distinct one once, cut where they are too long."""

import torch

from modules.texts import CHUNK, encode_texts


def test_texts_are_encoded_once_each_and_in_their_order(tiny_clip, monkeypatch):
    seen = []
    encode = tiny_clip.encode_text
    monkeypatch.setattr(tiny_clip, "encode_text", lambda tokens: seen.append(len(tokens)) or encode(tokens))
    texts = ["a cat", "a dog", "a cat", "word " * 100, "word " * 100]
    found = encode_texts(tiny_clip.train(), texts)
    assert tiny_clip.training
    assert seen == [3]
    assert found.num_cut == 2
    with torch.no_grad():
        expected = encode(tiny_clip.eval().tokenize(texts, truncate=True))
    assert torch.allclose(found.embeddings, expected, atol=1e-6)


def test_many_texts_are_encoded_in_chunks(tiny_clip):
    texts = [f"number {number}" for number in range(CHUNK + 3)]
    found = encode_texts(tiny_clip, texts)
    assert found.embeddings.shape == (CHUNK + 3, 64)
    assert torch.allclose(found.embeddings[-1:], encode_texts(tiny_clip, texts[-1:]).embeddings, atol=1e-6)
    assert found.num_cut == 0
