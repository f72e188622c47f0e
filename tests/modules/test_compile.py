import logging
from dataclasses import replace

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from clip.blocks import ResidualAttentionBlock
from clip.model import CLIP
from modules.compile import compile_blocks

CPU = torch.device("cpu")


def test_without_a_compiler_the_model_stays_as_it_is_with_one_warning(tiny_clip, monkeypatch, caplog):
    def no_compiler(self, *args, **kwargs):
        raise RuntimeError("Failed to find C++ compiler")

    monkeypatch.setattr(ResidualAttentionBlock, "compile", no_compiler)
    images = torch.randn(2, 3, 32, 32)
    before = tiny_clip.encode_image(images)
    with caplog.at_level(logging.WARNING):
        assert not compile_blocks(tiny_clip, CPU)
    assert torch.equal(tiny_clip.encode_image(images), before)
    messages = [record.message for record in caplog.records]
    assert messages == [
        "network.compile: torch.compile does not work here, running without it (Failed to find C++ compiler)"
    ]
    assert issubclass(BackendCompilerFailed, RuntimeError)  # what the real one raises


@pytest.mark.slow
def test_compiled_blocks_compute_the_same_and_keep_their_names(tiny_clip):
    names = list(tiny_clip.state_dict())
    images = torch.randn(2, 3, 32, 32)
    expected = tiny_clip.encode_image(images)
    if not compile_blocks(tiny_clip, CPU):
        pytest.skip("torch.compile does not work here: no C++ compiler, or Python's headers are missing")
    torch.testing.assert_close(tiny_clip.encode_image(images), expected, rtol=1e-4, atol=1e-5)
    tiny_clip.encode_image(images).sum().backward()
    assert list(tiny_clip.state_dict()) == names


@pytest.mark.slow
def test_blocks_over_time_and_space_are_compiled_too(tiny_clip_config):
    towers = CLIP(replace(tiny_clip_config, tower="divided"))
    clips = torch.randint(256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    expected = towers.encode_tokens(clips)
    if not compile_blocks(towers, CPU):
        pytest.skip("torch.compile does not work here: no C++ compiler, or Python's headers are missing")
    found = towers.encode_tokens(clips)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(towers.encode_clips(clips)[:, 0], expected.cls, rtol=1e-4, atol=1e-5)
    found.tokens.sum().backward()
