"""What holds for every system, shown on CLIP with the mean over frames."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clip.model import CLIP
from modules.classes.base import FixedClasses
from modules.heads.mean import MeanPooling
from modules.heads.transformer import TemporalTransformer
from modules.systems.base import Batch
from modules.systems.clip import PlainCLIP
from utils.config import SolverConfig


@pytest.fixture
def system(tiny_clip, class_features) -> PlainCLIP:
    return PlainCLIP(tiny_clip, MeanPooling(), FixedClasses(class_features)).eval()


@torch.no_grad()
def test_mean_pooling_is_clip_on_every_frame_and_their_mean(system, frames, class_features):
    clip = copy.deepcopy(system.towers)
    mean, std = torch.tensor((0.48145466, 0.4578275, 0.40821073)), torch.tensor((0.26862954, 0.26130258, 0.27577711))
    video = system.encode(frames)
    for index, pixels in enumerate(frames):
        images = ((pixels.permute(0, 2, 3, 1).double() / 255 - mean) / std).permute(0, 3, 1, 2).float()
        features = clip.encode_image(images)
        torch.testing.assert_close(video.frames[index], features, rtol=1e-4, atol=1e-5)
        pooled = features.mean(dim=0)
        cosines = torch.stack([pooled @ c / (pooled.norm() * c.norm()) for c in class_features])
        torch.testing.assert_close(system.score(video, class_features)[index], cosines, rtol=1e-4, atol=1e-5)
        of_frames = torch.stack([(features @ c) / (features.norm(dim=1) * c.norm()) for c in class_features], dim=1)
        torch.testing.assert_close(system.score_frames(video, class_features)[index], of_frames, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(system.embed(video)[index], pooled, rtol=1e-4, atol=1e-5)
    assert float(system.logit_scale) == pytest.approx(1 / 0.07, rel=1e-5)


@torch.no_grad()
def test_the_scale_is_the_exponential_of_the_trained_parameter(system):
    system.towers.logit_scale.fill_(math.log(50))
    assert float(system.logit_scale) == pytest.approx(50)


@torch.no_grad()
def test_features_in_the_place_of_clips_skip_the_image_tower(system, frames, class_features):
    video = system.encode(frames)
    expected = system.score(video, class_features)
    system.towers.visual = None
    found = system.score(system.video_of(Batch(features=video.frames)), class_features)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert system.video_of(Batch(features=video.frames.half())).frames.dtype == torch.float32


@torch.no_grad()
def test_joint_attention_gives_one_feature_a_clip(tiny_clip_config, frames, class_features):
    clip = CLIP(replace(tiny_clip_config, joint_frames=3))
    system = PlainCLIP(clip, MeanPooling(), FixedClasses(class_features)).eval()
    video = system.encode(frames)
    assert video.frames.shape == (2, 1, 64)
    assert system.score(video, class_features).shape == (2, 7)
    assert system.not_averaged == ("visual.time_embedding",)
    assert clip.fixed_frames == 3


def test_a_step_is_cross_entropy_and_trains_the_image_tower(system, frames, class_features, draws):
    labels = torch.tensor([0, 2])
    system.train().towers.drop_text()
    losses = system(Batch(clips=frames, labels=labels), draws)
    assert losses.reported.keys() == {"ce", "logit_scale"}
    assert torch.equal(losses.reported["ce"], losses.total.detach())
    features = torch.stack([system.towers.encode_clips(clip[None])[0].mean(dim=0) for clip in frames])
    scores = system.towers.logit_scale.exp() * F.cosine_similarity(features[:, None], class_features[None], dim=-1)
    torch.testing.assert_close(losses.total, F.cross_entropy(scores, labels), rtol=1e-4, atol=1e-5)
    assert not any(value.requires_grad for value in losses.reported.values())
    losses.total.backward()
    assert all(parameter.grad.any() for parameter in system.parameters())


def test_cached_features_train_the_head_as_clips_do(tiny_clip, class_features, frames, draws):
    torch.manual_seed(0)
    system = PlainCLIP(tiny_clip, TemporalTransformer(64, 1, 1), FixedClasses(class_features))
    with torch.no_grad():
        features = system.encode(frames).frames
    labels = torch.tensor([0, 2])
    totals = [system(batch, draws).total for batch in (Batch(frames, labels=labels), Batch(None, features, labels))]
    torch.testing.assert_close(totals[0], totals[1])


def test_groups_are_all_parameters_towers_first_in_the_order_of_the_model(tiny_clip, class_features):
    head = TemporalTransformer(64, 1, 1)
    system = PlainCLIP(tiny_clip, head, FixedClasses(class_features), solver=SolverConfig(clip_ratio=0.07))
    towers, of_head = system.groups()
    assert [(group.name, group.lr_ratio) for group in (towers, of_head)] == [("clip", 0.07), ("head", 1.0)]
    assert [id(p) for p in towers.parameters] == [id(p) for p in tiny_clip.parameters()]
    assert [id(p) for p in of_head.parameters] == [id(p) for p in head.parameters()]
    in_model = [id(p) for p in system.parameters()]
    assert [id(p) for group in (towers, of_head) for p in group.parameters] == in_model


def test_blocks_are_those_of_towers_and_head(tiny_clip, class_features):
    head = TemporalTransformer(64, 3, 1)
    system = PlainCLIP(tiny_clip, head, FixedClasses(class_features))
    assert len(system.blocks()) == 2 + 2 + 3
    assert set(head.transformer.resblocks) <= set(system.blocks())


def test_a_plain_system_has_no_other_form_in_tests_and_remembers_nothing(system, class_features):
    before = dict(system.named_modules())
    state = {name: value.clone() for name, value in system.state_dict().items()}
    with system.for_tests():
        assert dict(system.named_modules()) == before
    system.remember(class_features)
    assert system.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in system.state_dict().items())
    assert system.fewest_classes == 1


# --- clips with padding


@torch.no_grad()
def test_padding_is_zero_in_what_the_image_tower_sees(system, frames):
    lengths = torch.tensor([2, 3])
    images = system.towers.normalised(frames, lengths).unflatten(0, (2, 3))
    assert not images[0, 2].any()
    rest = torch.tensor([[True, True, False], [True, True, True]])
    assert torch.equal(images[rest], system.towers.normalised(frames).unflatten(0, (2, 3))[rest])
    zeros = system.towers.encode_image(torch.zeros(1, 3, 32, 32))
    found = system.video_of(Batch(clips=frames, lengths=lengths)).frames
    torch.testing.assert_close(found[0, 2:], zeros)
    assert not torch.allclose(system.video_of(Batch(clips=frames)).frames[0, 2:], zeros)


def test_padding_of_mixed_clips_is_the_mean_colour(system, frames, draws):
    taken = []
    system.solver, system.loss = SolverConfig(mixup=1.0), lambda batch, draws: taken.append(batch)
    lengths, labels = torch.tensor([2, 1]), torch.tensor([0, 1])
    state = draws.generator.get_state()
    black = frames.masked_fill((torch.arange(3) >= lengths[:, None])[..., None, None, None], 0)
    system(Batch(clips=black, labels=labels, lengths=lengths), draws)
    draws.generator.set_state(state)
    system(Batch(clips=frames, labels=labels), draws)
    padded, whole = taken
    assert padded.lengths is None
    assert torch.equal(padded.clips[:, 0], whole.clips[:, 0])  # no padding in either
    images = system.towers.normalised(padded.clips).unflatten(0, (2, 3))
    torch.testing.assert_close(images[:, 2], torch.zeros_like(images[:, 2]), atol=1e-6, rtol=0)  # in both
    share = padded.shares[0, 0]  # the first clip has a picture here, the second has none
    expected = share * system.towers.normalised(frames)[1]
    torch.testing.assert_close(images[0, 1], expected, atol=1e-5, rtol=0)
