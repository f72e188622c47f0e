"""Bad input: one line that names the thing, before any training step; broken videos: named, never hidden."""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import train
from modules.build import load_config

EPOCH = ["--precision", "fp32", "solver.epochs=1"]


@pytest.fixture(scope="module")
def weights(debug_config, tmp_path_factory) -> Path:
    """Checkpoint of one epoch on the debug data."""
    runs = tmp_path_factory.mktemp("runs")
    train.main(["--config", str(debug_config), "--log_time", "first", *EPOCH, f"data.output_path={runs}"])
    return runs / "debug" / "tiny_clip" / "first" / "last_model.pt"


@pytest.fixture(scope="module")
def bad(debug_data, weights, tmp_path_factory) -> Path:
    """Folder of files with one mistake each."""
    folder = tmp_path_factory.mktemp("bad files")
    lines = (debug_data / "train.txt").read_text().splitlines(keepends=True)
    (folder / "unparsable.txt").write_text("".join([*lines[:2], "train 02.mp4 two\n", *lines[3:]]))
    (folder / "outside.txt").write_text("".join([*lines[:4], "train 04.mp4 4\n", *lines[5:]]))
    (folder / "empty.txt").write_text("\n")
    (folder / "three.csv").write_text("id,name\n0,a\n1,b\n3,c\n")
    names = ["a bar moving left", "a bar moving right", "a bar moving up", "spinning " * 80]
    (folder / "long.csv").write_text("id,name\n" + "".join(f"{label},{name}\n" for label, name in enumerate(names)))
    content = weights.read_bytes()
    (folder / "empty.pt").write_bytes(b"")
    (folder / "text.pt").write_text("hello, this is not a checkpoint\n")
    (folder / "yaml.pt").write_text("data:\n  dataset: debug\n")
    (folder / "cut.pt").write_bytes(content[: len(content) // 2])
    (folder / "video.pt").write_bytes((debug_data / "videos" / "val 00.mp4").read_bytes())
    (folder / "not yaml.yaml").write_text("data: [1, 2\n")
    (folder / "list.yaml").write_text("- data\n")
    (folder / "base.yaml").write_text("base: gone.yaml\n")
    checkpoint = torch.load(weights, weights_only=True)
    torch.save([1, 2], folder / "a list.pt")
    torch.save({"state_dict": {}}, folder / "other keys.pt")
    torch.save(checkpoint["model_state_dict"] | {"class_names": ["a"]}, folder / "values.pt")
    head = checkpoint["fusion_model_state_dict"]
    for name, part in (("nan", head), ("nan classes", head), ("infinite", checkpoint["model_state_dict"])):
        tensor = part["spe_cls_feature" if "classes" in name else next(iter(part))].view(-1)
        before = tensor[0].item()
        tensor[0] = float("inf" if name == "infinite" else "nan")
        torch.save(checkpoint, folder / f"{name}.pt")
        tensor[0] = before
    torch.save(checkpoint | {"args": argparse.Namespace(lr=1)}, folder / "namespace.pt")
    torch.save(checkpoint | {"best_acc": np.float64(1)}, folder / "numpy.pt")
    flipped = bytearray(content)
    flipped[content.index(head["frame_position_embeddings.weight"].numpy().tobytes())] ^= 1
    (folder / "flipped.pt").write_bytes(flipped)
    (folder / "page.pt").write_text("<!DOCTYPE html><html>not found</html>")
    (folder / "pointer.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    head["frame_position_embeddings.weight"] = head["frame_position_embeddings.weight"][:10]
    torch.save(checkpoint, folder / "shape.pt")
    head["extra.weight"] = torch.zeros(1)
    del head["frame_position_embeddings.weight"]
    torch.save(checkpoint, folder / "keys.pt")
    return folder


# What is wrong -> overrides, the error, and what it must say. {bad} and {weights} stand for paths.
DATA_ERRORS = {
    "missing list": (["data.val_list={bad}/none.txt"], FileNotFoundError, r"data\.val_list .*none\.txt"),
    "missing root": (["data.val_root={bad}/nowhere"], FileNotFoundError, r"data\.val_root .*nowhere"),
    "missing label file": (["data.label_list={bad}/none.csv"], FileNotFoundError, r"data\.label_list .*none\.csv"),
    "no list given": (["data.val_list="], ValueError, r"data\.val_list is not set"),
    "no label file given": (["data.label_list="], ValueError, r"data\.label_list is not set"),
    "unparsable line": (["data.val_list={bad}/unparsable.txt"], ValueError, r"unparsable\.txt:3: .*'train 02.mp4 two'"),
    "label outside": (["data.val_list={bad}/outside.txt"], ValueError, r"outside\.txt:5: label 4 is outside the 4"),
    "empty list": (["data.val_list={bad}/empty.txt"], ValueError, r"data\.val_list .*empty\.txt: the list is empty"),
    "other modality": (["data.modality=RGB"], ValueError, r"val\.txt:1|train\.txt:1"),
    "ids with a gap": (["data.label_list={bad}/three.csv", "data.num_classes=0"], ValueError, r"three\.csv:4: ids"),
    "num_classes": (["data.num_classes=5"], ValueError, r"data\.num_classes is 5, but .*labels\.csv holds 4"),
    "long class name": (["data.label_list={bad}/long.csv"], ValueError, r"label 3, 'spinning spinning"),
    "unknown key": (["data.batchsize=4"], ValueError, r"unknown key data\.batchsize; the nearest is data\.batch_size"),
    "unknown section": (["solvr.lr=1"], ValueError, r"unknown key solvr; the nearest is solver"),
    "misspelt key": (["network.temporal_layers=1"], ValueError, r"network\.temporal_layers; .*temporal_layer"),
    "word for a number": (["data.batch_size=four"], ValueError, r"data\.batch_size: expected int, found 'four'"),
    "fraction": (["data.num_segments=4.5"], ValueError, r"data\.num_segments: expected int, found 4\.5"),
    "word for a rate": (["solver.lr=fast"], ValueError, r"solver\.lr: expected float, found 'fast'"),
    "number for a switch": (["data.random_shift=2"], ValueError, r"data\.random_shift: expected bool, found 2"),
    "unknown choice": (["network.sim_header=LSTM"], ValueError, r"network\.sim_header: expected one of Transf, .*None"),
    "value for a section": (["data=3"], ValueError, r"data: expected keys, found 3"),
    "unknown templates": (["network.templates=mine"], ValueError, r"network\.templates: .*mote28.*'mine'"),
    "not an override": (["data.workers"], ValueError, r"'data\.workers': expected section\.key=value"),
    "override not YAML": (["data.dataset=[1"], ValueError, r"data\.dataset"),
    "override with a reserved sign": (["data.val_root=@videos"], ValueError, r"data\.val_root"),
    "missing CLIP": (["network.arch={bad}/none.pt"], FileNotFoundError, r"network\.arch .*none\.pt"),
    "CLIP of text": (["network.arch={bad}/text.pt"], ValueError, r"text\.pt"),
    "empty CLIP": (["network.arch={bad}/empty.pt"], ValueError, r"empty\.pt"),
    "CLIP of other content": (["network.arch={bad}/a list.pt"], ValueError, r"a list\.pt"),
    "checkpoint as CLIP": (["network.arch={weights}"], ValueError, r"last_model\.pt: not a CLIP"),
    "other input size": (["data.input_size=48"], ValueError, r"data\.input_size is 48, but .*takes 32"),
    "joint attention with a head": (["network.joint_st=True"], ValueError, r"network\.joint_st .*sim_header"),
}  # fmt: skip

# Checkpoints, by the file that is wrong or by the configuration that it does not fit.
CHECKPOINT_ERRORS = {
    "missing": ("{bad}/none.pt", [], FileNotFoundError, r"none\.pt: no such file"),
    "a folder": ("{bad}", [], FileNotFoundError, r"bad files"),
    "empty": ("{bad}/empty.pt", [], ValueError, r"empty\.pt: not readable"),
    "text": ("{bad}/text.pt", [], ValueError, r"text\.pt: not readable"),
    "YAML": ("{bad}/yaml.pt", [], ValueError, r"yaml\.pt: not readable"),
    "a video": ("{bad}/video.pt", [], ValueError, r"video\.pt: not readable"),
    "cut": ("{bad}/cut.pt", [], ValueError, r"cut\.pt: not readable"),
    "a web page": ("{bad}/page.pt", [], ValueError, r"page\.pt: not readable \(a web page"),
    "a pointer": ("{bad}/pointer.pt", [], ValueError, r"pointer\.pt: not readable \(a pointer of git-lfs"),
    "a flipped bit": ("{bad}/flipped.pt", [], ValueError, r"flipped\.pt: not readable \(damaged.*check sum"),
    "a weight of NaN": ("{bad}/nan.pt", [], ValueError, r"nan\.pt: \S+ is not finite"),
    "an infinite weight": ("{bad}/infinite.pt", [], ValueError, r"infinite\.pt: \S+ is not finite"),
    "classes of NaN": ("{bad}/nan classes.pt", [], ValueError, r"nan classes\.pt: spe_cls_feature is not finite"),
    "an object": ("{bad}/namespace.pt", [], ValueError, r"namespace\.pt: .*argparse\.Namespace.*the safe way"),
    "a NumPy number": ("{bad}/numpy.pt", [], ValueError, r"numpy\.pt: .*numpy\._core\.multiarray\.scalar.*safe way"),
    "other content": ("{bad}/a list.pt", [], ValueError, r"a list\.pt: expected keys .*found list"),
    "other keys": ("{bad}/other keys.pt", [], ValueError, r"other keys\.pt: expected keys .*state_dict"),
    "CLIP alone": ("{clip}", [], ValueError, r"tiny_clip\.pt: found the weights of CLIP alone"),
    "other values": ("{bad}/values.pt", [], ValueError, r"values\.pt: found the weights of CLIP alone"),
    "other shape": ("{bad}/shape.pt", [], ValueError,
                    r"head\.frame_position_embeddings\.weight is \[10, 32\], .*\[77, 32\]"),
    "keys": ("{bad}/keys.pt", [], ValueError,
             r"missing head\.frame_position_embeddings\.weight; unexpected head\.extra\.weight"),
    "fewer layers": ("{weights}", ["network.temporal_layer=1"], ValueError, r"unexpected head\..*resblocks\.1"),
    "more layers": ("{weights}", ["network.temporal_layer=3"], ValueError, r"missing head\..*resblocks\.2"),
    "no experts": ("{weights}", ["network.num_experts=0"], ValueError, r"missing head\..*mlp\.c_fc"),
    "no head": ("{weights}", ["network.sim_header=None"], ValueError, r"unexpected head\."),
}  # fmt: skip


@pytest.fixture
def fill(bad, weights, debug_data) -> Callable[[list[str]], list[str]]:
    """Put the paths into the arguments of a case."""
    places = {"bad": bad, "weights": weights, "clip": debug_data / "tiny_clip.pt"}
    return lambda arguments: [argument.format(**places) for argument in arguments]


def assert_nothing_ran(runs: Path) -> None:
    """No run wrote a metric or a checkpoint."""
    assert not [path for path in runs.rglob("*") if path.name == "metrics.jsonl" or path.suffix == ".pt"]


def assert_one_line(message: str) -> None:
    assert "\n" not in message.strip()


@pytest.mark.parametrize("case", DATA_ERRORS)
def test_training_stops_before_the_first_step(debug_config, fill, tmp_path, case):
    overrides, error_type, message = DATA_ERRORS[case]
    with pytest.raises(error_type, match=message) as error:
        train.main(["--config", str(debug_config), f"data.output_path={tmp_path}", *fill(overrides)])
    assert_one_line(str(error.value))
    assert_nothing_ran(tmp_path)


@pytest.mark.parametrize("case", DATA_ERRORS)
def test_testing_stops_before_the_first_video(debug_config, weights, close_set, fill, tmp_path, case):
    overrides, error_type, message = DATA_ERRORS[case]
    with pytest.raises(error_type, match=message) as error:
        close_set(["--config", str(debug_config), "--weights", str(weights), "--output", str(tmp_path / "out"),
                   *fill(overrides)])  # fmt: skip
    assert_one_line(str(error.value))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train_list={bad}/none.txt", r"data\.train_list .*none\.txt"),
        ("data.train_root={bad}/nowhere", r"data\.train_root .*nowhere"),
        ("data.train_list={bad}/unparsable.txt", r"unparsable\.txt:3"),
        ("data.train_list={bad}/outside.txt", r"outside\.txt:5"),
        ("data.train_list={bad}/empty.txt", r"data\.train_list .*the list is empty"),
        ("data.batch_size=13", r"12 videos, fewer than one batch of 13 x 1"),
        ("solver.optim=lion", r"solver\.optim: expected one of adamw, adamw_transformers, adam, sgd, found 'lion'"),
        ("solver.type=step", r"solver\.type: expected one of cosine, multistep, timm_cosine, found 'step'"),
    ],
)
def test_mistakes_about_training_stop_it_before_the_first_step(debug_config, fill, tmp_path, override, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train.main(["--config", str(debug_config), f"data.output_path={tmp_path}", *fill([override])])
    assert_nothing_ran(tmp_path)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.batch_size=0", r"data\.batch_size"),
        ("data.batch_size=-4", r"data\.batch_size"),
        ("data.num_segments=0", r"data\.num_segments"),
        ("data.num_segments=78", r"data\.num_segments"),
        ("data.workers=-1", r"workers"),
        ("data.crop_area=[1.0, 0.08]", r"data\.crop_area"),
        ("logging.print_freq=0", r"logging\.print_freq"),
        ("logging.eval_freq=0", r"logging\.eval_freq"),
        ("solver.grad_accumulation_steps=0", r"solver\.grad_accumulation_steps"),
        ("solver.lr=-1", r"solver\.lr|learning rate"),
    ],
)
def test_a_number_that_cannot_work_is_named_before_the_first_step(debug_config, tmp_path, override, key):
    with pytest.raises(ValueError, match=key):
        train.main(["--config", str(debug_config), f"data.output_path={tmp_path}", override])
    assert_nothing_ran(tmp_path)


@pytest.mark.parametrize(
    ("name", "error_type", "message"),
    [
        ("none.yaml", FileNotFoundError, r"none\.yaml: no such file"),
        ("not yaml.yaml", ValueError, r"not yaml\.yaml:2: not YAML"),
        ("list.yaml", ValueError, r"list\.yaml: expected sections"),
        ("base.yaml", FileNotFoundError, r"gone\.yaml: no such file"),
        ("text.pt", ValueError, r"text\.pt"),
        ("video.pt", ValueError, r"video\.pt"),
    ],
)
def test_a_wrong_configuration_file_is_named(bad, close_set, weights, name, error_type, message):
    for main, arguments in ((train.main, []), (close_set, ["--weights", str(weights)])):
        with pytest.raises(error_type, match=message) as error:
            main(["--config", str(bad / name), *arguments])
        assert_one_line(str(error.value))


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is fine on CUDA")
def test_fp16_on_a_cpu_is_an_error(debug_config, weights, close_set, tmp_path):
    for main, arguments in ((train.main, []), (close_set, ["--weights", str(weights)])):
        with pytest.raises(ValueError, match="--precision fp16 needs a CUDA device"):
            main(["--config", str(debug_config), "--precision", "fp16", *arguments, f"data.output_path={tmp_path}"])
    assert_nothing_ran(tmp_path)


@pytest.mark.parametrize("case", CHECKPOINT_ERRORS)
def test_a_checkpoint_that_cannot_be_tested_is_explained(debug_config, close_set, fill, tmp_path, case):
    path, overrides, error_type, message = CHECKPOINT_ERRORS[case]
    with pytest.raises(error_type, match=message) as error:
        close_set(["--config", str(debug_config), "--output", str(tmp_path / "out"), "--weights", *fill([path]),
                   *overrides])  # fmt: skip
    assert_one_line(str(error.value))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", CHECKPOINT_ERRORS)
@pytest.mark.parametrize("key", ["pretrain", "resume"])
def test_a_checkpoint_that_cannot_be_trained_on_is_explained(debug_config, fill, tmp_path, key, case):
    path, overrides, error_type, message = CHECKPOINT_ERRORS[case]
    start = fill([f"{key}={path}"])
    with pytest.raises(error_type, match=message):
        train.main(["--config", str(debug_config), f"data.output_path={tmp_path}", *start, *overrides])
    assert_nothing_ran(tmp_path)


def test_resuming_without_training_state_points_to_pretrain(debug_config, weights, tmp_path):
    checkpoint = torch.load(weights, weights_only=True)
    released = {key: checkpoint[key] for key in ("epoch", "model_state_dict", "fusion_model_state_dict")}
    torch.save(released | {"optimizer_state_dict": {}}, tmp_path / "released.pt")
    with pytest.raises(ValueError, match=r"no training state.*pretrain"):
        train.main(
            ["--config", str(debug_config), f"resume={tmp_path}/released.pt", f"data.output_path={tmp_path}/runs"]
        )
    assert_nothing_ran(tmp_path / "runs")


def test_a_run_is_never_overwritten(debug_config, weights):
    folder = weights.parent
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match=r"first already holds a run.*--log_time.*resume="):
        train.main(["--config", str(debug_config), "--log_time", "first", f"data.output_path={folder.parents[2]}"])
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "arguments",
    [["--test_clips", "0"], ["--test_clips", "two"], ["--test_crops", "2"], ["--precision", "int8"], ["--fast"]],
)
def test_a_wrong_argument_ends_with_usage_and_its_name(debug_config, weights, close_set, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        close_set(["--config", str(debug_config), "--weights", str(weights), *arguments])
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("network", "temporal_layer", 3),
        ("eval", "weight_average", 0.5),
        ("mote", "modulation_classes", 3),
        ("data", "num_segments", 8),
        ("data", "input_size", 64),
    ],
)
def test_one_model_is_not_tested_on_configurations_of_two(
    debug_config, weights, zero_shot, tmp_path, section, key, value
):
    tree = yaml.safe_load(debug_config.read_text())
    tree[section] = tree.get(section, {}) | {key: value}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ValueError, match=rf"debug and other differ in .*{section}"):
        zero_shot(["--config", str(debug_config), str(tmp_path / "other.yaml"), "--weights", str(weights)])


# --- processes

COMMANDS = {
    "train.py": (["--config", "{bad}/none.yaml"], r"none\.yaml"),
    "test.py": (["--config", "{config}", "--weights", "{bad}/cut.pt"], r"cut\.pt"),
    "test_zeroshot.py": (["--config", "{config}", "--weights", "{weights}", "data.label_list={bad}/long.csv"],
                         r"spinning"),
    "train.py with a lost root": (
        ["--config", "{config}", "data.train_root={bad}", "data.output_path={bad}"], r"train_root|train \d\d\.mp4"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def processes(repo_root, bad, weights, debug_config) -> dict[str, subprocess.Popen]:
    """All of COMMANDS, started side by side: each spends most of its time on imports."""
    places = {"bad": bad, "weights": weights, "config": debug_config}
    return {
        case: subprocess.Popen(
            [sys.executable, repo_root / case.split()[0], *(argument.format(**places) for argument in arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for case, (arguments, _) in COMMANDS.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", COMMANDS)
def test_a_process_ends_with_one_line_and_a_status(processes, case):
    _, stderr = processes[case].communicate(timeout=120)
    last = stderr.strip().splitlines()[-1]
    assert processes[case].returncode != 0
    assert last.startswith("error: "), stderr[-1000:]
    assert re.search(COMMANDS[case][1], last)
    assert "Traceback" not in stderr


# --- broken videos


@pytest.fixture
def broken(debug_data, tmp_path) -> Path:
    """A folder with the debug videos, one empty file and one cut in half, beside them lists that name these."""
    for path in (debug_data / "videos").iterdir():
        (tmp_path / "videos" / path.name).parent.mkdir(exist_ok=True)
        (tmp_path / "videos" / path.name).symlink_to(path)
    (tmp_path / "videos" / "empty.mp4").write_bytes(b"")
    content = (debug_data / "videos" / "val 00.mp4").read_bytes()
    (tmp_path / "videos" / "cut in half.mp4").write_bytes(content[: len(content) // 2])
    return tmp_path


def write_list(folder: Path, lines: list[str]) -> list[str]:
    """Overrides that use the lines for training and testing."""
    (folder / "list.txt").write_text("\n".join(lines))
    return [f"data.{part}_{key}={folder / name}" for part in ("train", "val")
            for key, name in (("root", "videos"), ("list", "list.txt"))]  # fmt: skip


def val_lines(debug_data: Path) -> list[str]:
    return (debug_data / "val.txt").read_text().splitlines()


@pytest.fixture
def test_arguments(debug_config, weights, tmp_path) -> list[str]:
    return ["--config", str(debug_config), "--weights", str(weights), "--precision", "fp32", "--output", str(tmp_path),
            "--test_clips", "2"]  # fmt: skip


def test_a_broken_video_is_named_and_counts_as_wrong(debug_data, broken, close_set, test_arguments, capsys, caplog):
    good = val_lines(debug_data)
    whole = close_set([*test_arguments, *write_list(broken, good)])
    assert whole["failed_videos"] == []
    assert "unreadable" not in capsys.readouterr().out
    # The broken ones in the middle, with every label: whatever stood in for them would be right for one.
    added = [f"{name}.mp4 {label}" for label in range(4) for name in ("empty", "cut in half")]
    results = close_set([*test_arguments, *write_list(broken, [*good[:3], *added[:4], *good[3:], *added[4:]])])
    assert results["failed_videos"] == ["cut in half.mp4", "empty.mp4"]
    assert results["num_videos"] == 16
    for name in ("top1", "top5"):
        assert results[name] == pytest.approx(whole[name] / 2)
    assert json.loads((broken / "results.json").read_text()) == results
    assert re.search(r"unreadable.*cut in half\.mp4, empty\.mp4", capsys.readouterr().out)
    assert "empty.mp4" in caplog.text


def test_each_listed_failure_is_counted(debug_data, broken, close_set, test_arguments):
    results = close_set([*test_arguments, *write_list(broken, [*val_lines(debug_data), "empty.mp4 0", "empty.mp4 0"])])
    assert results["failed_videos"].count("empty.mp4") == 1
    assert results["num_videos"] == 10


def test_a_list_of_broken_videos_is_an_error(broken, close_set, zero_shot, test_arguments):
    for main in (close_set, zero_shot):
        with pytest.raises(ValueError, match="none of 2 videos could be read"):
            main([*test_arguments, *write_list(broken, ["empty.mp4 0", "cut in half.mp4 1"])])


def test_strict_makes_a_broken_video_an_error(debug_data, broken, close_set, test_arguments):
    close_set([*test_arguments, "--strict", *write_list(broken, val_lines(debug_data))])
    with pytest.raises(ValueError, match=r"--strict: 1 videos.*empty\.mp4"):
        close_set([*test_arguments, "--strict", *write_list(broken, [*val_lines(debug_data), "empty.mp4 0"])])


def train_on(debug_config: Path, folder: Path, lines: list[str]) -> Path:
    """Train one epoch of full batches on the lines; returns the run folder."""
    arguments = [*write_list(folder, lines), "data.batch_size=5", f"data.output_path={folder}"]
    train.main(["--config", str(debug_config), "--log_time", "run", *EPOCH, *arguments])
    return folder / "debug" / "tiny_clip" / "run"


def test_training_replaces_a_broken_video_says_so_and_goes_on(debug_config, debug_data, broken):
    run = train_on(debug_config, broken, [*val_lines(debug_data) * 3, "empty.mp4 0"])
    log = (run / "log.txt").read_text()
    assert re.search(r"unreadable, replaced.*empty\.mp4", log)
    assert re.search(r"1 of 25 videos of this epoch could not be read", log)
    assert (run / "last_model.pt").exists()


def test_training_stops_when_more_than_a_twentieth_is_broken(debug_config, debug_data, broken):
    lines = [*(val_lines(debug_data) * 3)[:23], "empty.mp4 0", "cut in half.mp4 1"]
    with pytest.raises((RuntimeError, ValueError), match=r"of 25 training videos could not be read, more than 5"):
        train_on(debug_config, broken, lines)
    assert not list(broken.rglob("last_model.pt"))


def test_the_debug_configuration_itself_is_fine(debug_config):
    assert load_config(debug_config).data.num_classes == 4
