"""Class means: unit features averaged by class, in a file that a training run takes as its classifier."""

import pytest
import torch

import train
from commands.weights import Weights
from modules.classes.vector_files import read_vectors
from tools.class_means import class_means, main

NAMES = ["left", "right"]


def test_a_class_is_the_mean_of_its_videos_unit_features():
    features = torch.tensor([[3.0, 0.0], [0.0, 5.0], [0.0, -2.0], [torch.nan, 1.0]])
    means = class_means(features, torch.tensor([1, 1, 0, 0]), NAMES)
    assert means.tolist() == [[0.0, -1.0], [0.5, 0.5]]  # the unreadable video does not count


def test_a_class_without_readable_video_is_an_error_that_names_it():
    features = torch.tensor([[3.0, 0.0], [torch.nan, 5.0]])
    with pytest.raises(ValueError, match="found none of 'right'"):
        class_means(features, torch.tensor([0, 1]), NAMES)


@pytest.fixture(scope="module")
def debug_means(debug_config, tmp_path_factory):
    path = tmp_path_factory.mktemp("means") / "new folder" / "means.npz"
    main(["--config", str(debug_config), "--out", str(path), "--precision", "fp32"])
    return path


def test_training_takes_the_file_as_its_classifier(debug_config, debug_means, tmp_path):
    overrides = ["network.system=text4vis", f"text4vis.classifier=file:{debug_means}", "solver.epochs=1"]
    config = ["--config", str(debug_config), "--log_time", "one", "--precision", "fp32"]
    train.main([*config, *overrides, f"data.output_path={tmp_path}"])
    (weights,) = tmp_path.rglob("last_model.pt")
    checkpoint = Weights(weights).checkpoint
    names = checkpoint["class_names"]
    vectors = next(value for value in checkpoint.values() if isinstance(value, dict) and "vectors" in value)["vectors"]
    assert torch.equal(vectors, read_vectors(debug_means, names, vectors.shape[1]))


def test_cached_features_are_refused(debug_config, tmp_path):
    with pytest.raises(ValueError, match=r"data.modality: expected pictures"):
        main(
            [
                "--config",
                str(debug_config),
                "--out",
                str(tmp_path / "m.npz"),
                "data.modality=features",
                "network.fix_video=True",
            ]
        )
