"""Texts of SigLIP2 are cut by Gemma's tokenizer of transformers, as open_clip does it."""

import string
from importlib.util import find_spec
from pathlib import Path

import open_clip
import pytest
import torch

from clip.load import load_towers
from clip.tokenizer import TooLong
from tests.clip.members import shrink_trunks, write_member

PAD, EOS, BOS = 0, 1, 2
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")  # Gemma's, in its order
MERGES = (("c", "a"), ("ca", "t"), ("▁", "cat"))
needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None,
    reason="transformers is not installed (requirements-encoders.txt)",
)


@pytest.fixture(autouse=True)
def small_trunks(monkeypatch):
    shrink_trunks(monkeypatch)


@pytest.fixture
def member(tmp_path):
    """``network.arch`` of a SigLIP-like model, and open_clip's own."""
    return write_member("SigLIP2-B-16", tmp_path / "member")


def write_gemma(folder: Path) -> None:
    """A tokenizer of Gemma's class and layout, as SigLIP2 has it: letters, bytes and three merges; no begin token."""
    from transformers import GemmaTokenizer

    pieces = (f"<0x{byte:02X}>" for byte in range(256))
    words = [*SPECIAL, *pieces, *string.ascii_lowercase, "▁", *("".join(pair) for pair in MERGES)]
    vocab = {word: number for number, word in enumerate(words)}
    options = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right"}
    GemmaTokenizer(vocab=vocab, merges=list(MERGES), **options).save_pretrained(folder)


@needs_transformers
@torch.no_grad()
def test_tokens_are_open_clip_s_own_ended_and_padded(member, tmp_path, relative_error):
    (arch, reference), folder = member, tmp_path / "member"
    write_gemma(folder)
    towers, theirs = load_towers(arch), open_clip.get_tokenizer(arch)
    texts = ["A cat, with the dog.", "a person is juggling", "café"]
    tokens = towers.tokenize(texts)
    assert type(towers.tokenizer._read.tokenizer).__name__ == "GemmaTokenizer"
    assert torch.equal(tokens, theirs(texts))
    assert tokens.shape == (3, 64)
    for row, length in zip(tokens, (15, 20, 4), strict=True):  # "cat" and "ca" are one token each, é two bytes
        assert (row[length], row[length + 1 :].max()) == (EOS, PAD)
        assert row[:length].min() > BOS
    assert relative_error(towers.encode_text(tokens), reference.encode_text(theirs(texts))) < 1e-5


@needs_transformers
def test_a_text_that_is_too_long_is_named_or_cut_and_ended(member, tmp_path):
    write_gemma(tmp_path / "member")
    towers = load_towers(member[0])
    assert (towers.tokenize(["cat " * 63])[0, -2:] > 0).all()
    with pytest.raises(TooLong, match=r"needs 71 tokens, CLIP reads at most 64: 'cat "):
        towers.tokenize(["cat " * 70])
    cut = towers.tokenize(["cat " * 70], truncate=True)
    assert cut.shape == (1, 64)
    assert cut[0, -1] == EOS


def test_a_tokenizer_of_transformers_needs_it(member, monkeypatch):
    towers = load_towers(member[0])
    monkeypatch.setattr("clip.open_clip_tower.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"one of transformers, not installed: pip install -r requirements-encoders"):
        towers.tokenize(["a cat"])


@needs_transformers
@pytest.mark.parametrize("files", [(), ("tokenizer.model",), ("tokenizer_config.json", "tokenizer.model")])
def test_a_folder_without_its_tokenizer_says_what_is_missing(files, member, tmp_path):
    write_gemma(tmp_path / "gemma")
    for name in files:  # sentencepiece's own file, which needs another library
        source = tmp_path / "gemma" / name
        (tmp_path / "member" / name).write_bytes(source.read_bytes() if source.is_file() else bytes(range(9)))
    towers = load_towers(member[0])
    with pytest.raises(ValueError, match=r"could not be read from .*member.*expected its tokenizer\.json") as error:
        towers.tokenize(["a cat"])
    assert "\n" not in str(error.value)
