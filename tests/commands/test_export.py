"""export.py: what it writes computes what test.py tests, here and in a process without this repository."""

import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open

import export
from datasets.build import build_eval_loader
from datasets.read import read_data
from modules.build import build_classes, build_system, build_towers, load_config, load_system
from modules.formats.ours import read_checkpoint
from tools.make_debug_data import CLASS_NAMES
from utils.config import to_yaml
from utils.weights.four_keys import save_checkpoint
from utils.weights.model_files import is_hub_id, upload

OTHER_NAMES = ["a cat jumping", "a dog", "rain", "snow", "a red square", "nothing"]


@pytest.fixture(scope="module")
def config(debug_config):
    return load_config(debug_config, ["mote.modulation_temperature=0.5"])


@pytest.fixture(scope="module")
def weights(config, tmp_path_factory) -> Path:
    """A checkpoint of ours: every tensor differs from CLIP's and from its initialisation, experts from each other."""
    towers = build_towers(config.network, config.data.num_segments, config.data.input_size, config.seed)
    model = build_system(config, towers, build_classes(config, towers, CLASS_NAMES))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    content = {"epoch": 3, **model.weights(), "optimizer_state_dict": {"state": {}}}
    save_checkpoint(path, content | {"config": to_yaml(config), "class_names": CLASS_NAMES})
    return path


def load_tested(weights: str | Path, config, names: list[str]):
    """The model as test.py has it, and its class features."""
    towers = build_towers(config.network, config.data.num_segments, config.data.input_size, config.seed)
    classes = build_classes(config, towers, names)
    model = load_system(config, towers, classes, read_checkpoint(weights), str(weights)).eval()
    return model, classes.encode(towers)


@torch.no_grad()
def expected(weights: str | Path, config, names: list[str], frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    model, classes = load_tested(weights, config, names)
    scores = model.score(model.encode(frames), classes)
    return scores, (model.logit_scale * scores).softmax(dim=-1)


@pytest.fixture(scope="module")
def real_frames(config) -> torch.Tensor:
    """Clips of the debug set's videos, uint8 [B, T, 3, S, S]."""
    _, videos, *_ = read_data(config.data, ("val",))
    batch = next(iter(build_eval_loader(config.data, videos["val"], 0, 1, 1, 1)))
    frames = next(each for each in batch if isinstance(each, torch.Tensor) and each.dtype == torch.uint8)
    return frames.flatten(0, -5) if frames.ndim > 5 else frames


def run_elsewhere(script: str, folder: Path, *arguments: str) -> None:
    """Run Python code where this repository cannot be imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    guard = "import importlib.util as u; assert u.find_spec('modules') is None and u.find_spec('clip') is None\n"
    command = [sys.executable, "-c", guard + script, *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


RUN_PROGRAM = """
import sys, numpy as np, torch
inputs = np.load("inputs.npz")
outputs = torch.export.load(sys.argv[1]).module()(*[torch.from_numpy(inputs[name]) for name in inputs.files])
np.savez("outputs.npz", *[output.detach().numpy() for output in outputs])
"""
RUN_ONNX = """
import sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
np.savez("outputs.npz", *session.run(["logits", "probabilities"], dict(np.load("inputs.npz"))))
"""
RUNNERS = {"torch_export": RUN_PROGRAM, "onnx": RUN_ONNX}


@pytest.fixture(scope="module", params=list(RUNNERS))
def open_graph(request, weights, tmp_path_factory) -> tuple[str, Path]:
    """Format and file of a graph whose class features are an input."""
    out = tmp_path_factory.mktemp(request.param)
    return request.param, export.main(["--weights", str(weights), "--out", str(out), "--format", request.param])


def outputs_of(kind: str, path: Path, folder: Path, **inputs: torch.Tensor) -> list[torch.Tensor]:
    np.savez(folder / "inputs.npz", **{name: value.numpy() for name, value in inputs.items()})
    run_elsewhere(RUNNERS[kind], folder, str(path))
    return [torch.from_numpy(array) for array in np.load(folder / "outputs.npz").values()]


@pytest.mark.parametrize("num_frames", [1, 77])
def test_an_open_graph_computes_what_a_test_does_without_this_repository(
    open_graph, weights, config, real_frames, num_frames, tmp_path
):
    repeats = -(-num_frames // real_frames.shape[1])
    frames = real_frames[:2].repeat(1, repeats, 1, 1, 1)[:, :num_frames]
    frames = torch.cat([frames, torch.randint(256, frames.shape, dtype=torch.uint8)])
    logits, probabilities = expected(weights, config, OTHER_NAMES, frames)
    _, features = load_tested(weights, config, OTHER_NAMES)
    found = outputs_of(*open_graph, tmp_path, frames=frames, class_features=features)
    torch.testing.assert_close(found[0], logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(found[1], probabilities, rtol=0, atol=1e-4)


def test_modulation_and_the_merge_matter_to_these_tests(weights, config, real_frames):
    probabilities = expected(weights, config, OTHER_NAMES, real_frames)[1]
    unmodulated = {"mote": replace(config.sections["mote"], modulation=False)}
    changes = {"sections": unmodulated, "eval": replace(config.eval, weight_average=0.5)}
    for key, change in changes.items():
        other = replace(config, **{key: change})
        assert (expected(weights, other, OTHER_NAMES, real_frames)[1] - probabilities).abs().max() > 1e-3, key


@pytest.mark.parametrize("kind", RUNNERS)
def test_a_graph_with_labels_needs_frames_alone(kind, weights, config, real_frames, tmp_path):
    names = OTHER_NAMES[:2]  # fewer than modulation compares
    labels = ", ".join(names)
    path = export.main(["--weights", str(weights), "--out", str(tmp_path), "--format", kind, "--labels", labels])
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["class_names"] == names
    assert list(description["inputs"]) == ["frames"]
    found = outputs_of(kind, path, tmp_path, frames=real_frames)
    torch.testing.assert_close(found[1], expected(weights, config, names, real_frames)[1], rtol=0, atol=1e-4)


def test_an_open_graph_is_described_with_its_free_axes(open_graph):
    kind, path = open_graph
    description = json.loads((path.parent / "model.json").read_text())
    assert description["fewest_classes"] == 5
    assert "unit rows" in description["inputs"]["class_features"]
    if kind == "onnx":
        inputs = {each.name: each.type.tensor_type.shape.dim for each in onnx.load(path).graph.input}
        assert [axis.dim_param for axis in inputs["frames"][:2]] == ["batch", "frames"]
        assert inputs["class_features"][0].dim_param == "classes"


def test_a_merged_file_tests_like_the_original(weights, debug_config, config, tmp_path, repo_root):
    path = export.main(["--weights", str(weights), "--out", str(tmp_path / "merged")])
    with safe_open(path, "pt") as file:
        assert not [name for name in file.keys() if ".fc_up." in name]  # noqa: SIM118 - not a mapping
    test = runpy.run_path(str(repo_root / "test.py"))["main"]
    logits = {}
    for name, each in {"original": weights, "merged": path}.items():
        arguments = ["--config", str(debug_config), "--weights", str(each), "--output", str(tmp_path / name)]
        test([*arguments, "--precision", "fp32", "--save_logits", str(tmp_path / f"{name}.npz"),
              "mote.modulation_temperature=0.5"])  # fmt: skip
        logits[name] = np.load(tmp_path / f"{name}.npz")["view_logits"]
    np.testing.assert_allclose(logits["merged"], logits["original"], rtol=0, atol=1e-5)


def test_merging_a_merged_file_changes_nothing(weights, tmp_path):
    once = export.main(["--weights", str(weights), "--out", str(tmp_path / "once")])
    twice = export.main(["--weights", str(once), "--out", str(tmp_path / "twice")])
    first, second = read_checkpoint(once), read_checkpoint(twice)
    for part in ("model_state_dict", "fusion_model_state_dict"):
        assert first[part].keys() == second[part].keys()
        assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])


@pytest.fixture
def results(tmp_path, weights) -> Path:
    path = tmp_path / "results.json"
    result = {"dataset": "debug", "top1": 61.234, "top5": 90.0, "num_videos": 12, "num_clips": 4, "num_crops": 3,
              "dense": False, "fusion": "mean", "weights": str(weights), "precision": "fp32",
              "failed_videos": ["a.mp4"]}  # fmt: skip
    path.write_text(json.dumps(result))
    return path


def test_a_hub_folder_is_read_like_the_checkpoint_it_was_made_of(weights, config, results, real_frames, tmp_path):
    folder = export.main(
        ["--weights", str(weights), "--out", str(tmp_path / "hub"), "--format", "hub", "--results", str(results)]
    )
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    facts = json.loads((folder / "config.json").read_text(), parse_constant=pytest.fail)
    assert facts["config"]["data"]["train_root"] == ""  # nobody else's business
    assert facts["class_names"] == list(CLASS_NAMES)
    assert (facts["towers"]["image_size"], facts["towers"]["interpolation"]) == (32, "bicubic")
    found = expected(folder, config, OTHER_NAMES, real_frames)[0]
    torch.testing.assert_close(found, expected(weights, config, OTHER_NAMES, real_frames)[0], rtol=0, atol=1e-5)
    # Its configuration alone describes the model.
    again = export.main(["--weights", str(folder), "--out", str(tmp_path / "again"), "--format", "hub"])
    assert (again / "config.json").read_text() == (folder / "config.json").read_text()


def test_a_model_card_shows_the_given_figures(weights, results, tmp_path):
    arguments = ["--weights", str(weights), "--out", str(tmp_path / "hub"), "--format", "hub"]
    folder = export.main([*arguments, "--results", str(results)])
    card = (folder / "README.md").read_text()
    assert "| debug | 4 x 3 | 61.23 | 90.00 | 12 (1 unreadable) | mean | fp32 |" in card
    assert "value: 61.23" in card.split("---")[1]
    assert "None were given." in (export.main(arguments) / "README.md").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "a JSON list, expected an object"),
        ('{"top1": 1}', "damaged, missing dataset"),
        ("{", "not JSON"),
        (None, "no such file"),
    ],
)
def test_bad_results_are_an_error_that_names_the_file(content, message, weights, tmp_path):
    path = tmp_path / "bad.json"
    if content:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"bad.json: .*{message}"):
        export.main(["--weights", str(weights), "--out", str(tmp_path), "--format", "hub", "--results", str(path)])


def test_without_a_configuration_the_error_says_what_to_give(weights, config, tmp_path):
    content = read_checkpoint(weights)
    del content["config"]
    save_checkpoint(tmp_path / "released.pt", content)
    with pytest.raises(ValueError, match=r"released.pt carries no configuration, .*--config"):
        export.main(["--weights", str(tmp_path / "released.pt"), "--out", str(tmp_path)])


def test_a_missing_package_is_named_with_the_file_that_lists_it(weights, monkeypatch, tmp_path):
    monkeypatch.setattr("modules.graph.ONNX_PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(ValueError, match=r"needs no_such_package, .*requirements-export.txt"):
        export.main(["--weights", str(weights), "--out", str(tmp_path), "--format", "onnx"])


def test_an_upload_without_network_is_one_line(tmp_path, repo_root):
    script = "from pathlib import Path; from utils.weights.model_files import upload; upload(Path('.'), 'me/model')"
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_x", "PYTHONPATH": str(repo_root)}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ConnectionError: could not upload . to me/model (")
    assert "Connection refused" in last
    assert "HF_TOKEN" in last


def test_an_upload_sends_the_three_files_to_the_named_model(monkeypatch, tmp_path):
    calls = []

    class Hub:
        def create_repo(self, model, exist_ok):
            calls.append(("create", model, exist_ok))

        def upload_folder(self, repo_id, folder_path, allow_patterns):
            calls.append(("upload", repo_id, folder_path, sorted(allow_patterns)))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    upload(tmp_path, "me/model")
    files = ["README.md", "config.json", "model.safetensors"]
    assert calls == [("create", "me/model", True), ("upload", "me/model", tmp_path, files)]
    with pytest.raises(ValueError, match="expected owner/name"):
        upload(tmp_path, "model")
    assert is_hub_id("hf://me/model")
