"""The video model: frames in, cosines out, in training and evaluation."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from clip.model import CLIP
from modules.classes.templates import tokenize_classes
from modules.heads.transformer import MeanPooling, TemporalTransformer, modulation_gate
from modules.objectives.classify import video_loss
from modules.video_clip import VideoCLIP

CLASSES = ["yoga", "juggling balls", "zumba", "tai chi", "archery", "drumming", "bowling"]


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def class_features() -> torch.Tensor:
    return F.normalize(torch.randn(7, 64, generator=torch.Generator().manual_seed(1)), dim=-1)


@pytest.fixture
def head() -> TemporalTransformer:
    torch.manual_seed(2)
    head = TemporalTransformer(width=64, layers=2, heads=1, num_experts=3, num_train_classes=7)
    head.spe_cls_feature.copy_(F.normalize(torch.randn(7, 64), dim=-1))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return head


@torch.no_grad()
def test_mean_pooling_is_clip_on_every_frame_and_their_mean(tiny_clip, frames, class_features):
    clip = copy.deepcopy(tiny_clip)
    output = VideoCLIP(tiny_clip, MeanPooling()).eval()(frames, class_features)
    mean, std = torch.tensor((0.48145466, 0.4578275, 0.40821073)), torch.tensor((0.26862954, 0.26130258, 0.27577711))
    for video, pixels in enumerate(frames):
        images = ((pixels.permute(0, 2, 3, 1).double() / 255 - mean) / std).permute(0, 3, 1, 2).float()
        features = clip.encode_image(images)
        torch.testing.assert_close(output.frame_features[video], features, rtol=1e-4, atol=1e-5)
        pooled = features.mean(dim=0)
        cosines = torch.stack([pooled @ c / (pooled.norm() * c.norm()) for c in class_features])
        torch.testing.assert_close(output.logits[0, video], cosines, rtol=1e-4, atol=1e-5)
    assert float(output.logit_scale) == pytest.approx(1 / 0.07, rel=1e-5)


def test_training_and_evaluation_return_the_same_type_with_two_and_one_routes(tiny_clip, head, frames, class_features):
    model = VideoCLIP(tiny_clip, head).train()
    mixing = model.draw_mixing(torch.Generator().manual_seed(0))
    trained, tested = model(frames, class_features, mixing), model.eval()(frames, class_features)
    assert type(trained) is type(tested)
    assert (trained.logits.shape, trained.features.shape) == ((2, 2, 7), (2, 2, 3, 64))
    assert (tested.logits.shape, tested.features.shape) == ((1, 2, 7), (1, 2, 3, 64))
    assert trained.frame_features.shape == tested.frame_features.shape == (2, 3, 64)


@torch.no_grad()
def test_modulation_weighs_the_temporal_branch_in_evaluation_alone(tiny_clip, head, frames, class_features):
    model = VideoCLIP(tiny_clip, head, modulation=(4, 0.5))
    mixing = torch.full((2, 1, 3), 1 / 3)  # the evaluation merge
    trained, tested = model.train()(frames, class_features, mixing), model.eval()(frames, class_features)
    gate = modulation_gate(tested.frame_features, class_features, head.spe_cls_feature, 4, 0.5)
    assert ((gate > 0.01) & (gate < 0.99)).all()
    temporal = trained.features[0] - trained.frame_features
    expected = gate.view(2, 1, 1) * temporal + tested.frame_features
    torch.testing.assert_close(tested.features[0], expected, rtol=1e-4, atol=1e-5)
    off = VideoCLIP(model.clip, head, train_text=True, modulation=None).eval()(frames, class_features)
    torch.testing.assert_close(off.features, trained.features, rtol=1e-4, atol=1e-5)


def test_remembered_training_classes_make_the_gate_one_for_themselves(tiny_clip, head, frames, class_features):
    with torch.no_grad():
        model = VideoCLIP(tiny_clip, head).eval()
        off = VideoCLIP(model.clip, head, train_text=True, modulation=None).eval()(frames, class_features)
        assert not torch.allclose(model(frames, class_features).features, off.features, atol=1e-3)
    given = class_features.clone().requires_grad_()
    model.remember_train_classes(given)
    assert not head.spe_cls_feature.requires_grad
    assert torch.equal(model.state_dict()["head.spe_cls_feature"], class_features)
    torch.testing.assert_close(model(frames, class_features).features, off.features, rtol=1e-4, atol=1e-4)


def test_the_text_tower_is_dropped_unless_it_trains(tiny_clip, head):
    names = {name.split(".")[1] for name in VideoCLIP(tiny_clip, head).state_dict() if name.startswith("clip.")}
    assert names == {"visual", "logit_scale"}


def test_a_training_text_tower_gets_gradients_from_tokens(tiny_clip, head, frames):
    model = VideoCLIP(tiny_clip, head, train_text=True).train()
    tokens = tokenize_classes(CLASSES[:3], "single")
    output = model(frames, tokens, model.draw_mixing(torch.Generator().manual_seed(0)))
    assert output.logits.shape == (2, 2, 3)
    video_loss(output, torch.tensor([0, 2]))[0].backward()
    for name in ("token_embedding.weight", "text_projection", "transformer.resblocks.0.mlp.c_fc.weight"):
        assert model.clip.get_parameter(name).grad.abs().sum() > 0, name


def test_tokens_and_their_encoded_features_give_the_same_cosines(tiny_clip, head, frames):
    model = VideoCLIP(tiny_clip, head, train_text=True).eval()
    tokens = tokenize_classes(CLASSES, "mote28")
    with torch.no_grad():
        features = model.class_features(tokens)
        torch.testing.assert_close(model(frames, tokens).logits, model(frames, features).logits)
    assert model.class_features(features) is features


def test_gradients_reach_the_image_tower_and_the_scale(tiny_clip, head, frames, class_features):
    model = VideoCLIP(tiny_clip, head).train()
    output = model(frames, class_features, model.draw_mixing(torch.Generator().manual_seed(0)))
    video_loss(output, torch.tensor([0, 2]))[0].backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # An expert that no layer drew still gets gradients from the merged pass.
    assert untouched == []


@torch.no_grad()
def test_joint_attention_gives_one_feature_a_clip(tiny_clip_config, frames, class_features):
    config = copy.copy(tiny_clip_config)
    object.__setattr__(config, "joint_frames", 3)
    output = VideoCLIP(CLIP(config), MeanPooling()).eval()(frames, class_features)
    assert output.frame_features.shape == (2, 1, 64)
    assert output.logits.shape == (1, 2, 7)


@torch.no_grad()
def test_cosines_are_single_precision_under_autocast(tiny_clip, head, frames, class_features):
    model = VideoCLIP(tiny_clip, head).eval()
    exact = model(frames, class_features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(frames, class_features)
    assert found.logits.dtype == torch.float32
    # In bf16 a cosine has 8 significant bits: products of single precision do not fall on that grid.
    assert not torch.equal(found.logits, found.logits.bfloat16().float())
    torch.testing.assert_close(found.logits, exact.logits, rtol=0, atol=0.05)


@torch.no_grad()
def test_merged_experts_change_no_cosine(tiny_clip, head, frames, class_features):
    model = VideoCLIP(tiny_clip, head).eval()
    expected = model(frames, class_features).logits
    with model.merged_experts():
        torch.testing.assert_close(model(frames, class_features).logits, expected, rtol=1e-4, atol=1e-5)


def test_the_scale_is_the_exponential_of_the_trained_parameter(tiny_clip, frames, class_features):
    with torch.no_grad():
        tiny_clip.logit_scale.fill_(math.log(50))
        assert float(VideoCLIP(tiny_clip, MeanPooling())(frames, class_features).logit_scale) == pytest.approx(50)


def test_features_in_the_place_of_frames_skip_the_image_tower(tiny_clip):
    model = VideoCLIP(tiny_clip, MeanPooling()).eval()
    classes = F.normalize(torch.randn(3, 64), dim=-1)
    frames = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(frames, classes)
        features = model.encode_frames(frames)
        model.clip.visual = None
        torch.testing.assert_close(model(features, classes).logits, expected.logits, rtol=0, atol=0)
        assert model(features.half(), classes).frame_features.dtype == torch.float32
