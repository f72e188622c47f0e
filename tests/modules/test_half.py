"""Weights cast once for tests: the same figures as of autocast, and everything as it was afterwards."""

from dataclasses import replace

import pytest
import torch

from clip.model import CLIP
from modules.classes.base import FixedClasses
from modules.half import weights_cast
from modules.heads.experts import ExpertTransformer
from modules.systems.base import System
from modules.systems.mote import MoTE
from utils.precision import Precision

BF16 = Precision("bf16", torch.device("cpu"))
CLIPS = torch.randint(256, (8, 5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TOWERS = {
    "frames": {},
    "exact GELU": {"activation": "gelu"},
    "shifted channels": {"time_module": "tokenshift"},
    "joint": {"joint_frames": 5},
    "space-time": {"tower": "divided"},
}
FP32 = ("ln_", "conv1", "embedding", "visual.proj", "logit_scale", "spe_cls_feature", "fusion_weight", "frame_position")


@pytest.fixture
def make_system(tiny_clip_config):
    def make_system(**options) -> System:
        torch.manual_seed(0)
        towers = CLIP(replace(tiny_clip_config, **options))
        towers.drop_text()
        classes = torch.nn.functional.normalize(torch.randn(7, 64), dim=-1)
        system = MoTE(towers, ExpertTransformer(64, 2, 1, 4, 7), FixedClasses(classes)).eval()
        system.remember(classes)
        return system

    return make_system


@torch.inference_mode()
def scores(system: System, precision: Precision) -> torch.Tensor:
    with precision.autocast():
        return system.score(system.encode(CLIPS), system.classes.encode(system.towers)).float()


@pytest.mark.parametrize("tower", TOWERS)
def test_frame_features_are_those_of_autocast(make_system, tower):
    towers = make_system(**TOWERS[tower]).towers
    with torch.inference_mode(), BF16.autocast():
        expected, exact = towers.encode_clips(CLIPS), None
        with weights_cast(towers, torch.bfloat16):
            found = towers.encode_clips(CLIPS)
    with torch.inference_mode():
        exact = towers.encode_clips(CLIPS)
    if tower in ("exact GELU", "frames"):
        # The last block sees class tokens alone, fewer than its width: there autocast keeps OpenAI's factor apart.
        rounds_alike = tower == "exact GELU"
        assert torch.equal(found, expected) == rounds_alike
    scale = exact.abs().max()
    assert (found - exact).abs().max() < 1.5 * (expected - exact).abs().max() + 1e-3 * scale
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * float(scale))


def test_scores_are_as_close_to_fp32_as_those_of_autocast_and_fp32_stays(make_system):
    system = make_system()
    with system.for_tests():
        exact, autocast = scores(system, replace(BF16, name="fp32")), scores(system, BF16)
    with system.under_test(BF16.half):
        assert (scores(system, BF16) - exact).abs().max() < 1.5 * (autocast - exact).abs().max() + 1e-3
    with system.under_test(replace(BF16, name="fp32").half):
        assert torch.equal(scores(system, replace(BF16, name="fp32")), exact)


def test_norms_embeddings_and_what_is_small_stay_in_fp32(make_system):
    system = make_system()
    with system.under_test(torch.bfloat16):
        found = {name: value.dtype for name, value in system.state_dict().items()}
    assert {dtype for name, dtype in found.items() if any(part in name for part in FP32)} == {torch.float32}
    assert {dtype for name, dtype in found.items() if not any(part in name for part in FP32)} == {torch.bfloat16}


def test_weights_are_as_they_were_afterwards_also_after_an_error(make_system):
    system = make_system()
    before = dict(system.named_parameters())
    kinds = [type(module) for module in system.modules()]
    with pytest.raises(ZeroDivisionError), system.under_test(torch.bfloat16):
        _ = 1 / 0
    assert all(value is before[name] for name, value in system.named_parameters())
    assert list(before) == [name for name, _ in system.named_parameters()]
    assert [type(module) for module in system.modules()] == kinds
    assert all(value.requires_grad for value in before.values())
