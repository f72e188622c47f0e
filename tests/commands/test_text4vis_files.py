"""Checkpoints of Text4Vis, released and ours, given to the commands: what they bring is used, or an error says why."""

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

import export
import train
from commands.classifier import VideoClassifier
from modules.formats.ours import read_checkpoint
from modules.heads.transformer import TemporalTransformer

Main = Callable[[list[str]], dict]
PUBLISHED_KEYS = {
    "tm": False,
    "drop_out": 0.0,
    "type": "clip_k400",
    "sim_header": "Transf",
    "joint_st": False,
    "drop": 0,
}


@pytest.fixture(scope="module")
def close_set(repo_root) -> Main:
    """``test.main``; loaded by path, because Python has a package ``test`` of its own."""
    return runpy.run_path(str(repo_root / "test.py"))["main"]


@pytest.fixture(scope="module")
def config_path(debug_config, repo_root, tmp_path_factory) -> Path:
    """The debug data with the settings of Text4Vis."""
    tree = yaml.safe_load(debug_config.read_text())
    tree["network"], tree["solver"] = {"arch": tree["network"]["arch"]}, {"epochs": 1, "lr": 1.0e-3}
    tree["base"] = str(repo_root / "configs" / "systems" / "text4vis.yaml")
    path = tmp_path_factory.mktemp("config") / "text4vis.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="module")
def trained(config_path, tmp_path_factory) -> Callable[..., Path]:
    """``last_model.pt`` of a run with these overrides."""

    def trained(*overrides: str) -> Path:
        folder = tmp_path_factory.mktemp("runs")
        train.main(["--config", str(config_path), "--precision", "fp32", f"data.output_path={folder}", *overrides])
        return next(folder.rglob("last_model.pt"))

    return trained


@pytest.fixture(scope="module")
def linear(trained) -> Path:
    """Of a run whose classifier is learned."""
    return trained("text4vis.classifier=linear")


@pytest.fixture(scope="module")
def released(debug_data, tmp_path_factory) -> Callable[..., Path]:
    """Writes a released file of train.py around the debug data's CLIP, with names and tensors changed."""
    clip = torch.load(debug_data / "tiny_clip.pt", weights_only=True)
    state = {name: value for name, value in clip.items() if name.startswith(("visual.", "logit_scale"))}
    torch.manual_seed(0)
    head = TemporalTransformer(32, 6, 1).state_dict()
    state |= {f"fusion_model.{name}": value for name, value in head.items()}
    folder = tmp_path_factory.mktemp("released")

    def released(change: Callable[[dict], dict] = dict) -> Path:
        torch.save({"epoch": 3, "model_state_dict": change(state), "optimizer_state_dict": {}}, folder / "t.pt")
        return folder / "t.pt"

    return released


def run(main: Main, config: Path | None, weights: Path, output: Path, *overrides: str) -> tuple[dict, np.ndarray]:
    """Results and scores of a test."""
    arguments = ["--config", str(config)] if config else []
    arguments += ["--weights", str(weights), "--precision", "fp32", "--output", str(output)]
    results = main([*arguments, "--save_logits", str(output / "logits.npz"), *overrides])
    return results, np.load(output / "logits.npz")["scores"]


def wrapped(state: dict) -> dict:
    """Names as of a tower with tsm."""
    blocks = "visual.transformer.resblocks."
    parts = {name: name.removeprefix(blocks).partition(".") for name in state if name.startswith(blocks)}
    names = {name: f"{blocks}{number}.net.{rest}" for name, (number, _, rest) in parts.items()}
    return {names.get(name, name): value for name, value in state.items()}


def test_a_bare_published_file_gives_the_bits_of_the_base_file(released, config_path, close_set, tmp_path):
    tree = yaml.safe_load(config_path.read_text())
    del tree["base"]
    tree["data"]["seg_length"] = 1
    tree["network"] |= PUBLISHED_KEYS
    bare = tmp_path / "bare.yaml"
    bare.write_text(yaml.safe_dump(tree))
    weights = released()
    (results, scores), (expected, reference) = (
        run(close_set, config, weights, tmp_path) for config in (bare, config_path)
    )
    assert results == expected
    assert results["fusion"].startswith("mean")
    assert np.array_equal(scores, reference)


def test_without_a_text_tower_the_pretrained_one_is_taken(released, config_path, close_set, tmp_path, caplog):
    caplog.set_level("INFO")
    _, expected = run(close_set, config_path, released(), tmp_path)
    assert "brings no text tower" not in caplog.text  # it is dropped: nothing is missing
    _, scores = run(close_set, config_path, released(), tmp_path, "network.fix_text=false")
    assert np.allclose(scores, expected, atol=1e-6)
    assert f"{released()} brings no text tower: the pretrained one is taken" in caplog.text


def test_training_with_its_text_tower_starts_from_a_released_file_without_one(released, trained, debug_data):
    checkpoint = read_checkpoint(trained(f"pretrain={released()}", "network.fix_text=false", "solver.loss_type=NCE"))
    clip = torch.load(debug_data / "tiny_clip.pt", weights_only=True)
    moved = (checkpoint["model_state_dict"]["text_projection"] - clip["text_projection"]).abs()
    assert 0 < moved.max() < 0.01


ORDINARY, SHIFTED = "ordinary ones", "network.tm tsm"


@pytest.mark.parametrize(
    ("change", "overrides", "message"),
    [
        (dict, ["network.tm=tsm"], f"has the names of {ORDINARY}, expected those of {SHIFTED}"),
        (wrapped, [], f"has the names of {SHIFTED}, expected those of {ORDINARY}"),
        (wrapped, ["network.tm=tokent1d"], f"has the names of {SHIFTED}, expected those of network.tm tokent1d"),
        (dict, ["network.tm=true"], "network.tm: expected one of False, tsm, tokenshift, tokent1d for a ViT, found"),
        (dict, ["network.joint_st=true"], "missing clip.visual.time_embedding"),
        (lambda s: s | {"visual.time_embedding": torch.zeros(8, 64)}, ["network.joint_st=true"], r"is \[8, 64\], the"),
        (dict, ["network.sim_header='None'"], "unexpected head.frame_position_embeddings.weight"),
        (dict, ["text4vis.classifier=lda"], "lda is made from the training videos; train first"),
    ],
)
def test_what_does_not_fit_is_one_line(change, overrides, message, released, config_path, close_set, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        run(close_set, config_path, released(change), tmp_path, *overrides)
    assert "\n" not in str(caught.value)


def test_a_released_file_that_is_cut_short_is_named(released, config_path, close_set, tmp_path):
    path = tmp_path / "cut.pt"
    path.write_bytes(released().read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"cut\.pt: not readable \(damaged or cut short"):
        run(close_set, config_path, path, tmp_path)


@pytest.mark.parametrize("loss", ["NCE", "DS"])
def test_one_video_a_batch_is_refused_before_the_run_has_a_folder(loss, config_path, tmp_path):
    overrides = [f"solver.loss_type={loss}", "data.batch_size=1", f"data.output_path={tmp_path}"]
    with pytest.raises(ValueError, match=r"contrasts compare the videos of a batch.* raise data\.batch_size"):
        train.main(["--config", str(config_path), "--precision", "fp32", "--log_time", "one", *overrides])
    assert not list(tmp_path.rglob("log.txt"))


def test_more_classes_than_dimensions_are_refused_before_the_run_has_a_folder(config_path, debug_data, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("id,name\n" + "".join(f"{label},class {label}\n" for label in range(33)))
    overrides = [f"data.label_list={labels}", "data.num_classes=33", "text4vis.classifier=orthogonal"]
    with pytest.raises(ValueError, match=r"orthogonal has room for .* at most 32, found 33"):
        train.main(["--config", str(config_path), f"data.output_path={tmp_path}", *overrides])
    assert not list(tmp_path.rglob("log.txt"))


def test_a_classifier_goes_by_the_names_of_its_classes(linear, tmp_path):
    classifier = VideoClassifier.load(linear, precision="fp32")
    checkpoint = read_checkpoint(linear)
    vectors, names = checkpoint["classifier_state_dict"]["vectors"], checkpoint["class_names"]
    assert classifier.class_names == names
    assert torch.equal(classifier.class_features(names), F.normalize(vectors, dim=-1))
    assert torch.equal(classifier.class_features(names[::-1]), F.normalize(vectors.flip(0), dim=-1))
    assert torch.equal(classifier.class_features(names[1:2]), F.normalize(vectors[1:2], dim=-1))
    with pytest.raises(ValueError, match=r"knows the classes of its training only, not 'a dog'; text makes"):
        classifier.class_features([names[0], "a dog"])


def test_a_classifier_is_tested_with_its_checkpoint_alone_and_in_another_order(
    linear, config_path, close_set, tmp_path
):
    results, scores = run(close_set, None, linear, tmp_path)
    names = read_checkpoint(linear)["class_names"]
    labels = tmp_path / "labels.csv"
    labels.write_text("id,name\n" + "".join(f"{label},{name}\n" for label, name in enumerate(names[::-1])))
    _, turned = run(close_set, None, linear, tmp_path, f"data.label_list={labels}")
    assert np.array_equal(turned, scores[:, ::-1])
    labels.write_text("id,name\n" + "".join(f"{label},{name} again\n" for label, name in enumerate(names)))
    with pytest.raises(ValueError, match="the checkpoint's classifier knows the classes of its training only, not"):
        run(close_set, None, linear, tmp_path, f"data.label_list={labels}")
    assert results["top1"] >= 0


@pytest.mark.parametrize("kind", ["safetensors", "hub"])
def test_an_export_has_the_classifier(kind, linear, config_path, close_set, tmp_path):
    _, expected = run(close_set, None, linear, tmp_path)
    overrides = ["data.transforms=mote", "data.scale_size=40"]
    exported = export.main(["--weights", str(linear), "--out", str(tmp_path / "out"), "--format", kind, *overrides])
    content = read_checkpoint(exported)
    assert torch.equal(
        content["classifier_state_dict"]["vectors"], read_checkpoint(linear)["classifier_state_dict"]["vectors"]
    )
    data = yaml.safe_load(content["config"])["data"]
    assert (data["transforms"], data["scale_size"]) == ("mote", 40)
    _, scores = run(close_set, config_path, exported, tmp_path, "text4vis.classifier=linear")
    assert np.array_equal(scores, expected)


@pytest.mark.slow
def test_a_graph_has_the_classes_of_a_classifier_and_no_text_tower(trained, tmp_path):
    weights = trained("text4vis.classifier=prompt", "text4vis.prompt_length=2")
    path = export.main(["--weights", str(weights), "--out", str(tmp_path), "--format", "torch_export"])
    names = read_checkpoint(weights)["class_names"]
    description = yaml.safe_load((tmp_path / "model.json").read_text())
    assert (list(description["inputs"]), description["class_names"]) == (["frames"], names)
    program = torch.export.load(path)
    assert not [name for name in program.state_dict if "token_embedding" in name]
