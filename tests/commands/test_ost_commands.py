"""OST and ViFi-CLIP through every command, from training on the debug data to a model elsewhere."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

import export
import extract_features
import predict
import train
from commands.classifier import VideoClassifier
from commands.weights import Weights
from datasets.features.embeddings import read_embeddings
from modules.formats.ours import read_checkpoint
from tools import convert, search, tradeoff

FP32 = ["--precision", "fp32"]
RECIPE = ["solver.epochs=1", "solver.lr_warmup_step=0", "solver.lr=1.e-3"]


@pytest.fixture(scope="module")
def config_of(debug_config, debug_descriptors, repo_root, tmp_path_factory):
    """The published settings of a system on the debug data."""

    def config_of(system: str) -> Path:
        tree = yaml.safe_load(debug_config.read_text())
        tree = {
            "base": str(repo_root / "configs" / "systems" / f"{system}.yaml"),
            "data": tree["data"],
            "network": {"arch": tree["network"]["arch"], "temporal_layer": 1},
            "ost": {"descriptors": str(debug_descriptors)},
        }
        path = tmp_path_factory.mktemp("config") / f"{system}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return config_of


@pytest.fixture(scope="module", params=["ost", "vificlip"])
def trained(request, config_of, tmp_path_factory) -> SimpleNamespace:
    """One epoch: ``system``, ``config``, ``weights``."""
    config, runs = config_of(request.param), tmp_path_factory.mktemp("runs")
    train.main(["--config", str(config), "--log_time", "one", *FP32, *RECIPE, f"data.output_path={runs}"])
    weights = runs / "debug" / "tiny_clip" / "one" / "last_model.pt"
    return SimpleNamespace(system=request.param, config=config, weights=str(weights))


@pytest.fixture(scope="module")
def video(debug_data) -> str:
    return str(debug_data / "videos" / "val 00.mp4")


def scores_of(main, path: Path, *arguments: object) -> tuple[dict, np.ndarray]:
    """Results of a test, and the scores that it saved."""
    results = main([*map(str, arguments), "--output", str(path), "--save_logits", str(path / "logits.npz"), *FP32])
    with np.load(path / "logits.npz") as saved:
        return results, saved["view_logits"]


def test_training_moves_both_towers(trained, debug_data):
    found = read_checkpoint(trained.weights)["model_state_dict"]
    start = torch.load(debug_data / "tiny_clip.pt", weights_only=True)
    still = {name for name, value in start.items() if torch.equal(found[name], value.float())}
    assert still == ({"token_embedding.weight"} if trained.system == "vificlip" else set())


def test_exported_and_converted_files_are_tested_alike(trained, close_set, tmp_path):
    _, expected = scores_of(close_set, tmp_path / "ours", "--weights", trained.weights)
    assert np.ptp(expected) > 0.01
    export.main(["--weights", trained.weights, "--out", str(tmp_path / "hub"), "--format", "hub"])
    file = export.main(["--weights", trained.weights, "--out", str(tmp_path / "file")])
    published, back = tmp_path / "published.pt", tmp_path / "back.pt"
    convert.main([trained.weights, str(published), "--to", trained.system])
    convert.main([str(published), str(back), "--to", "ours", "--config", str(trained.config)])
    for number, weights in enumerate([file, tmp_path / "hub", published, back]):
        arguments = ["--weights", weights, "--config", trained.config]
        _, found = scores_of(close_set, tmp_path / str(number), *arguments)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_zero_shot_and_the_sweep_of_averages_fuse_views_as_the_test_does(trained, close_set, zero_shot, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(f"base: {trained.config}\n")
    fixed = ["--weights", trained.weights, "--test_clips", "2", *FP32]
    sweep = tradeoff.main(
        ["--close", str(trained.config), "--zeroshot", str(other), "--alphas", "0,0.5", "--out", str(tmp_path), *fixed]
    )
    points = {point["weight_average"]: point for point in sweep["points"]}
    assert points.keys() == {0.0, 0.5}
    for average, point in points.items():
        arguments = [*fixed, "--output", str(tmp_path), f"eval.weight_average={average}"]
        results = zero_shot(["--config", str(other), *arguments])
        assert results["fusion"] == "softmax of scaled scores per view, sum over views"
        assert point["zero_shot_mean"] == pytest.approx(results["top1"])
        assert point["close_set"] == close_set(["--config", str(trained.config), *arguments])["top1"]


def test_own_videos_are_classified_embedded_and_searched(trained, video, tmp_path):
    arguments = ["--weights", trained.weights, *FP32]
    (found,) = predict.main([video, "--embed", str(tmp_path / "e.npz"), *arguments])
    assert set(found.scores) == {f"a bar moving {way}" for way in ("left", "right", "up", "down")}
    assert sum(found.scores.values()) == pytest.approx(1.0)
    ((path, cosine),) = search.main(["something bright", str(tmp_path / "e.npz"), *arguments])
    classifier = VideoClassifier.load(trained.weights, precision="fp32")
    assert cosine == pytest.approx(float(found.embedding @ classifier.query_feature("something bright").numpy()))
    assert path == video
    assert search.main(["something bright", video, *arguments]) == [(video, pytest.approx(cosine, abs=1e-6))]


def test_a_model_without_class_names_embeds(trained, video, tmp_path):
    predict.main(
        [video, "--weights", "clip", "--config", str(trained.config), "--embed", str(tmp_path / "e.npz"), *FP32]
    )
    assert read_embeddings(tmp_path / "e.npz").vectors.shape == (1, 32)


@pytest.mark.parametrize("trained", ["ost"], indirect=True)
def test_other_labels_need_descriptors_of_theirs(trained, video, tmp_path):
    arguments = [video, "--labels", "yoga,rowing", "--weights", trained.weights, *FP32]
    with pytest.raises(
        ValueError, match="describes 4 classes, but not 'yoga', 'rowing' of the 2 of the labels"
    ) as error:
        predict.main(arguments)
    assert "\n" not in str(error.value)
    classes = {name: {"static": [f"{name} mat"], "steps": [f"start {name}"]} for name in ("rowing", "yoga")}
    (tmp_path / "d.yaml").write_text(yaml.safe_dump({"classes": classes}))
    (found,) = predict.main([*arguments, f"ost.descriptors={tmp_path / 'd.yaml'}"])
    assert found.labels == ("yoga", "rowing")


@pytest.mark.slow
def test_a_graph_has_the_classes_in_it(trained, close_set, debug_data, tmp_path):
    arguments = ["--weights", trained.weights, "--format", "torch_export", "ost.iterations=4"]
    export.main([*arguments, "--labels", str(debug_data / "labels.csv"), "--out", str(tmp_path)])
    program = torch.export.load(tmp_path / "model.pt2").module()
    model = VideoClassifier.load(trained.weights, precision="fp32", overrides=["ost.iterations=4"])
    clips = torch.randint(256, (3, 5, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with torch.no_grad():
        expected = model.model.score(model.model.encode(clips), model.class_features(model.class_names))
        torch.testing.assert_close(program(clips)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("trained", ["ost"], indirect=True)
def test_descriptors_are_no_input_of_a_graph(trained, tmp_path):
    with pytest.raises(ValueError, match=r"the classes of ost are sets of descriptors, .*: give --labels$"):
        export.main(["--weights", trained.weights, "--format", "torch_export", "--out", str(tmp_path / "g")])
    assert not (tmp_path / "g").exists()


def test_cached_features_are_trained_on_and_tested_as_the_videos_are(trained, close_set, tmp_path):
    # Averaged weights would make features of another tower than training starts from, which is an error.
    arguments = ["--config", str(trained.config), "--weights", trained.weights, "eval.weight_average=1.0"]
    extract_features.main([*arguments, "--out", str(tmp_path / "cache"), *FP32])
    roots = [f"data.{part}_root={tmp_path / 'cache' / part}" for part in ("train", "val")]
    cached = ["data.modality=features", "network.fix_video=True", "solver.cutmix=0", *roots]
    _, expected = scores_of(close_set, tmp_path / "videos", *arguments)
    _, found = scores_of(close_set, tmp_path / "features", *arguments, *cached)
    np.testing.assert_allclose(found, expected, atol=2e-3)  # kept in fp16
    output = [f"data.output_path={tmp_path}", f"pretrain={trained.weights}"]
    train.main(["--config", str(trained.config), "--log_time", "cached", *FP32, *RECIPE, *cached, *output])
    before, after = (read_checkpoint(path)["model_state_dict"] for path in
                     (trained.weights, next(tmp_path.rglob("last_model.pt"))))  # fmt: skip
    is_moved = {name: not torch.equal(before[name], after[name]) for name in before}
    assert not any(moved for name, moved in is_moved.items() if name.startswith("visual."))
    assert is_moved["text_projection"]


@pytest.mark.parametrize(
    ("system", "name", "templates", "fusion"),
    [
        ("ost", "ost", "mote28", "softmax"),
        ("vificlip", "vificlip", "a photo of a {}.", "softmax"),
        ("text4vis", "text4vis", "single", "features"),
        ("mote", "clip", "mote28", ""),
    ],
)
def test_clip_s_own_weights_keep_the_system_s_pictures_classes_and_score(
    config_of, close_set, tmp_path, system, name, templates, fusion
):
    path = config_of(system)
    given, config = Weights("clip").config(path, []), Weights("clip").config(path, [f"network.system={system}"])
    assert given == config
    assert (config.network.system, config.network.sim_header) == (name, "None")
    assert (config.network.templates, config.eval.fusion) == (templates, fusion)
    assert config.data.transforms == {"ost": "vifi", "vificlip": "vifi", "text4vis": "text4vis", "mote": ""}[system]
    results, _ = scores_of(close_set, tmp_path, "--config", path, "--weights", "clip")
    assert results["num_videos"] == 8


@pytest.mark.parametrize(
    ("system", "override", "message"),
    [
        ("ost", "ost.descriptors=[]", r"ost\.descriptors: descriptors/ has no file for data\.dataset 'debug' \(it has"),
        ("ost", "ost.descriptors=gone.yaml", r"descriptors gone\.yaml: no such file"),
        (
            "ost",
            "network.class_text=sentences",
            r"class_text .* whose classes are descriptors, has none: set it to names",
        ),
        ("ost", "eval.fusion=features", r"eval\.fusion features compares with one vector a class, and ost with desc"),
        ("mote", "network.classes=descriptors", r"network\.classes descriptors: clip compares .* network\.system ost"),
        ("vificlip", "network.class_text=gone.yaml", r"descriptors gone\.yaml: no such file"),
        ("vificlip", "network.class_text=sentences", r"network\.class_text: sentences: descriptors/ has no file for"),
    ],
)
def test_settings_that_cannot_be_meant_are_one_line(config_of, close_set, tmp_path, system, override, message):
    path = config_of(system)
    arguments = ["--config", str(path), "--weights", "clip", "--output", str(tmp_path)]
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        close_set([*arguments, *FP32, override])
    assert "\n" not in str(error.value)
