"""Models of open_clip: from a name to what it is made of, its rules of pictures, and its tensors.

``MODEL/PRETRAINED`` is a tag of open_clip's own list, ``hf-hub:OWNER/NAME`` a model on the Hub, ``local-dir:DIR`` a
folder like one of those: ``open_clip_config.json`` beside ``open_clip_model.safetensors``.
"""

import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from clip.released import OPENAI_MODELS, read_state
from clip.shapes import HEAD_WIDTH, POOLED, ClipWeights
from clip.tokenizer import CONTEXT_LENGTH
from utils.files import read_json
from utils.weights.files import one_line
from utils.weights.state_dicts import check_weights

LOCAL, HUB = "local-dir:", "hf-hub:"
CONFIG_FILE = "open_clip_config.json"
# Of a folder, the first that is there; the names that open_clip gives its files.
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
OPENAI = "openai"  # the tag of OpenAI's weights
RESIZES, INTERPOLATIONS = ("shortest", "squash"), ("bicubic", "bilinear")
# Parts of a description that the fast towers of ``clip.model`` read off the shapes; in all others they are alike.
SHAPES_OF_IMAGES = ("layers", "width", "head_width", "patch_size", "image_size", "mlp_ratio", "patch_dropout")
SHAPES_OF_TEXTS = ("context_length", "vocab_size", "width", "heads", "layers")
TEXT = "text."  # before the names of a text tower that is a module of its own


@dataclass(frozen=True)
class Described:
    """A model of open_clip, before its weights are read."""

    arch: str  # as given
    model: Mapping[str, Any]  # open_clip's description: embed_dim, vision_cfg, text_cfg, ...
    rules: Mapping[str, Any]  # of pictures: fields of ``TowerSpec`` by name
    find_weights: Callable[[], Path]  # downloads them where they are not there yet
    tokenizer: str  # name or folder of its tokenizer, where the description says that it is not CLIP's
    is_openai: bool = False

    @property
    def quick_gelu(self) -> bool:
        """Whether it was trained with OpenAI's GELU."""
        return bool(self.model.get("quick_gelu", False))

    @property
    def image_size(self) -> int:
        """Pixels along an edge of its pictures.

        Raises:
            ValueError: they are not square.
        """
        value = self.model["vision_cfg"].get("image_size", 224)
        sides = set(value) if isinstance(value, list | tuple) else {value}
        if len(sides) != 1 or not all(isinstance(side, int) and side > 0 for side in sides):
            expected = f"expected one number of pixels, found {json.dumps(value)}"
            raise ValueError(f"network.arch {self.arch}: image_size: {expected}")
        return sides.pop()

    @property
    def is_plain(self) -> bool:
        """Whether it is of the kind that OpenAI released, which the towers of ``clip.model`` compute."""
        from open_clip.model import CLIPTextCfg, CLIPVisionCfg

        # Pairs of (what is described, what CLIP is), without what shapes tell.
        for part, cls, shapes in (
            ("vision_cfg", CLIPVisionCfg, SHAPES_OF_IMAGES),
            ("text_cfg", CLIPTextCfg, SHAPES_OF_TEXTS),
        ):
            told = asdict(_described(cls, self.model[part], self.arch))
            usual = asdict(cls())
            if any(told[name] != usual[name] for name in usual if name not in shapes):
                return False
        if self.model.get("init_logit_bias") is not None:
            return False
        return self.model["text_cfg"].get("context_length", CONTEXT_LENGTH) <= CONTEXT_LENGTH

    def state(self) -> dict[str, Tensor]:
        """Its tensors in open_clip's names, plain and finite.

        Raises:
            FileNotFoundError, ConnectionError, ValueError: they cannot be had, or are no weights.
        """
        path = self.find_weights()
        state = {name: value for name, value in read_state(path).items() if not name.endswith("position_ids")}
        check_weights(state, str(path))
        return state


def describe(arch: str) -> Described | None:
    """What a name of open_clip stands for; None: it has another form.

    Raises:
        FileNotFoundError: no such folder, tag or model, or a name that lacks a part; names the nearest tags.
        ConnectionError: the Hub cannot be reached.
        ValueError: its description is not that of a pair of towers.
    """
    if arch.startswith(LOCAL):
        return _in_folder(arch, Path(arch.removeprefix(LOCAL)))
    if arch.startswith(HUB):
        return _on_hub(arch)
    if (Path(arch) / CONFIG_FILE).is_file():
        raise FileNotFoundError(f"network.arch {arch!r}: a folder of open_clip is given as {LOCAL}{arch}")
    model_name, _, tag = arch.rpartition("/")
    if Path(arch).suffix:
        return None
    return _tagged(arch, model_name, tag) if model_name else _without_tag(arch)


def plain_weights(found: Described) -> ClipWeights:
    """The weights of a model of OpenAI's kind, for ``clip.model``."""
    vision, text = found.model["vision_cfg"], found.model["text_cfg"]
    attends = vision.get("width", 768) * (POOLED if isinstance(vision.get("layers"), list) else 1)  # a ResNet's stages
    return ClipWeights(
        {name.removeprefix(TEXT): value for name, value in found.state().items()},
        activation="quick_gelu" if found.quick_gelu else "gelu",
        vision_heads=attends // vision.get("head_width", HEAD_WIDTH) or None,
        text_heads=text.get("heads", 8),
        rules=found.rules,
        is_openai=found.is_openai,
    )


def _tagged(arch: str, model_name: str, tag: str) -> Described:
    import open_clip

    if (model_name, tag) not in open_clip.list_pretrained():
        tags = open_clip.list_pretrained_tags_by_model(model_name)
        unknown = f"open_clip knows no such model; known without it: {', '.join(OPENAI_MODELS)}"
        hint = f"its tags are {', '.join(tags)}" if tags else unknown
        raise FileNotFoundError(f"network.arch {arch!r}: no such file or open_clip tag; {hint}{_nearest(arch)}")
    model = open_clip.get_model_config(model_name)
    told = open_clip.get_pretrained_cfg(model_name, tag)
    model["quick_gelu"] = told.get("quick_gelu", model.get("quick_gelu", False))  # the weights decide, not the name

    def find_weights() -> Path:
        try:
            return Path(open_clip.download_pretrained(told))
        except (OSError, RuntimeError) as error:
            raise ConnectionError(
                f"network.arch {arch!r}: could not be downloaded ({one_line(error)}); fetch "
                f"{told.get('hf_hub') or told.get('url')} elsewhere, and give its folder as {LOCAL}DIR"
            ) from error

    return _checked(arch, model, told, find_weights=find_weights, is_openai=tag == OPENAI)


def _without_tag(arch: str) -> None:
    import open_clip

    if tags := open_clip.list_pretrained_tags_by_model(arch):
        raise FileNotFoundError(
            f"network.arch {arch!r}: no such file, and none of {', '.join(OPENAI_MODELS)}; "
            f"of open_clip's model of that name expected {arch}/PRETRAINED; its tags are {', '.join(tags)}"
        )


def _on_hub(arch: str) -> Described:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError, RepositoryNotFoundError

    name = arch.removeprefix(HUB)

    def fetch(files: tuple[str, ...]) -> Path:
        try:
            for file in files[:-1]:
                try:
                    return Path(hf_hub_download(name, file))
                except EntryNotFoundError:
                    continue
            return Path(hf_hub_download(name, files[-1]))
        except HFValidationError as error:
            raise ValueError(f"network.arch {arch!r}: {one_line(error)}") from error
        except RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"network.arch {arch!r}: no such model on the Hub, or not for your token"
            ) from error
        except (OSError, HTTPError, EntryNotFoundError) as error:
            raise ConnectionError(
                f"network.arch {arch!r}: {files[-1]} could not be downloaded ({one_line(error)})"
            ) from error

    model, rules = _read_description(fetch((CONFIG_FILE,)))
    return _checked(arch, model, rules, find_weights=partial(fetch, WEIGHT_FILES))


def _in_folder(arch: str, folder: Path) -> Described:
    if not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(f"network.arch {arch}: expected {CONFIG_FILE} in the folder, found none")

    def find_weights() -> Path:
        found = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(f"network.arch {arch}: found no weights, expected {WEIGHT_FILES[0]}")
        return found

    model, rules = _read_description(folder / CONFIG_FILE)
    # A folder has the files of its tokenizer, too.
    return _checked(arch, model, rules, find_weights=find_weights, tokenizer=str(folder))


def _read_description(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model and the rules of pictures in a file ``open_clip_config.json``."""
    from open_clip.transform import PreprocessCfg

    tree = read_json(path, "the description of an open_clip model")
    model, rules = tree.get("model_cfg"), tree.get("preprocess_cfg", {})
    for name, part in (("model_cfg", model), ("preprocess_cfg", rules)):
        if not isinstance(part, dict):
            raise ValueError(f"{path}: expected {name}, a mapping, found {type(part).__name__}")
    known = [field.name for field in fields(PreprocessCfg)]
    if unknown := sorted(rules.keys() - known):  # a misspelt rule would be OpenAI's
        raise ValueError(f"{path}: preprocess_cfg: expected {', '.join(known)}, found {', '.join(unknown)}")
    return model, rules


def _checked(
    arch: str, model: Mapping[str, Any], rules: Mapping[str, Any], tokenizer: str = "", **found: Any
) -> Described:
    """A description that has what a pair of towers needs.

    Args:
        tokenizer: empty: the one that the description names, if any.

    Raises:
        ValueError: it has not.
    """
    if "multimodal_cfg" in model:
        raise ValueError(f"network.arch {arch}: a CoCa, whose text tower also writes captions, is not read")
    for part, side in (("vision_cfg", "image"), ("text_cfg", "text")):
        if not isinstance(model.get(part), dict):
            raise ValueError(f"network.arch {arch}: expected an image and a text tower, found no {side} side ({part})")
    if not isinstance(model.get("embed_dim"), int):
        raise ValueError(f"network.arch {arch}: expected embed_dim, an integer, found {model.get('embed_dim')!r}")
    tokenizer = tokenizer or model["text_cfg"].get("hf_tokenizer_name") or ""
    return Described(arch, model, _rules_of(rules, arch), tokenizer=tokenizer, **found)


def _rules_of(told: Mapping[str, Any], arch: str) -> dict[str, Any]:
    """Fields of ``TowerSpec`` from open_clip's preprocessing; what is not told is OpenAI's."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    rules: dict[str, Any] = {
        "interpolation": told.get("interpolation") or INTERPOLATIONS[0],
        "resize": told.get("resize_mode") or RESIZES[0],
    }
    for name, choices in (("interpolation", INTERPOLATIONS), ("resize", RESIZES)):
        if rules[name] not in choices:
            raise ValueError(f"network.arch {arch}: {name}: expected {' or '.join(choices)}, found {rules[name]!r}")
    for name, usual in (("mean", OPENAI_DATASET_MEAN), ("std", OPENAI_DATASET_STD)):
        values = usual if told.get(name) is None else told[name]
        values = tuple(values) if isinstance(values, list | tuple) else (values,) * 3
        numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
        if len(values) != 3 or not numbers or (name == "std" and not all(value > 0 for value in values)):
            raise ValueError(f"network.arch {arch}: {name} of pixels: expected 3 numbers, found {list(values)}")
        rules[f"pixel_{name}"] = tuple(float(value) for value in values)
    return rules


def _described(cls: type, fields: Mapping[str, Any], arch: str) -> Any:
    """A part of open_clip's description as its own class.

    Raises:
        ValueError: it has entries that the installed open_clip does not know.
    """
    try:
        return cls(**fields)
    except TypeError as error:
        raise ValueError(
            f"network.arch {arch}: the installed open_clip does not know it ({one_line(error)})"
        ) from error


def _nearest(arch: str) -> str:
    """The tags that are spelled most alike, as the end of an error."""
    import open_clip

    names = [*OPENAI_MODELS, *("/".join(pair) for pair in open_clip.list_pretrained())]
    found = difflib.get_close_matches(arch, names, n=3, cutoff=0.5)
    return f"; the nearest: {', '.join(found)}" if found else ""
