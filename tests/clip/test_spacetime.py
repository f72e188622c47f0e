"""The space-time tower: against the published model's numbers, and what holds for any weights."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from clip.load import load_clip
from clip.model import CLIP
from clip.names.tvts import PARTS
from clip.spacetime import GroupedAttention, check_keep
from modules.build import build_towers
from utils.config import NetworkConfig
from utils.config.pixels import IMAGENET

FILES = {
    "b32": ("tiny_b32_pretraining.pth", {}),
    "b16": ("tiny_b16.pth", {}),
    "h14": ("tiny_h14.pth", {"head_width": 80, "activation": "gelu"}),
}
KINDS = list(FILES)


@pytest.fixture(scope="session")
def tower_of(tvtsv2_golden):
    """Kind of model -> the loaded towers, their golden data and the input, normalised as published."""

    def tower_of(kind: str, data: str = "encoder") -> tuple[CLIP, dict[str, np.ndarray]]:
        file, options = FILES[kind]
        towers = load_clip(str(tvtsv2_golden / file), **options).eval()
        towers.set_spec(replace(towers.spec, **IMAGENET))
        return towers, dict(np.load(tvtsv2_golden / f"{data}_{kind}.npz"))

    return tower_of


def difference(found: Tensor, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest absolute value."""
    return float((found.detach() - torch.from_numpy(expected)).abs().max()) / float(np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_golden_encodings_with_and_without_masks(tower_of, kind):
    towers, golden = tower_of(kind)
    video = torch.from_numpy(golden["video"])
    num_patches = towers.visual.positional_embedding.shape[0] - 1
    with torch.no_grad():
        for part, keep in {"all": None, "mask50": golden["mask50_keep"], "mask70": golden["mask70_keep"]}.items():
            keep = None if keep is None else torch.from_numpy(keep)
            cls, tokens = towers.encode_tokens(video, keep)
            first = tokens[:, : golden[f"{part}_tokens"].shape[1]]
            num_kept = num_patches if keep is None else keep.shape[1]
            assert tokens.shape[1] == 12 * num_kept + (kind != "h14")
            assert difference(cls, golden[f"{part}_cls"]) < 1e-5
            assert difference(first, golden[f"{part}_tokens"]) < 1e-5
            assert difference(tokens.mean(dim=1), golden[f"{part}_tokens_mean"]) < 1e-5
            alone = towers.encode_tokens(video, keep, with_tokens=False)
            assert alone.tokens is None
            assert difference(alone.cls, golden[f"{part}_cls"]) < 1e-5
        assert difference(towers.encode_clips(video)[:, 0], golden["all_cls"]) < 1e-5
        assert difference(towers.encode_clips(video[:, :5])[:, 0], golden["T5_cls"]) < 1e-5
        assert difference(towers.encode_image(towers.normalised(video[:, :1])), golden["image_cls"]) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_golden_residual_stream_and_parts_of_a_block(tower_of, kind):
    towers, golden = tower_of(kind)
    blocks = towers.visual.transformer.resblocks
    seen: list[Tensor] = []
    towers.visual.ln_pre.register_forward_hook(lambda module, inputs, output: seen.append(output))
    for block in blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        towers.encode_tokens(torch.from_numpy(golden["video"]))
        x = torch.from_numpy(golden["attn_in"])
        parts = {"time": blocks[0].timeattn(x, 2), "space": blocks[0].attn(x, 2), "block": blocks[0](x, 2)}
    assert difference(torch.stack([x[:, 0] for x in seen[: 1 + len(blocks)]]), golden["all_hidden_cls"]) < 1e-5
    assert difference(torch.stack([x[:, -1] for x in seen[: 1 + len(blocks)]]), golden["all_hidden_last"]) < 1e-5
    for name, value in parts.items():
        assert difference(value, golden[f"attn_{name}_out"]) < 1e-5


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_golden_gradients(tower_of, kind, checkpointing):
    towers, golden = tower_of(kind)
    towers.train().checkpoint_activations(checkpointing)
    keep = torch.from_numpy(golden["mask50_keep"])
    cls, tokens = towers.encode_tokens(torch.from_numpy(golden["video"]), keep)
    loss = (cls * torch.from_numpy(golden["grad_weight"])).sum() + 0.1 * (tokens**2).mean()
    assert float(loss.detach()) == pytest.approx(float(golden["grad_loss"]), rel=1e-5)
    loss.backward()
    assert_gradients(towers.visual, golden)


def assert_gradients(module: torch.nn.Module, golden: dict[str, np.ndarray]) -> None:
    ours = {name: parameter.grad for name, parameter in module.named_parameters()}
    for name, expected in golden.items():
        part, _, tensor = name.partition("/")
        for theirs, own in PARTS.items():
            if "resblocks" in tensor and tensor.endswith(theirs):
                tensor = tensor.removesuffix(theirs) + own
        if part == "grad":
            assert difference(ours[tensor], expected) < 2e-5, name
        elif part == "grad_norm":
            assert float(ours[tensor].norm()) == pytest.approx(float(expected), rel=2e-5), name


@pytest.mark.parametrize("kind", KINDS)
def test_golden_texts_and_their_gradients(tower_of, kind):
    towers, golden = tower_of(kind, "text")
    tokens = towers.tokenize([str(text) for text in golden["texts"]], truncate=True)
    assert torch.equal(tokens, torch.from_numpy(golden["tokens"]))
    embeddings = towers.encode_text(tokens)
    assert difference(embeddings, golden["embeddings"]) < 1e-5
    (embeddings * torch.from_numpy(golden["grad_weight"])).sum().backward()
    own = dict(towers.named_parameters())
    names = {"text_model.": "transformer.", "text_projection": "text_projection", "text_": ""}
    for name, expected in golden.items():
        if name.startswith("grad_norm/"):
            theirs = name.removeprefix("grad_norm/")
            prefix = next(prefix for prefix in names if theirs.startswith(prefix))
            gradient = own[names[prefix] + theirs.removeprefix(prefix)].grad
            assert float(gradient.norm()) == pytest.approx(float(expected), rel=2e-5), name
    assert difference(own["positional_embedding"].grad[0], golden["grad/text_positional_embedding_row0"]) < 2e-5
    assert difference(own["ln_final.weight"].grad, golden["grad/text_ln_final.weight"]) < 2e-5


def test_golden_start_from_a_clip_of_pictures(tvtsv2_golden, golden):
    facts = np.load(tvtsv2_golden / "init_from_clip.npz")
    towers = load_clip(str(golden / "tiny_clip.pt"), tower="divided").eval()
    towers.set_spec(replace(towers.spec, **IMAGENET))
    for block in towers.visual.transformer.resblocks:
        assert block.timeattn.in_proj_weight.abs().max() == facts["timeattn_qkv_weight_absmax"] == 0
        assert block.timeattn.in_proj_bias.abs().max() == block.timeattn.out_proj.bias.abs().max() == 0
        assert block.timeattn.out_proj.weight.min() == facts["timeattn_proj_weight_min"] == 1
        assert block.timeattn.out_proj.weight.max() == facts["timeattn_proj_weight_max"] == 1
    width = towers.visual.temporal_embedding.shape[1]
    assert float(towers.visual.temporal_embedding.detach().std()) == pytest.approx(width**-0.5, rel=0.1)
    with torch.no_grad():
        towers.visual.temporal_embedding.copy_(torch.from_numpy(facts["temporal_embedding"]))
        video = torch.from_numpy(facts["video"])
        assert difference(towers.encode_clips(video)[:, 0], facts["cls_T3"]) < 1e-5
        assert difference(towers.encode_clips(video[:, :1])[:, 0], facts["cls_T1"]) < 1e-5
        assert difference(towers.encode_text(torch.from_numpy(facts["tokens"]).long()), facts["text"]) < 1e-5
    # What a CLIP of pictures lacks: the temporal embedding, and six tensors a block.
    assert len(towers.additions) == 1 + 6 * len(towers.visual.transformer.resblocks)


# Of the reference: tiny towers filled by a rule, in float64. Image 8, patch 4, width 8, two blocks, embeddings of 6.
FILLED = {
    "quick_gelu": {
        "all": [-0.22879232, -0.23225838, -0.20428937, -0.14867075, -0.07293024, 0.01268104],
        "kept": [-0.23078691, -0.23351332, -0.20463479, -0.14805991, -0.07144581, 0.01483815],
        "sum": 3.554426245489645,
    },
    "gelu": {
        "all": [-0.23094788, -0.23516303, -0.20754996, -0.15184597, -0.07559035, 0.01089607],
        "first patch": [0.3941296, 0.37942989, 0.31337612, 0.20490837, 0.06870723, -0.07679311],
        "sum": -2.91479360426479,
    },
}


@pytest.mark.parametrize("activation", FILLED)
def test_towers_filled_by_a_rule_give_the_known_numbers(tiny_clip_config, activation):
    shapes = {"embed_dim": 6, "image_size": 8, "patch_size": 4, "vision_width": 8, "vision_heads": 2}
    config = replace(tiny_clip_config, tower="divided", temporal_rows=3, activation=activation, **shapes)
    visual = CLIP(config).visual.double().eval()
    theirs = {ours: name for name, ours in PARTS.items()}
    published = {}
    for name, parameter in visual.named_parameters():
        end = next((end for end in theirs if name.endswith(end)), "")
        published[name.removesuffix(end) + theirs.get(end, "")] = parameter
    with torch.no_grad():
        for place, (name, parameter) in enumerate(sorted(published.items())):
            places = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
            is_norm = name.endswith("weight") and parameter.ndim == 1
            parameter.copy_((0.2 * (0.37 * places + 1.3 * (place + 1)).sin() + is_norm).view_as(parameter))
        images = (0.11 * torch.arange(2 * 3 * 3 * 64, dtype=torch.float64)).cos().view(6, 3, 8, 8)
        known, found = FILLED[activation], visual.tokens(images, 3)
        kept = visual(images, 3, torch.tensor([[0, 3], [2, 1]]))
    assert found.cls[0].tolist() == pytest.approx(known["all"], abs=1e-8)
    assert float(found.tokens.sum()) == pytest.approx(known["sum"], abs=1e-9)
    if "kept" in known:
        assert kept[0].tolist() == pytest.approx(known["kept"], abs=1e-8)
    else:
        assert found.tokens[0, 0].tolist() == pytest.approx(known["first patch"], abs=1e-8)


@pytest.fixture
def divided(tiny_clip_config) -> CLIP:
    """Space-time towers on random weights whose attention over time does something."""
    torch.manual_seed(0)
    towers = CLIP(replace(tiny_clip_config, tower="divided")).eval()
    for block in towers.visual.transformer.resblocks:
        torch.nn.init.normal_(block.timeattn.in_proj_weight, std=0.1)
    return towers


def clips(num_clips: int, num_frames: int, size: int = 32) -> Tensor:
    shape = (num_clips, num_frames, 3, size, size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_as_initialised_a_picture_is_encoded_as_by_clip(tiny_clip_config):
    torch.manual_seed(0)
    pictures = CLIP(tiny_clip_config).eval()
    divided = CLIP(replace(tiny_clip_config, tower="divided")).eval()
    divided.load_state_dict(pictures.state_dict(), strict=False)
    torch.nn.init.zeros_(divided.visual.temporal_embedding)
    images = pictures.normalised(clips(3, 1))
    with torch.no_grad():
        torch.testing.assert_close(divided.encode_image(images), pictures.encode_image(images), atol=1e-5, rtol=1e-5)


def test_attention_over_time_learns_from_its_first_step(tiny_clip_config):
    towers = CLIP(replace(tiny_clip_config, tower="divided"))
    towers.encode_clips(clips(2, 3)).sum().backward()
    gradient = towers.visual.transformer.resblocks[0].timeattn.in_proj_weight.grad
    query, key, value = (part.abs().max() for part in gradient.chunk(3))
    assert value > 0
    assert query == key == 0


def test_kept_patches_may_come_in_any_order_and_all_of_them_are_no_mask(divided):
    video, keep = clips(2, 3), torch.arange(16).expand(2, -1)
    with torch.no_grad():
        whole = divided.encode_tokens(video)
        for some in (keep, keep.flip(1)):
            masked = divided.encode_tokens(video, some)
            torch.testing.assert_close(masked.cls, whole.cls, atol=1e-5, rtol=1e-5)
        half = divided.encode_tokens(video, keep[:, :8]).cls
    assert (half - whole.cls).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (torch.tensor([[0, 16]] * 2), "expected indices from 0 to 15, found 0 to 16"),
        (torch.tensor([[-1, 3]] * 2), "expected indices from 0 to 15, found -1 to 3"),
        (torch.tensor([[0, 1]]), r"expected int64 \[2, n\], n at least 1, found int64 \[1, 2\]"),
        (torch.zeros(2, 0, dtype=torch.int64), r"found int64 \[2, 0\]"),
        (torch.zeros(2, 4), r"found float32 \[2, 4\]"),
    ],
)
def test_patches_that_are_not_there_are_refused(keep, message):
    with pytest.raises(ValueError, match=f"patches to keep: .*{message}"):
        check_keep(keep, 2, 16)


@pytest.mark.parametrize("over_time", [False, True])
def test_attention_in_groups_trained_in_bf16_has_the_values_and_gradients_of_fp32(over_time):
    torch.manual_seed(0)
    attention = GroupedAttention(64, 2, 0.0, over_time)
    x = torch.randn(2, 1 + 6 * 5, 64)
    x[:, 0] *= 4  # it would be seen if the class token saw itself once a group
    x.requires_grad_()
    results = []
    for is_bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            y = attention(x, num_frames=6)
        results.append((y[:, 0], y, *torch.autograd.grad(y.square().sum(), [x, *attention.parameters()])))
    for exact, rounded in zip(*results, strict=True):
        assert (rounded - exact).norm() <= 0.02 * exact.norm()


def test_the_order_of_frames_counts_and_padding_is_the_mean_colour(divided):
    video = clips(1, 4)
    with torch.no_grad():
        forward, backward = divided.encode_clips(video), divided.encode_clips(video.flip(1))
        padded = divided.encode_clips(video, torch.tensor([3]))
        images = divided.normalised(video)
        images[3] = 0
        assert (forward - backward).abs().max() > 1e-3
        torch.testing.assert_close(padded[:, 0], divided.encode_frames(images, 4))


def test_longer_clips_and_larger_pictures_take_embeddings_in_between(divided):
    times, places = divided.visual._times(23), divided.visual._places(8)
    own = divided.visual.temporal_embedding
    torch.testing.assert_close(times[::2], own)
    torch.testing.assert_close(times[1::2], (own[1:] + own[:-1]) / 2)
    assert torch.equal(divided.visual._times(5), own[:5])
    assert places.shape == (64, 64)
    assert torch.equal(divided.visual._places(4), divided.visual.positional_embedding[1:])
    # Twice as fine: the mean of four new places is about the old one, where embeddings change slowly.
    ramp = torch.arange(4.0).repeat(4)[:, None].expand(-1, 64)
    with torch.no_grad():
        divided.visual.positional_embedding[1:] = ramp
    fine = divided.visual._places(8)[:, 0].view(8, 8)
    assert torch.allclose(fine[0], fine[7])
    assert bool((fine[0].diff() > 0).all())
    assert fine[0, 3].item() == pytest.approx(1.25, abs=0.1)  # columns 1 and 2 are 1.0 and 2.0
    assert divided.encode_clips(clips(1, 14, 64)).shape == (1, 1, 64)


def test_one_line_says_what_is_interpolated(divided, tmp_path, caplog):
    torch.save(divided.state_dict(), tmp_path / "clip.pt")
    config = NetworkConfig(arch=str(tmp_path / "clip.pt"), tower="divided")
    with caplog.at_level(logging.INFO, "clip.spacetime"):
        towers = build_towers(config, 16, 64, seed=0)
        assert caplog.messages == [
            "network.tower divided: embeddings are interpolated, 12 frames to 16 and 32 pixels to 64"
        ]
        assert (towers.spec.image_size, towers.joins_frames) == (64, True)
        build_towers(config, 5, 32, seed=0)
    assert len(caplog.messages) == 1
    with pytest.raises(ValueError, match=r"data\.input_size: expected a multiple of 8, a patch's, found 60"):
        build_towers(config, 12, 60, seed=0)


def test_the_temporal_embedding_is_drawn_from_the_seed(tiny_clip_config, tmp_path):
    torch.save(CLIP(tiny_clip_config).state_dict(), tmp_path / "clip.pt")
    config = NetworkConfig(arch=str(tmp_path / "clip.pt"), tower="divided")
    first, again, other = (build_towers(config, 12, 32, seed).visual.temporal_embedding for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_half_the_widths_of_heads_are_told_apart(tiny_clip_config, tmp_path):
    torch.save(CLIP(replace(tiny_clip_config, vision_width=160, vision_heads=2)).state_dict(), tmp_path / "clip.pt")
    clip = load_clip(str(tmp_path / "clip.pt"), head_width=80)
    assert (clip.config.vision_heads, clip.facts["head_width"]) == (2, 80)
    assert load_clip(str(tmp_path / "clip.pt"), head_width=40).config.vision_heads == 4
    with pytest.raises(ValueError, match=r"network.head_width 48: expected a ViT .*, .*clip.pt is one 160 wide"):
        load_clip(str(tmp_path / "clip.pt"), head_width=48)


def test_towers_that_join_frames_otherwise_are_refused(tiny_clip_config, divided, tmp_path):
    for options, name in (({"joint_frames": 4}, "joint_st"), ({"time_module": "tsm"}, "tm")):
        with pytest.raises(ValueError, match=rf"network\.tower divided and network.{name}: expected one of them"):
            CLIP(replace(tiny_clip_config, tower="divided", **options))
    with pytest.raises(ValueError, match=r"network\.tower divided: the image tower is a CLIP ResNet"):
        CLIP(replace(tiny_clip_config, tower="divided", resnet_layers=(1, 1, 1, 1)))
    with pytest.raises(ValueError, match=r"network\.tower: expected divided, for the parts of a clip"):
        CLIP(tiny_clip_config).encode_tokens(clips(1, 2))
    torch.save(divided.state_dict(), tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"network.tower: .*clip.pt is a space-time tower, expected divided"):
        build_towers(NetworkConfig(arch=str(tmp_path / "clip.pt")), 12, 32, seed=0)


def test_drop_path_leaves_out_whole_branches(tiny_clip_config):
    towers = CLIP(replace(tiny_clip_config, tower="divided", drop_path=0.5))
    video = clips(2, 3)
    torch.manual_seed(0)
    with torch.no_grad():
        one, other = towers.train().encode_clips(video), towers.encode_clips(video)
        assert not torch.equal(one, other)
        assert torch.equal(towers.eval().encode_clips(video), towers.encode_clips(video))


def test_published_logit_scale_is_one_hundred(tower_of):
    assert float(tower_of("b16")[0].logit_scale.detach()) == pytest.approx(math.log(100))
