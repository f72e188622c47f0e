import logging
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from clip.blocks import LIGHT, ResidualAttentionBlock, set_recompute
from clip.model import CLIP
from modules.build import load_config
from modules.check import check_network
from modules.compile import CACHE_VARIABLE, compile_blocks, compile_system, way_of
from modules.heads.mean import MeanPooling
from modules.systems.clip import PlainCLIP

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def system(tiny_clip, monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "compiled"))
    return PlainCLIP(tiny_clip, MeanPooling(), None)


@pytest.fixture
def compiled(monkeypatch) -> list:
    """What is asked to compile itself; the trial is left out."""
    found = []
    monkeypatch.setattr("modules.compile.compile_blocks", lambda model, device: not found.append(device))
    monkeypatch.setattr("torch.nn.Module.compile", lambda self, *args, **kwargs: found.append(self))
    return found


@pytest.mark.parametrize(
    ("choice", "device", "expected"),
    [
        ("auto", CPU, []), ("auto", GPU, ["blocks"]), (False, GPU, []), ("off", GPU, []), (True, CPU, ["blocks"]),
        ("blocks", CPU, ["blocks"]), ("whole", GPU, ["blocks", "whole"]),
    ],
)  # fmt: skip
def test_what_is_compiled_where(system, compiled, choice, device, expected):
    assert compile_system(system, choice, "", device) == bool(expected)
    assert compiled == {0: [], 1: [device], 2: [device, system.towers.image_tower]}[len(expected)]


def test_compiled_code_is_kept_where_the_configuration_says_else_the_environment_else_beside_weights(
    system, compiled, monkeypatch, tmp_path, caplog
):
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path))
    with caplog.at_level(logging.INFO):
        for cache, before, expected in [
            ("here", "there", "here"),
            ("", "there", "there"),
            ("", "", tmp_path / "compiled"),
        ]:
            monkeypatch.setenv(CACHE_VARIABLE, before)
            compile_system(system, "blocks", cache, CPU)
            assert os.environ[CACHE_VARIABLE] == str(expected)
            assert caplog.messages[-1] == f"network.compile: blocks; compiled code is kept in {expected}"


def test_a_gpu_that_does_not_compile_trains_without_it_after_one_line(system, monkeypatch, caplog):
    def no_compiler(self, *args, **kwargs):
        raise RuntimeError("Cannot find a working triton installation")

    monkeypatch.setattr(ResidualAttentionBlock, "to", lambda self, device: self)
    monkeypatch.setattr(ResidualAttentionBlock, "compile", no_compiler)
    assert not compile_system(system, "auto", "", GPU)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "running without it (Cannot find a working triton" in caplog.messages[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network.compile=all"], "network.compile: expected one of auto, off, blocks, whole, found 'all'"),
        (["network.compile=whole", "solver.strategy=fsdp"], "network.compile whole: expected blocks with .*fsdp"),
    ],
)
def test_ways_that_are_not_known_or_do_not_fit_are_errors(debug_config, overrides, message):
    with pytest.raises(ValueError, match=message):
        check_network(load_config(debug_config, overrides))


def test_old_switches_and_yaml_s_off_are_names_too(debug_config):
    for value, way in {"True": "blocks", "False": "off", "off": "off", "whole": "whole"}.items():
        assert way_of(load_config(debug_config, [f"network.compile={value}"]).network.compile) == way


@pytest.mark.slow
def test_a_tower_that_is_compiled_whole_recomputes_and_trains_alike(system, caplog):
    system.train()
    set_recompute(system, LIGHT)
    clips = torch.randint(256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    gradients = []
    for way in ("off", "whole"):
        if compile_system(system, way, "", CPU) != (way == "whole"):
            pytest.skip("torch.compile does not work here: no C++ compiler, or Python's headers are missing")
        system.zero_grad()
        with caplog.at_level(logging.INFO):
            system.towers.encode_clips(clips).square().sum().backward()
        gradients.append([p.grad.clone() for p in system.towers.visual.parameters()])
    for plain, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-4)
    assert any(re.fullmatch(r"network\.compile: \d+\.\d s", message) for message in caplog.messages)
    assert any(Path(os.environ[CACHE_VARIABLE]).iterdir())


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
