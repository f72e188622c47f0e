"""Checkpoints and CLIP files that are damaged, of another kind, or do not fit."""

import argparse
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tests.bad_inputs.kinds import Bad, Make, Places

HEAD, CLIP, OPTIMIZER = "fusion_model_state_dict", "model_state_dict", "optimizer_state_dict"


def of_bytes(change: Callable[[bytes], bytes]) -> Make:
    """A checkpoint file, its bytes changed."""

    def make(folder: Path, places: Places) -> None:
        (folder / "c.pt").write_bytes(change(places.weights.read_bytes()))

    return make


def of_content(change: Callable[[dict], object], name: str = "c.pt") -> Make:
    """A checkpoint, its content changed; ``change`` may work in place or return another object."""

    def make(folder: Path, places: Places) -> None:
        content = torch.load(places.weights, weights_only=True)
        changed = change(content)
        torch.save(content if changed is None else changed, folder / name)

    return make


def of_clip(change: Callable[[dict], object]) -> Make:
    """A CLIP file, its state dict changed."""

    def make(folder: Path, places: Places) -> None:
        state = torch.load(places.data / "tiny_clip.pt", weights_only=True)
        changed = change(state)
        torch.save(state if changed is None else changed, folder / "clip.pt")

    return make


def flip(content: bytes) -> bytes:
    """One bit of a tensor changed."""
    place = content.index(b"fusion_model_state_dict") // 2 + len(content) // 2
    return content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]


def first(part: str, value: Callable[[torch.Tensor], object]) -> Callable[[dict], None]:
    """Replaces the first tensor with at least two dimensions of a part; training classes may be any number."""

    def change(content: dict) -> None:
        tensors = content[part].items()
        name = next(name for name, tensor in tensors if tensor.ndim > 1 and name != "spe_cls_feature")
        content[part][name] = value(content[part][name])

    return change


def with_value(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A tensor with one entry replaced."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed.view(-1)[0] = value
        return changed

    return change


def drop_first(part: str) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        del content[part][next(iter(content[part]))]

    return change


def put(*path: str, value: object) -> Callable[[dict], None]:
    """Sets an entry."""

    def change(content: dict) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return change


def each_state(change: Callable[[dict], None]) -> Callable[[dict], None]:
    """Changes the optimizer's state of every parameter."""

    def apply(content: dict) -> None:
        for entry in content[OPTIMIZER]["state"].values():
            change(entry)

    return apply


def train_classes(content: dict) -> None:
    content[HEAD]["spe_cls_feature"][0, 0] = torch.nan


def object_of(content: dict) -> dict:
    return content | {"args": argparse.Namespace(lr=1.0)}


# Bytes of a checkpoint file.
BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda b: b"", ""),
    "one byte": (lambda b: b[:1], ""),
    "the first half": (lambda b: b[: len(b) // 2], ""),
    "without its last bytes": (lambda b: b[:-30], ""),
    "without its first bytes": (lambda b: b[100:], ""),
    "a bit flipped": (flip, "damaged|corrupt|check sum"),
    "zeros in the middle": (lambda b: b[: len(b) // 2] + bytes(4096) + b[len(b) // 2 + 4096 :],
                            "damaged|corrupt|check sum"),
    "text": (lambda b: b"hello\n" * 99, ""),
    "an error page": (lambda b: b"<!DOCTYPE html><html>404</html>", ""),
    "a pointer of git-lfs": (lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", ""),
    "YAML": (lambda b: b"data:\n  dataset: x\n", ""),
    "random bytes": (lambda b: np.random.default_rng(0).bytes(5000), ""),
    "a zip of something else": (lambda b: b"PK\x05\x06" + bytes(18), ""),
    "a plain pickle": (lambda b: b"\x80\x02}q\x00.", ""),
    "a pickle that calls": (lambda b: b"cos\nsystem\n(S'true'\ntR.", ""),
}  # fmt: skip

# Content of a checkpoint, for a test.
CONTENTS: dict[str, tuple[Callable[[dict], object], str]] = {
    "a list": (lambda c: [1, 2], "list"),
    "a number": (lambda c: 5, "int"),
    "nothing": (lambda c: {}, "expected keys"),
    "a state dict of something else": (lambda c: {"state_dict": {}}, "expected keys"),
    "CLIP alone": (lambda c: c[CLIP], "CLIP"),
    "weights that are a list": (put(CLIP, value=[1]), CLIP),
    "weights that are null": (put(HEAD, value=None), HEAD),
    "a key that is a number": (lambda c: c | {CLIP: {5: torch.zeros(1)}}, "5|name"),
    "a word among the weights": (put(HEAD, "spe_cls_feature", value="abc"), "spe_cls_feature"),
    "a list among the weights": (put(CLIP, "logit_scale", value=[1.0]), "logit_scale"),
    "a tensor missing": (drop_first(HEAD), "missing head"),
    "a tensor too many": (put(HEAD, "extra.weight", value=torch.zeros(1)), "unexpected head.extra"),
    "another shape": (first(HEAD, lambda t: t[:1]), "head"),
    "a scalar for a matrix": (first(CLIP, lambda t: t.sum()), "clip"),
    "NaN in the head": (first(HEAD, with_value(float("nan"))), "finite|NaN|nan"),
    "NaN in CLIP": (first(CLIP, with_value(float("nan"))), "finite|NaN|nan"),
    "infinity in the head": (first(HEAD, with_value(float("inf"))), "finite|inf"),
    "NaN in the training classes": (train_classes, "spe_cls_feature"),
    "integers": (first(HEAD, lambda t: t.long()), "head|int64|integer"),
    "switches": (first(HEAD, lambda t: t > 0), "head|bool"),
    "complex numbers": (first(HEAD, lambda t: t.to(torch.complex64)), "head|complex"),
    "a sparse tensor": (first(HEAD, lambda t: t.to_sparse()), "head|sparse"),
    "training classes of another width": (put(HEAD, "spe_cls_feature", value=torch.zeros(4, 7)), "spe_cls_feature"),
    "no training classes": (put(HEAD, "spe_cls_feature", value=torch.zeros(0, 32)), "spe_cls_feature"),
    "a parsed command line": (object_of, r"argparse\.Namespace"),
    "a NumPy number": (lambda c: c | {"best_acc": np.float64(3)}, r"scalar|numpy"),
    "other weights under the names": (lambda c: c | {HEAD: {}}, "missing head"),
}  # fmt: skip

# Content of a checkpoint that a run is to be resumed from.
STATES: dict[str, tuple[Callable[[dict], object], str]] = {
    "no optimizer": (put(OPTIMIZER, value={}), "pretrain"),
    "an optimizer that is a list": (put(OPTIMIZER, value=[1]), OPTIMIZER + "|optimizer"),
    "no groups": (put(OPTIMIZER, "param_groups", value=[]), "optimizer"),
    "groups that are numbers": (put(OPTIMIZER, "param_groups", value=[1, 2]), "optimizer"),
    "a state that is a list": (put(OPTIMIZER, "state", value=[1]), "optimizer"),
    "moments of other shapes": (each_state(lambda e: e.update(exp_avg=torch.zeros(3))), "exp_avg"),
    "moments that are words": (each_state(lambda e: e.update(exp_avg="abc")), "exp_avg"),
    "moments missing": (each_state(lambda e: e.pop("exp_avg_sq")), "exp_avg_sq"),
    "moments that are NaN": (each_state(lambda e: e["exp_avg"].fill_(torch.nan)), "exp_avg"),
    "negative squares": (each_state(lambda e: e["exp_avg_sq"].fill_(-1.0)), "exp_avg_sq"),
    "integer moments": (each_state(lambda e: e.update(exp_avg=e["exp_avg"].long())), "exp_avg"),
    "a negative count": (each_state(lambda e: e.update(step=torch.tensor(-5.0))), "step"),
    "a count that is NaN": (each_state(lambda e: e.update(step=torch.tensor(torch.nan))), "step"),
    "a negative step": (put("step", value=-1), "step"),
    "a step beyond the epoch": (put("step", value=10**9), "step"),
    "a step in words": (put("step", value="three"), "step"),
    "a step that is a fraction": (put("step", value=1.5), "step"),
    "a step that is a switch": (put("step", value=True), "step"),
    "a negative epoch": (put("epoch", value=-5), "epoch"),
    "an absurd epoch": (put("epoch", value=10**12), "epoch"),
    "an epoch in words": (put("epoch", value="one"), "epoch"),
    "no step": (lambda c: c.pop("step") * 0 or None, "training state|step"),
    "a best score that is NaN": (put("best_top1", value=float("nan")), "best_top1"),
    "a best score in words": (put("best_top1", value="high"), "best_top1"),
    "a loss scale in words": (put("scaler_state_dict", value="x"), "scaler"),
    "a parameter too many": (lambda c: c[OPTIMIZER]["param_groups"][0]["params"].append(999), "optimizer"),
}  # fmt: skip

# State dict of a CLIP file.
CLIPS: dict[str, tuple[Callable[[dict], object], str]] = {
    "a list": (lambda s: [1, 2], "list"),
    "nothing": (lambda s: {}, "not a CLIP"),
    "no image tower": (lambda s: {k: v for k, v in s.items() if not k.startswith("visual.")}, "visual"),
    "no text tower": (lambda s: {k: v for k, v in s.items() if k.startswith("visual.")}, "missing"),
    "a tensor missing": (lambda s: s.pop("visual.ln_post.weight") is None, "visual.ln_post.weight|bool"),
    "a tensor too many": (lambda s: s.update({"visual.extra": torch.zeros(1)}), "visual.extra"),
    "another shape": (lambda s: s.update({"visual.proj": s["visual.proj"][:3]}), "visual.proj|visual"),
    "a flat patch embedding": (lambda s: s.update({"visual.conv1.weight": torch.zeros(8)}), "visual.conv1|clip.pt"),
    "positions that are no square": (
        lambda s: s.update({"visual.positional_embedding": torch.zeros(12, 64)}), "positional|clip.pt"
    ),
    "a word for a tensor": (lambda s: s.update({"visual.proj": "x"}), "visual.proj"),
    "a key that is a number": (lambda s: s.update({5: torch.zeros(1)}), "5|name|clip.pt"),
    "NaN": (lambda s: s["visual.proj"].fill_(torch.nan) is None, "visual.proj|bool"),
    "infinity": (lambda s: s.update({"logit_scale": torch.tensor(torch.inf)}), "logit_scale"),
    "integers": (lambda s: s.update({"visual.proj": torch.zeros(64, 32, dtype=torch.long)}), "visual.proj"),
    "ResNet names": (lambda s: {"visual.layer1.0.conv1.weight": torch.zeros(1, 1, 1, 1), **s}, "visual.layer1"),
}  # fmt: skip


def _safetensors(tensors: dict, metadata: dict | None):
    def make(folder: Path, _: Places) -> None:
        save_file(tensors, folder / "m.safetensors", metadata)

    return make


def _raw_safetensors(header: bytes, length: int | None = None, rest: bytes = b""):
    def make(folder: Path, _: Places) -> None:
        size = struct.pack("<Q", len(header) if length is None else length)
        (folder / "m.safetensors").write_bytes(size + header + rest)

    return make


OVERLAP = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                      "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}).encode()  # fmt: skip
SAFETENSORS: dict[str, Make] = {
    "an absurd length": _raw_safetensors(b"{}", length=2**62),
    "a header that is no JSON": _raw_safetensors(b"{not json}"),
    "a header that is a list": _raw_safetensors(b"[1, 2]"),
    "overlapping tensors": _raw_safetensors(OVERLAP, rest=bytes(24)),
    "tensors beyond the end": _raw_safetensors(OVERLAP, rest=bytes(8)),
    "an unknown type": _raw_safetensors(b'{"a":{"dtype":"Q9","shape":[1],"data_offsets":[0,4]}}', rest=bytes(4)),
    "a negative shape": _raw_safetensors(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', rest=bytes(4)),
    "nothing": _raw_safetensors(b""),
    "tensors of something else": _safetensors({"weight": torch.zeros(2)}, {"mote": "{}"}),
    "no facts": _safetensors({"clip.x": torch.zeros(2)}, None),
    "facts that are no JSON": _safetensors({"clip.x": torch.zeros(2)}, {"mote": "{"}),
    "facts that are a list": _safetensors({"clip.x": torch.zeros(2)}, {"mote": "[1]"}),
    "deep facts": _safetensors({"clip.x": torch.zeros(2)}, {"mote": "[" * 100_000}),
    "a configuration that is a list": _safetensors({"clip.x": torch.zeros(2)}, {"mote": '{"config": [1]}'}),
    "class names that are a number": _safetensors({"clip.x": torch.zeros(2)}, {"mote": '{"class_names": 5}'}),
}


def _hub(config: str | None, with_weights: bool = True):
    def make(folder: Path, _: Places) -> None:
        (folder / "hub").mkdir()
        if with_weights:
            save_file({"clip.x": torch.zeros(1)}, folder / "hub" / "model.safetensors")
        if config is not None:
            (folder / "hub" / "config.json").write_text(config)

    return make


HUBS: dict[str, Make] = {
    "empty": _hub(None, with_weights=False),
    "no config.json": _hub(None),
    "no weights": _hub("{}", with_weights=False),
    "config.json that is no JSON": _hub("{"),
    "config.json that is a list": _hub("[]"),
    "config.json, config a word": _hub('{"config": "x"}'),
    "config.json, deep": _hub('{"config": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    "config.json with an unknown key": _hub('{"config": {"data": {"colour": 1}}}'),
}

TEST = ["--config", "{config}", "--output", "{w}/out", "--precision", "fp32"]
TRAIN = ["--config", "{config}", "--log_time", "x", "--precision", "fp32", "solver.epochs=2",
         "data.output_path={w}/runs"]  # fmt: skip
PREDICT = ["{data}/videos/val 00.mp4", "--labels", "a, b"]

MODEL_KINDS = (
    [Bad(f"checkpoint: {kind}", "test", [*TEST, "--weights", "{w}/c.pt"], rf"(?=.*c\.pt).*({says})", of_bytes(change))
     for kind, (change, says) in BYTES.items()]
    + [Bad(f"checkpoint: {kind}", "test", [*TEST, "--weights", "{w}/c.pt"], rf"(?=.*c\.pt).*({says})",
           of_content(change)) for kind, (change, says) in CONTENTS.items()]
    + [Bad(f"pretrain: {kind}", "train", [*TRAIN, "pretrain={w}/c.pt"], rf"(?=.*c\.pt).*({CONTENTS[kind][1]})",
           of_content(CONTENTS[kind][0])) for kind in ("a list", "another shape", "NaN in the head", "integers")]
    + [Bad(f"pretrain: {kind}", "train", [*TRAIN, "pretrain={w}/c.pt"], rf"(?=.*c\.pt).*({BYTES[kind][1]})",
           of_bytes(BYTES[kind][0])) for kind in ("empty", "the first half", "a bit flipped")]
    + [Bad(f"resume: {kind}", "train", [*TRAIN, "resume={w}/c.pt"], rf"(?=.*c\.pt).*({BYTES[kind][1]})",
           of_bytes(BYTES[kind][0])) for kind in ("empty", "the first half", "a bit flipped")]
    + [Bad(f"resume: {kind}", "train", [*TRAIN, "resume={w}/c.pt"], rf"(c\.pt|resume).*({says})|({says}).*c\.pt",
           of_content(change)) for kind, (change, says) in STATES.items()]
    + [Bad(f"CLIP: {kind}", "test", [*TEST, "--weights", "clip", "network.arch={w}/clip.pt"],
           rf"(?=.*clip\.pt).*({says})", of_clip(change)) for kind, (change, says) in CLIPS.items()]
    + [Bad(f"safetensors: {kind}", "predict", [*PREDICT, "--weights", "{w}/m.safetensors"], r"m\.safetensors", make)
       for kind, make in SAFETENSORS.items()]
    + [Bad(f"folder of the Hub: {kind}", "export", ["--weights", "{w}/hub", "--out", "{w}/out"], "hub", make)
       for kind, make in HUBS.items()]
    + [Bad(f"predict: checkpoint {kind}", "predict", [*PREDICT, "--weights", "{w}/c.pt"],
           rf"(?=.*c\.pt).*({BYTES[kind][1]})", of_bytes(BYTES[kind][0]))
       for kind in ("empty", "the first half", "a bit flipped")]
    + [Bad(f"export: checkpoint {kind}", "export", ["--weights", "{w}/c.pt", "--out", "{w}/out"],
           rf"(?=.*c\.pt).*({BYTES[kind][1]})", of_bytes(BYTES[kind][0]))
       for kind in ("empty", "the first half", "a bit flipped")]
    + [Bad("convert: a bit flipped", "tools.convert", ["{w}/c.pt", "{w}/o.pt", "--to", "ours"],
           r"(?=.*c\.pt).*(damaged|corrupt|check sum)", of_bytes(flip))]
)  # fmt: skip
