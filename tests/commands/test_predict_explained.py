"""predict.py --plot with descriptors: which text of the most probable class takes which frame."""

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import predict
from commands.classifier import VideoClassifier
from engine.protocols.probabilities import explain_shown
from modules.scores import Explanation
from modules.transport import transport_plans
from tools.make_debug_data import CLASS_NAMES

NUM_FRAMES = 4


@pytest.fixture(scope="module")
def options(debug_config, tmp_path_factory) -> list[str]:
    """Overrides that make the debug configuration one of ost."""
    path = tmp_path_factory.mktemp("descriptors") / "d.yaml"
    classes = {name: {p: [f"{p} {n} of {name}" for n in range(3)] for p in ("static", "steps")} for name in CLASS_NAMES}
    path.write_text(yaml.safe_dump({"classes": classes}))
    system = ["network.system=ost", "network.sim_header=None", "solver.loss_type=contrast"]
    return [*system, f"ost.descriptors={path}", "data.workers=0"]


@pytest.fixture(scope="module")
def classifier(debug_config, options) -> VideoClassifier:
    return VideoClassifier.load("clip", debug_config, precision="fp32", overrides=options)


@pytest.fixture(scope="module")
def videos(debug_data) -> list[str]:
    return sorted(map(str, (debug_data / "videos").glob("val *.mp4")))[:2]


@pytest.mark.parametrize("names", [CLASS_NAMES, CLASS_NAMES[::-1]])
def test_the_plans_are_those_of_the_most_probable_class_and_of_the_frames_shown(classifier, videos, names):
    for prediction in classifier.stream(videos, names, num_clips=1, is_explained=True):
        images = torch.from_numpy(prediction.frames).permute(0, 3, 1, 2)[None]
        (best,) = dict(prediction.top(1))
        label = torch.tensor([names.index(best)])
        with torch.no_grad():
            frames = classifier.model.encode(images).frames
            plans = transport_plans(frames, classifier.class_features(names), label)[0, :, 0]
        assert [each.name for each in prediction.explanations] == ["static", "steps"]
        assert [each.texts for each in prediction.explanations] == [
            [f"{part} {number} of {best}" for number in range(3)] for part in ("static", "steps")
        ]
        found = torch.stack([each.shares for each in prediction.explanations])
        torch.testing.assert_close(found, NUM_FRAMES * plans, atol=1e-5, rtol=1e-4)


def test_shares_of_several_clips_are_in_the_order_of_time_as_frames_are(classifier, videos, monkeypatch):
    def explain(video, classes, encoded, label):
        return [Explanation("length", ["x"], video.frames.norm(dim=-1, keepdim=True))]

    monkeypatch.setattr(classifier.model, "explain", explain)
    (prediction,) = classifier.stream(videos[0], CLASS_NAMES, num_clips=3, is_explained=True)
    with torch.no_grad():
        frames = classifier.model.encode(torch.from_numpy(prediction.frames).permute(0, 3, 1, 2)[None]).frames
    (found,) = prediction.explanations
    torch.testing.assert_close(found.shares, frames[0].norm(dim=-1, keepdim=True), atol=1e-5, rtol=1e-4)


def test_crops_are_averaged_and_one_feature_a_clip_stands_for_all_its_frames():
    class Lengths(nn.Module):
        def explain(self, video, classes, encoded, label):
            return [Explanation("length", ["x"], video.frames.norm(dim=-1, keepdim=True))]

    frames = torch.tensor([1.0, 2.0, 3.0, 6.0]).view(4, 1, 1)  # 2 crops of 2 clips, crop-major
    (found,) = explain_shown(Lengths(), frames, None, torch.zeros(1, 1), 0, num_crops=2, num_frames=3)
    assert found.shares[..., 0].tolist() == [[2.0] * 3, [4.0] * 3]


def test_other_systems_explain_nothing_and_nothing_is_explained_unasked(classifier, debug_config, videos):
    plain = VideoClassifier.load("clip", debug_config, precision="fp32", overrides=["data.workers=0"])
    (prediction,) = plain.stream(videos[0], CLASS_NAMES, is_explained=True)
    assert prediction.explanations == ()
    assert classifier.predict(videos[0], CLASS_NAMES)[0].explanations == ()


def test_the_command_draws_a_second_picture(debug_config, options, videos, tmp_path):
    names = ",".join(f'"{name}"' for name in CLASS_NAMES)
    arguments = [videos[0], "--weights", "clip", "--config", str(debug_config), "--labels", names]
    predict.main([*arguments, "--plot", str(tmp_path), "--precision", "fp32", *options])
    stem = Path(videos[0]).stem
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{stem}.png", f"{stem}_frames.png"]
    assert Image.open(tmp_path / f"{stem}_frames.png").size[0] > 1000
