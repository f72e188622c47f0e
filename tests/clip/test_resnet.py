"""CLIP's ResNets equal the published ones and open_clip's; what they do not know is an error."""

import json
from dataclasses import replace

import numpy as np
import open_clip.model
import pytest
import torch

from clip.load import load_clip
from clip.model import CLIP, CLIPConfig
from modules.classes.base import FixedClasses
from modules.heads.mean import MeanPooling
from modules.systems.clip import PlainCLIP
from modules.weights import load_weights

TOLERANCE = 1e-5  # of an array's largest magnitude
TINY = CLIPConfig(
    embed_dim=24, image_size=64, patch_size=32, vision_width=4, vision_layers=5, vision_heads=2,
    text_width=64, text_layers=1, text_heads=1, vocab_size=600, resnet_layers=(1, 2, 1, 1),
)  # fmt: skip


def random_resnet(**options) -> CLIP:
    """A tiny ResNet in which no scale, bias or statistic is trivial, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip = CLIP(replace(TINY, **options))
        with torch.no_grad():
            for name, value in clip.visual.state_dict().items():
                if value.ndim == 1:
                    value += 0.5 * torch.rand_like(value) if "var" in name else 0.5 * torch.randn_like(value)
    return clip.eval()


@pytest.fixture
def resnet() -> CLIP:
    return random_resnet()


def random_clips(num_clips: int, num_frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (num_clips, num_frames, 3, 64, 64), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("case", ["none", "tsm", "True"])
def test_features_and_gradients_equal_the_published_ones(case, text4vis_golden, relative_error):
    published = np.load(text4vis_golden / "resnet.npz")
    clip = load_clip(str(text4vis_golden / "tiny_rn.pt"), time_module="" if case == "none" else case).eval()
    case = "tsm" if case == "True" else case
    features = clip.encode_clips(torch.from_numpy(published["frames"])).flatten(0, 1)
    assert relative_error(features, published[f"{case}/out_T4"]) <= TOLERANCE
    (features * torch.from_numpy(published["probe"])).sum().backward()
    gradients = {name.replace(".net.", "."): value.grad for name, value in clip.visual.named_parameters()}
    expected = {name.split("/")[2]: published[name] for name in published.files if name.startswith(f"{case}/grad/")}
    assert len(expected) == 3
    for name, value in expected.items():
        assert relative_error(gradients[name], value) <= TOLERANCE, name


@pytest.mark.parametrize("case", ["none", "tsm"])
def test_names_and_shapes_are_the_released_ones(case, text4vis_golden):
    clip = load_clip(str(text4vis_golden / "tiny_rn.pt"), time_module="" if case == "none" else case)
    released = json.loads((text4vis_golden / "checkpoint_keys.json").read_text())[f"resnet_{case}"]
    found = {name: list(value.shape) for name, value in clip.visual.state_dict(prefix="visual.").items()}
    assert found == {name: facts["shape"] for name, facts in released.items() if name.startswith("visual.")}


def test_shifts_stand_in_every_second_block_of_a_deep_tower():
    with torch.device("meta"):
        towers = {layers: CLIP(replace(TINY, resnet_layers=layers, time_module="tsm")) for layers in
                  ((1, 2, 3, 1), (3, 4, 23, 3))}  # fmt: skip
    shifted = {
        layers: [name for name, _ in clip.visual.named_parameters() if ".net." in name]
        for layers, clip in towers.items()
    }
    assert len(shifted[1, 2, 3, 1]) == 7
    assert len(shifted[3, 4, 23, 3]) == 2 + 2 + 12 + 2
    assert "layer3.2.conv1.net.weight" in shifted[3, 4, 23, 3]


@torch.no_grad()
def test_a_resnet_equals_open_clip_s(resnet):
    vision = open_clip.model.CLIPVisionCfg(layers=list(TINY.resnet_layers), width=4, head_width=64, image_size=64)
    text = open_clip.model.CLIPTextCfg(width=64, heads=1, layers=1, vocab_size=600)
    reference = open_clip.model.CLIP(24, vision, text, quick_gelu=True).eval()
    reference.load_state_dict(resnet.state_dict())
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(resnet.encode_image(images), reference.encode_image(images), rtol=1e-4, atol=1e-5)
    resnet.train(), reference.train()
    torch.testing.assert_close(resnet.encode_image(images), reference.encode_image(images), rtol=1e-4, atol=1e-5)
    statistics = reference.state_dict()  # learned in training, as ever
    assert all(torch.allclose(value, statistics[name], atol=1e-5) for name, value in resnet.state_dict().items())


@torch.no_grad()
def test_statistics_are_learned_in_training_but_not_by_a_fixed_tower(resnet):
    def learns() -> bool:
        before = [each.clone() for each in resnet.statistics()]
        resnet.encode_clips(random_clips(2, 3))
        return not all(torch.equal(*pair) for pair in zip(resnet.statistics(), before, strict=True))

    assert not learns()
    resnet.train()
    assert learns()
    resnet.image_tower.requires_grad_(False)
    resnet.train()
    assert not learns()


@pytest.mark.parametrize("half", [False, True])
def test_a_file_of_a_resnet_loads_with_its_statistics(resnet, half, tmp_path):
    resnet.train().encode_clips(random_clips(1, 2))  # the counters count
    state = {name: value.half() if half else value for name, value in resnet.state_dict().items()}  # counters, too
    torch.save(state, tmp_path / "rn.pt")
    loaded = load_clip(str(tmp_path / "rn.pt"))
    assert loaded.config == TINY
    assert all(torch.equal(value, state[name].to(value.dtype)) for name, value in loaded.state_dict().items())
    assert loaded.visual.bn1.num_batches_tracked == 1


def system_of(clip: CLIP) -> PlainCLIP:
    return PlainCLIP(clip, MeanPooling(), FixedClasses(torch.zeros(5, 24)))


def test_statistics_are_averaged_with_the_weights_and_counters_are_not(resnet):
    system = system_of(random_resnet())
    tuned = {name: value + 1 for name, value in resnet.state_dict().items()}
    load_weights(system, {"model_state_dict": tuned, "fusion_model_state_dict": {}}, "x.pt", weight_average=0.75)
    found, before = system.towers.state_dict(), resnet.state_dict()
    for name in ("visual.bn2.running_var", "visual.layer4.0.bn1.running_mean"):
        torch.testing.assert_close(found[name], before[name] + 0.75)
    counter = found["visual.bn2.num_batches_tracked"]
    assert (counter.dtype, counter.item()) == (torch.int64, 1)


def test_what_a_resnet_does_not_know_is_an_error(resnet):
    for name, options in {"drop_out": {"drop_path": 0.1}, "emb_dropout": {"emb_dropout": 0.1},
                          "joint_st": {"joint_frames": 4}}.items():  # fmt: skip
        with pytest.raises(ValueError, match=rf"network\.{name}: the image tower is a CLIP ResNet"):
            random_resnet(**options)
    with pytest.raises(ValueError, match=r"network\.tm: .* one of False, tsm, True for a ResNet, found tokenshift"):
        random_resnet(time_module="tokenshift")
    with pytest.raises(ValueError, match=r"network\.recompute full: .* a CLIP ResNet"):
        resnet.checkpoint_activations(True)
    resnet.checkpoint_activations(False)
    with pytest.raises(ValueError, match="expected clips of 4 frames, found 6 frames in all"):
        resnet.encode_frames(torch.zeros(6, 3, 64, 64), 4)


def test_a_resnet_with_a_missing_tensor_is_told_as_such(resnet, tmp_path):
    state = resnet.state_dict()
    less = {name: value for name, value in state.items() if "attnpool.c_proj" not in name}
    torch.save(less, tmp_path / "less.pt")
    with pytest.raises(ValueError, match=r"less.pt: not a CLIP ResNet, missing visual.attnpool.c_proj.weight$"):
        load_clip(str(tmp_path / "less.pt"))
    del state["visual.layer2.1.bn1.weight"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(ValueError, match=r"less.pt: not a CLIP ResNet, missing visual.layer2.1.bn1.weight$"):
        load_clip(str(tmp_path / "less.pt"))


@torch.no_grad()
def test_clips_of_any_length_do_not_see_each_other():
    clip, clips = random_resnet(time_module="tsm"), random_clips(3, 5)
    alone = torch.cat([clip.encode_clips(each[None]) for each in clips])
    torch.testing.assert_close(clip.encode_clips(clips), alone, rtol=1e-4, atol=1e-5)
    assert clip.facts["time_module"] == "tsm"
    assert not torch.allclose(alone, random_resnet().encode_clips(clips), atol=1e-3)
