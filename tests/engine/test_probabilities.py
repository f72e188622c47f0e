"""Probabilities and embeddings of views, by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.protocols.fusion import FUSIONS
from engine.protocols.probabilities import fuse_shown, rows_of
from modules.classes.base import FixedClasses
from modules.heads.mean import MeanPooling
from modules.systems.base import Batch
from modules.systems.clip import PlainCLIP
from utils.config import EvalConfig

SCALE = 3.0
CLASSES = torch.eye(5, 8)
MEAN, OF_FEATURES = (FUSIONS[name](EvalConfig()) for name in ("cosines", "features"))


@pytest.fixture
def rows() -> dict[str, Tensor]:
    """Of two videos with two crops of three clips, crop by crop; four frames, five classes."""
    torch.manual_seed(0)
    vectors = F.normalize(torch.randn(2, 6, 8), dim=-1)
    norms = torch.rand(2, 6) + 1
    return {
        "embeddings": vectors,
        "norms": norms,
        "scores": torch.randn(2, 6, 5),
        "frame_scores": torch.randn(2, 6, 4, 5),
    }


def test_probabilities_are_the_scaled_softmax_of_mean_scores(rows):
    shown = fuse_shown(rows, CLASSES, MEAN, torch.tensor(SCALE), num_crops=2, num_frames=4)
    assert (shown.probabilities.shape, shown.frame_probabilities.shape) == ((2, 5), (2, 3, 4, 5))
    for video in range(2):
        mean = sum(rows["scores"][video]) / 6
        torch.testing.assert_close(shown.probabilities[video], (SCALE * mean).exp() / (SCALE * mean).exp().sum())
        for clip in range(3):
            of_frames = (rows["frame_scores"][video, clip] + rows["frame_scores"][video, 3 + clip]) / 2
            expected = (SCALE * of_frames).softmax(dim=-1)
            torch.testing.assert_close(shown.frame_probabilities[video, clip], expected)
        vector = sum(rows["embeddings"][video])
        torch.testing.assert_close(shown.embeddings[video], vector / vector.norm())
        torch.testing.assert_close(shown.norms[video], sum(rows["norms"][video]) / 6)


def test_where_features_are_fused_the_probabilities_are_those_of_the_fused_feature(rows):
    rows["features"] = torch.randn(2, 6, 8)
    shown = fuse_shown(rows, CLASSES, OF_FEATURES, torch.tensor(SCALE), num_crops=2, num_frames=4)
    cosines = F.normalize(rows["features"].mean(dim=1), dim=-1) @ CLASSES.T
    torch.testing.assert_close(shown.probabilities, (SCALE * cosines).softmax(dim=-1))


def test_one_feature_a_clip_stands_for_all_its_frames(rows):
    rows["frame_scores"] = rows["frame_scores"][:, :, :1]
    shown = fuse_shown(rows, CLASSES, MEAN, torch.tensor(SCALE), num_crops=2, num_frames=4)
    assert shown.frame_probabilities.shape == (2, 3, 4, 5)
    assert torch.equal(shown.frame_probabilities[:, :, 0], shown.frame_probabilities[:, :, 3])


def test_without_classes_there_are_embeddings_alone(rows):
    rows = {name: rows[name] for name in ("embeddings", "norms")}
    shown = fuse_shown(rows, CLASSES, MEAN, torch.tensor(SCALE), num_crops=2, num_frames=4)
    assert (shown.probabilities.shape, shown.frame_probabilities.shape) == ((2, 0), (2, 3, 4, 0))
    torch.testing.assert_close(shown.embeddings.norm(dim=1), torch.ones(2))


@torch.no_grad()
def test_rows_are_what_the_system_says_of_each_clip(tiny_clip):
    classes = F.normalize(torch.randn(5, 64), dim=-1)
    system = PlainCLIP(tiny_clip, MeanPooling(), FixedClasses(classes)).eval()
    clips = torch.randint(256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    video = system.encode(clips)
    rows = rows_of(system, classes, MEAN)(Batch(clips=clips))
    torch.testing.assert_close(rows["embeddings"], F.normalize(video.frames.mean(dim=1), dim=-1))
    torch.testing.assert_close(rows["norms"], video.frames.mean(dim=1).norm(dim=-1))
    torch.testing.assert_close(rows["scores"], system.score(video, classes))
    torch.testing.assert_close(rows["frame_scores"], system.score_frames(video, classes))
    assert rows_of(system, classes[:0], MEAN)(Batch(clips=clips)).keys() == {"embeddings", "norms"}
