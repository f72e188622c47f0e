"""Temporal modules equal the published ones; the number of frames of a clip reaches them whatever it is."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clip.blocks import ResidualAttentionBlock
from clip.load import load_clip
from clip.model import CLIP
from clip.shift import (
    PATCH_SHARE,
    VIT_MODULES,
    PatchShift,
    ShiftedConvolution,
    TokenConvolution,
    TokenShift,
    shift_channels,
)
from modules.compile import compile_blocks

TOLERANCE = 1e-5  # of an array's largest magnitude
CASES = ("none", "tsm", "tokenshift", "tokent1d", "tokent1d_trained", "joint_st")


@pytest.fixture(scope="session")
def published(text4vis_golden):
    return np.load(text4vis_golden / "temporal_modules.npz")


def tower_of(case: str, num_frames: int, folder, published) -> CLIP:
    """The tiny CLIP with the module of a golden case."""
    if case == "joint_st":
        clip = load_clip(str(folder / "tiny_clip.pt"), joint_frames=num_frames)
        clip.visual.time_embedding.data = torch.from_numpy(published["joint_st/time_embedding"])[:num_frames]
        return clip
    clip = load_clip(str(folder / "tiny_clip.pt"), time_module="" if case == "none" else case.split("_")[0])
    if case == "tokent1d_trained":
        for block, weight in zip(clip.visual.transformer.resblocks, published[f"{case}/weights"], strict=True):
            block.control_point.conv.weight.data = torch.from_numpy(weight)
    return clip


@pytest.mark.parametrize("num_frames", [8, 4])
@pytest.mark.parametrize("case", CASES)
def test_features_and_gradients_equal_the_published_ones(case, num_frames, text4vis_golden, published, relative_error):
    clip = tower_of(case, num_frames, text4vis_golden, published)
    frames = torch.from_numpy(published["frames"]).view(-1, num_frames, 3, 48, 48)
    features = clip.encode_clips(frames).flatten(0, 1)
    assert relative_error(features, published[f"{case}/out_T{num_frames}"]) <= TOLERANCE
    (features * torch.from_numpy(published["probe"])[: len(features)]).sum().backward()
    gradients = {
        name.replace(".net.", ".").replace("transformer.", ""): parameter.grad
        for name, parameter in clip.visual.named_parameters()
    }
    prefix = f"{case}/grad_T{num_frames}/"
    expected = {name.removeprefix(prefix): published[name] for name in published.files if name.startswith(prefix)}
    assert expected or num_frames == 4
    for name, value in expected.items():
        assert relative_error(gradients[name], value) <= TOLERANCE, name


@pytest.mark.parametrize("num_frames", [8, 4])
def test_bare_modules_equal_the_published_ones(num_frames, published, relative_error):
    tokens = torch.from_numpy(published["unit/in"]).transpose(0, 1).unflatten(0, (-1, num_frames))  # [B, T, 5, 16]
    convolution = TokenConvolution(16)
    assert torch.equal(convolution.conv.weight, torch.from_numpy(published["unit/tokent1d_weight"]))
    modules = {
        "tsm": PatchShift(lambda x, *_: x),
        "tokenshift": TokenShift(),
        "tokent1d": convolution,
    }
    for name, module in modules.items():
        found = module(tokens).flatten(0, 1).transpose(0, 1)
        assert relative_error(found, published[f"unit/{name}_T{num_frames}"]) <= TOLERANCE, name
    images = torch.from_numpy(published["unit/rn_in"])
    found = ShiftedConvolution(torch.nn.Identity())(images, num_frames)
    assert relative_error(found, published[f"unit/rn_tsm_T{num_frames}"]) <= TOLERANCE


KEYS = {"joint_st": "joint_st", **{name: name for name in ("none", "tsm", "tokenshift", "tokent1d")}}


@pytest.mark.parametrize("case", KEYS)
def test_names_shapes_and_learning_rates_are_the_released_ones(case, text4vis_golden, published):
    clip = tower_of(case, 8, text4vis_golden, published)
    clip.drop_text()
    released = json.loads((text4vis_golden / "checkpoint_keys.json").read_text())[case]
    tower = {name: facts for name, facts in released.items() if not name.startswith("fusion_model.")}
    assert {name: list(value.shape) for name, value in clip.state_dict().items()} == {
        name: facts["shape"] for name, facts in tower.items()
    }
    assert set(clip.full_rate) == {name for name, facts in tower.items() if facts.get("lr") == "full"}
    names = {id(parameter): name for name, parameter in clip.named_parameters()}
    assert [names[id(each)] for each in clip.parameters_at(full_rate=True)] == list(clip.full_rate)
    assert len(clip.parameters_at(full_rate=False)) == len(tower) - len(clip.full_rate)


@pytest.fixture
def make_tower(tiny_clip, tiny_clip_config):
    """The tiny CLIP with a temporal module and the weights of ``tiny_clip``, in eval mode."""

    def make(name: str, **options) -> CLIP:
        clip = CLIP(replace(tiny_clip_config, time_module=name, **options))
        plain = dict(tiny_clip.state_dict())
        state = {key: plain.get(key.replace(".net.", "."), value) for key, value in clip.state_dict().items()}
        clip.load_state_dict(state)
        return clip.eval()

    return make


def random_clips(num_clips: int, num_frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_frames)
    return torch.randint(256, (num_clips, num_frames, 3, 32, 32), generator=generator, dtype=torch.uint8)


def test_a_shift_takes_from_the_next_and_the_previous_frame_and_zeros_beyond():
    x = torch.tensor([[[1.0, 10.0, 100.0], [2.0, 20.0, 200.0], [3.0, 30.0, 300.0]]])  # [1, T, C]
    expected = torch.tensor([[[2.0, 0.0, 100.0], [3.0, 10.0, 200.0], [0.0, 20.0, 300.0]]])
    assert torch.equal(shift_channels(x, 3), expected)
    assert torch.equal(shift_channels(x.transpose(1, 2)[:, None].transpose(1, 3), 3, -2)[..., 0], expected)


@pytest.mark.parametrize("name", VIT_MODULES)
@torch.no_grad()
def test_clips_do_not_see_each_other(make_tower, name):
    clip, clips = make_tower(name), random_clips(3, 5)
    together = clip.encode_clips(clips)
    alone = torch.cat([clip.encode_clips(each[None]) for each in clips])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together, clip.encode_clips(clips.flip(1)).flip(1), atol=1e-4)  # time has a direction


@pytest.mark.parametrize("name", VIT_MODULES)
@torch.no_grad()
def test_a_picture_is_a_clip_of_one_frame(make_tower, tiny_clip, name):
    clip, clips = make_tower(name), random_clips(3, 1)
    images = (clips[:, 0] - clip.pixel_mean) / clip.pixel_std
    found = clip.encode_image(images)
    assert torch.equal(found, clip.encode_clips(clips)[:, 0])
    assert not torch.allclose(found, tiny_clip.encode_image(images), atol=1e-4)  # its shifted channels are zero


@torch.no_grad()
def test_a_convolution_over_time_starts_as_the_shift(make_tower):
    clips = random_clips(2, 4)
    assert torch.equal(make_tower("tokent1d").encode_clips(clips), make_tower("tokenshift").encode_clips(clips))


@pytest.mark.parametrize("name", VIT_MODULES)
def test_reading_only_the_class_token_changes_neither_it_nor_its_gradients(make_tower, name):
    transformer = make_tower(name).visual.transformer
    x = torch.randn(2, 3, 7, 64, requires_grad=True)  # [B, T, L, D]
    results = []
    for first in (transformer(x)[..., :1, :], transformer(x, only_first=True)):
        assert first.shape == (2, 3, 1, 64)
        results.append((first, *torch.autograd.grad(first.square().sum(), [x, *transformer.parameters()])))
    for whole, cut in zip(*results, strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", VIT_MODULES)
def test_gradient_checkpointing_changes_no_gradient(make_tower, name):
    clip, clips = make_tower(name).train(), random_clips(2, 3)
    gradients = []
    for is_on in (False, True):
        clip.checkpoint_activations(is_on)
        clip.zero_grad()
        clip.encode_clips(clips).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in clip.visual.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", VIT_MODULES)
def test_operations_are_counted_on_the_meta_device_and_are_those_without_a_module(make_tower, tiny_clip_config, name):
    found = []
    for clip in (make_tower(name), CLIP(tiny_clip_config)):
        with FlopCounterMode(display=False) as counter:
            clip.to("meta").encode_clips(random_clips(2, 3).to("meta")).sum().backward()
        found.append(counter.get_total_flops())
    assert found[0] == found[1] > 0  # moving channels costs no products of matrices


@pytest.mark.parametrize("name", VIT_MODULES)
@torch.no_grad()
def test_a_class_token_stays_in_fp32_under_autocast(make_tower, name):
    seen = []
    clip = make_tower(name)
    for block in clip.visual.transformer.modules():
        if isinstance(block, ResidualAttentionBlock):
            block.ln_1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        clip.encode_clips(random_clips(1, 2))
    assert seen[1:] == [torch.float32] * (len(seen) - 1)  # the residual path


@pytest.mark.parametrize("name", VIT_MODULES)
def test_pretrained_weights_load_under_plain_names_and_under_their_own(make_tower, tiny_clip, tmp_path, name):
    torch.save(tiny_clip.state_dict(), tmp_path / "plain.pt")
    loaded = load_clip(str(tmp_path / "plain.pt"), time_module=name)
    expected = make_tower(name).state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
    if name == "tsm":
        torch.save(expected, tmp_path / "shifted.pt")
        again = load_clip(str(tmp_path / "shifted.pt"), time_module=name).state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in again.items())
        with pytest.raises(ValueError, match=r"shifted.pt.*missing visual.transformer.resblocks.0.attn"):
            load_clip(str(tmp_path / "shifted.pt"))  # it would be another model


@pytest.mark.slow
@pytest.mark.parametrize("name", VIT_MODULES)
def test_compiled_blocks_compute_the_same(make_tower, name):
    clip, clips = make_tower(name), random_clips(2, 3)
    names, expected = list(clip.state_dict()), clip.encode_clips(clips)
    if not compile_blocks(clip, torch.device("cpu")):
        pytest.skip("torch.compile does not work here: no C++ compiler, or Python's headers are missing")
    torch.testing.assert_close(clip.encode_clips(clips), expected, rtol=1e-4, atol=1e-5)
    other = random_clips(1, 5)
    assert clip.encode_clips(other).shape == (1, 5, 64)
    clip.encode_clips(clips).sum().backward()
    assert list(clip.state_dict()) == names


def test_what_cannot_be_is_an_error_that_says_what_can(make_tower, tiny_clip_config):
    with pytest.raises(ValueError, match=r"network\.tm: expected one of False, tsm, tokenshift, tokent1d for a ViT, f"):
        make_tower("True")
    with pytest.raises(ValueError, match=r"network\.tm and network.joint_st: expected one of them"):
        make_tower("tsm", joint_frames=4)
    with pytest.raises(ValueError, match="expected clips of 4 frames, found 6 frames in all"):
        make_tower("tsm").encode_frames(torch.zeros(6, 3, 32, 32), 4)
    with pytest.raises(ValueError, match=r"network\.joint_st: expected clips of 4 frames, found 2"):
        CLIP(replace(tiny_clip_config, joint_frames=4)).encode_clips(random_clips(2, 2))


def test_a_tower_says_what_its_features_depend_on(make_tower, tiny_clip):
    assert tiny_clip.facts["time_module"] == "none"
    assert make_tower("tokenshift").facts["time_module"] == "tokenshift"


def test_an_eighth_of_the_patches_channels_moves_each_way():
    x = torch.arange(2 * 16.0).view(1, 2, 1, 16) + 1
    moved = shift_channels(x, PATCH_SHARE) != x
    assert moved.sum(-1).flatten().tolist() == [4, 4]
