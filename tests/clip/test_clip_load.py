"""Weights of every kind of source load alike; whatever is wrong with them is an error that says what."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

import clip.load
import clip.released
from clip.load import load_clip
from clip.model import CLIP, CLIPConfig
from clip.shapes import ClipWeights, infer_config
from modules.classes.templates import template_classes
from tools.make_debug_data import TINY_CLIP, random_clip_state

RELEASED = {
    "ViT-B/32": CLIPConfig(512, 224, 32, 768, 12, 12, 512, 12, 8),
    "ViT-B/16": CLIPConfig(512, 224, 16, 768, 12, 12, 512, 12, 8),
    "ViT-L/14": CLIPConfig(768, 224, 14, 1024, 24, 16, 768, 12, 12),
    "ViT-L/14@336px": CLIPConfig(768, 336, 14, 1024, 24, 16, 768, 12, 12),
    "ViT-H-14 of LAION": CLIPConfig(1024, 224, 14, 1280, 32, 16, 1024, 24, 16, activation="gelu"),
}
RELEASED_RESNETS = {
    "RN50": CLIPConfig(1024, 224, 32, 64, 16, 32, 512, 12, 8, resnet_layers=(3, 4, 6, 3)),
    "RN101": CLIPConfig(512, 224, 32, 64, 33, 32, 512, 12, 8, resnet_layers=(3, 4, 23, 3)),
    "RN50x4": CLIPConfig(640, 288, 32, 80, 26, 40, 640, 12, 10, resnet_layers=(4, 6, 10, 6)),
    "RN50x16": CLIPConfig(768, 384, 32, 96, 40, 48, 768, 12, 12, resnet_layers=(6, 8, 18, 8)),
    "RN50x64": CLIPConfig(1024, 448, 32, 128, 64, 64, 1024, 12, 16, resnet_layers=(3, 15, 36, 10)),
}


@pytest.fixture
def state(tiny_clip):
    return tiny_clip.state_dict()


def assert_loads(arch, state: dict, **options) -> CLIP:
    model = load_clip(str(arch), **options)
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], value.float()), name
    return model


def empty_state(config: CLIPConfig) -> dict[str, torch.Tensor]:
    """A state dict of these shapes that takes no memory, as far as shapes tell a CLIP."""
    shapes = {
        "visual.conv1.weight": (config.vision_width, 3, config.patch_size, config.patch_size),
        "visual.positional_embedding": ((config.image_size // config.patch_size) ** 2 + 1, config.vision_width),
        "visual.proj": (config.vision_width, config.embed_dim),
        "token_embedding.weight": (config.vocab_size, config.text_width),
        "positional_embedding": (config.context_length, config.text_width),
        "text_projection": (config.text_width, config.embed_dim),
    }
    shapes |= {
        f"visual.transformer.resblocks.{i}.ln_1.bias": (config.vision_width,) for i in range(config.vision_layers)
    }
    shapes |= {f"transformer.resblocks.{i}.ln_1.bias": (config.text_width,) for i in range(config.text_layers)}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", RELEASED)
def test_the_shapes_of_released_models_are_inferred(name):
    assert infer_config(ClipWeights(empty_state(RELEASED[name]))) == RELEASED[name]


@pytest.mark.parametrize("name", RELEASED_RESNETS)
def test_the_shapes_of_released_resnets_are_inferred_and_are_open_clip_s(name):
    config = RELEASED_RESNETS[name]
    with torch.device("meta"):
        ours = CLIP(config).state_dict()
        reference = open_clip.create_model(name, device="meta").state_dict()
    assert infer_config(ClipWeights(ours)) == config
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in reference.items()}


def test_the_published_spelling_of_a_name_is_the_same_model(monkeypatch):
    asked = []
    monkeypatch.setitem(clip.load.TOWERS, "ViT-L/14@336px", lambda **options: asked.append(options))
    clip.load.load_towers("ViT-L/14-336px", drop_path=0.1)
    assert asked == [{"drop_path": 0.1}]
    monkeypatch.setattr(clip.load, "download", lambda name: asked.append(name) or clip.released.cache_dir() / "none")
    with pytest.raises(FileNotFoundError):
        clip.load.read_weights("ViT-L/14-336px")
    assert asked[1] == "ViT-L/14@336px"


def test_stated_activation_and_heads_win_over_the_rules(state):
    config = infer_config(ClipWeights(state, activation="gelu", vision_heads=4, text_heads=2))
    assert (config.activation, config.vision_heads, config.text_heads) == ("gelu", 4, 2)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{k}": v for k, v in state.items()},
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    ],
    ids=["plain", "module prefix", "state_dict key", "state_dict key with module prefix"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_state_dict_files_load(wrap, dtype, state, tmp_path):
    state = {k: v.to(dtype) for k, v in state.items()}
    torch.save(wrap(state), tmp_path / "clip.pt")
    assert_loads(tmp_path / "clip.pt", state)


def test_safetensors_load(state, tmp_path):
    save_file(state, tmp_path / "clip.safetensors")
    assert_loads(tmp_path / "clip.safetensors", state)


class Names(torch.nn.Module):
    """Tensors under dotted names, as TorchScript can hold them."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        super().__init__()
        for name in sorted({name.split(".")[0] for name in tensors}):
            if name in tensors:
                self.register_buffer(name, tensors[name])
            else:
                prefix = name + "."
                inner = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                self.add_module(name, Names(inner))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_an_openai_archive_loads(state, tmp_path, monkeypatch):
    extra = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    tensors = {k: v.half() for k, v in state.items()}
    archive = torch.jit.trace(Names(tensors | {k: torch.tensor(v) for k, v in extra.items()}), torch.zeros(1))
    torch.jit.save(archive, tmp_path / "ViT-tiny.pt")
    assert extra.keys() <= torch.jit.load(tmp_path / "ViT-tiny.pt").state_dict().keys()
    known = hashlib.sha256((tmp_path / "ViT-tiny.pt").read_bytes()).hexdigest()
    monkeypatch.setitem(clip.released.OPENAI_MODELS, "ViT-tiny", ("ViT-tiny.pt", known))
    assert_loads(tmp_path / "ViT-tiny.pt", tensors)


class Hostile(torch.nn.Module):
    """An archive whose code runs when it is opened."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.weight, self.training = state
        print("the archive has run")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_an_unknown_archive_is_refused_and_nothing_in_it_runs(tmp_path, capfd):
    torch.jit.save(torch.jit.script(Hostile()), tmp_path / "clip.pt")
    torch.jit.load(tmp_path / "clip.pt")
    assert "the archive has run" in capfd.readouterr().out  # it is one that would
    for read in (load_clip, lambda path: clip.released.read_state(Path(path))):
        with pytest.raises(ValueError, match=r"clip.pt: not readable .*a program.*SHA-256.*as safetensors"):
            read(str(tmp_path / "clip.pt"))
    assert "the archive has run" not in capfd.readouterr().out


def test_options_reach_the_model(state, tmp_path):
    torch.save(state, tmp_path / "clip.pt")
    config = load_clip(str(tmp_path / "clip.pt"), activation="gelu", drop_path=0.1, emb_dropout=0.2).config
    assert (config.activation, config.drop_path, config.emb_dropout) == ("gelu", 0.1, 0.2)


def test_joint_frames_load_into_a_model_with_a_new_time_embedding(state, tmp_path):
    torch.save(state, tmp_path / "clip.pt")
    loaded = load_clip(str(tmp_path / "clip.pt"), joint_frames=4).state_dict()
    assert loaded.pop("visual.time_embedding").shape == (4, 64)
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_visual_only_leaves_the_text_tower_random(state, tmp_path):
    torch.save(state, tmp_path / "clip.pt")
    loaded = load_clip(str(tmp_path / "clip.pt"), visual_only=True).state_dict()
    assert torch.equal(loaded["visual.proj"], state["visual.proj"])
    assert not torch.equal(loaded["text_projection"], state["text_projection"])


@pytest.fixture
def released(state, tmp_path, monkeypatch):
    """ViT-B/32 as a small file at a file:// address, and an empty cache; yields (cache folder, set the hash)."""
    served = tmp_path / "served"
    served.mkdir()
    torch.save(state, served / "ViT-B-32.pt")
    monkeypatch.setattr(clip.released, "OPENAI_URL", served.as_uri() + "/{file}")
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))

    def set_hash(sha256: str) -> None:
        monkeypatch.setitem(clip.released.OPENAI_MODELS, "ViT-B/32", ("ViT-B-32.pt", sha256))

    set_hash(hashlib.sha256((served / "ViT-B-32.pt").read_bytes()).hexdigest())
    return tmp_path / "cache", set_hash


def test_a_released_model_is_downloaded_once_into_clip_cache(released, state, monkeypatch):
    cache, _ = released
    assert_loads("ViT-B/32", state)
    assert [path.name for path in cache.iterdir()] == ["ViT-B-32.pt"]
    monkeypatch.setattr(clip.released, "OPENAI_URL", "file:///nowhere/{file}")
    assert_loads("ViT-B/32", state)


def test_a_download_with_another_hash_is_an_error_and_leaves_nothing(released):
    cache, set_hash = released
    set_hash("0" * 64)
    with pytest.raises(ConnectionError, match=r"could not download ViT-B/32 from file://.*put it at .*ViT-B-32.pt"):
        load_clip("ViT-B/32")
    assert list(cache.iterdir()) == []


def test_an_address_that_cannot_be_reached_says_where_to_put_the_file(released, monkeypatch):
    monkeypatch.setattr(clip.released, "OPENAI_URL", "file:///nowhere/{file}")
    with pytest.raises(ConnectionError, match=r"file:///nowhere/ViT-B-32.pt.*put it at .*or give its path"):
        load_clip("ViT-B/32")


def test_released_models_carry_their_hash_in_openai_s_address():
    for file, sha256 in clip.released.OPENAI_MODELS.values():
        assert len(sha256) == 64
        assert clip.released.OPENAI_URL.format(sha256=sha256, file=file).split("/")[-2:] == [sha256, file]


@pytest.fixture
def open_clip_tag(tiny_clip_config, state, tmp_path, monkeypatch):
    """A small model of open_clip's own registry, whose pretrained weights are a local file."""
    config = tiny_clip_config
    tree = {
        "embed_dim": config.embed_dim,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    }
    (tmp_path / "ViT-tiny.json").write_text(json.dumps(tree))
    torch.save(state, tmp_path / "weights.pt")
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    open_clip.add_model_config(tmp_path / "ViT-tiny.json")

    def register(**entry) -> None:
        entry = {"file": str(tmp_path / "weights.pt"), **entry}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-tiny", {"ours": entry, "other": entry})

    return register


@pytest.mark.parametrize(("is_quick", "activation"), [(True, "quick_gelu"), (False, "gelu")])
@torch.no_grad()
def test_an_open_clip_tag_loads_with_its_activation_and_heads(open_clip_tag, state, is_quick, activation):
    open_clip_tag(quick_gelu=is_quick)
    model = assert_loads("ViT-tiny/ours", state).eval()
    config = model.config
    assert (config.activation, config.vision_heads, config.text_heads) == (activation, 2, 2)
    reference = open_clip.create_model("ViT-tiny", pretrained="ours", force_quick_gelu=is_quick).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.encode_image(images), reference.encode_image(images), rtol=1e-5, atol=1e-5)


def test_a_wrong_tag_lists_the_tags(open_clip_tag):
    open_clip_tag()
    with pytest.raises(FileNotFoundError, match=r"'ViT-tiny/mine'.*its tags are ours, other"):
        load_clip("ViT-tiny/mine")


def test_an_unknown_open_clip_model_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"open_clip knows no such model; known without it: ViT-B/32, ViT-B/16"):
        load_clip("ViT-Z-99/laion")


@pytest.mark.parametrize("arch", ["nowhere/clip.pt", "ViT-B-16", "RN34", ""])
def test_a_missing_file_or_unknown_name_is_an_error(arch):
    with pytest.raises(FileNotFoundError, match="no such file, and none of ViT-B/32, "):
        load_clip(arch)


def test_a_state_dict_of_something_else_is_an_error_that_names_missing_keys(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(ValueError, match=r"linear.pt: not a CLIP ViT, missing visual.conv1.weight") as error:
        load_clip(str(tmp_path / "linear.pt"))
    assert "; not a CLIP ResNet, missing visual.conv1.weight, visual.layer1.0.conv1.weight" in str(error.value)


def test_a_clip_with_a_missing_or_extra_tensor_is_an_error_that_names_it(state, tmp_path):
    incomplete = {k: v for k, v in state.items() if k != "visual.ln_post.bias"}
    torch.save(incomplete, tmp_path / "less.pt")
    with pytest.raises(ValueError, match=r"missing visual.ln_post.bias$"):
        load_clip(str(tmp_path / "less.pt"))
    torch.save(state | {"visual.adapter": torch.zeros(1)}, tmp_path / "more.pt")
    with pytest.raises(ValueError, match=r"unexpected visual.adapter$"):
        load_clip(str(tmp_path / "more.pt"))


def test_a_truncated_or_garbage_file_is_an_error_that_names_it(state, tmp_path):
    torch.save(state, tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    for name, part in (("half.pt", content[: len(content) // 2]), ("empty.pt", b""), ("text.pt", b"<html>404</html>")):
        (tmp_path / name).write_bytes(part)
        with pytest.raises(ValueError, match=rf"{name}: not readable as CLIP weights"):
            load_clip(str(tmp_path / name))


def test_a_corrupted_safetensors_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "clip.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match=r"clip.safetensors: not readable as CLIP weights"):
        load_clip(str(tmp_path / "clip.safetensors"))


def test_a_file_without_a_state_dict_is_an_error_that_names_it(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list.pt"):
        load_clip(str(tmp_path / "list.pt"))


def test_an_inferred_config_holds_plain_numbers(state):
    assert all(
        type(value) in (int, float, str, tuple, type(None))
        for value in asdict(infer_config(ClipWeights(state))).values()
    )


def wide_mlp(state: dict, hidden: int) -> dict:
    """The state with image-tower FFNs of another hidden width, as LAION's g and bigG have."""
    sizes = {"c_fc.weight": (hidden, 64), "c_fc.bias": (hidden,), "c_proj.weight": (64, hidden)}
    return {
        name: next(
            (torch.randn(size) for end, size in sizes.items() if name.startswith("visual.") and name.endswith(end)),
            value,
        )
        for name, value in state.items()
    }


def test_ffns_of_another_width_are_inferred(tmp_path):
    torch.save(wide_mlp(random_clip_state(TINY_CLIP, 0), 100), tmp_path / "clip.pt")
    clip = load_clip(str(tmp_path / "clip.pt"))
    assert clip.config.vision_mlp == 100
    assert clip.encode_image(torch.randn(1, 3, 32, 32)).shape == (1, 32)


def test_a_tensor_of_another_shape_is_an_error_that_names_it(tmp_path):
    state = random_clip_state(TINY_CLIP, 0)
    state["visual.ln_post.weight"] = torch.ones(3)
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"visual\.ln_post\.weight is \[3\], the configured model has \[64\]"):
        load_clip(str(tmp_path / "clip.pt"))


WRONG = {
    "NaN": ("visual.proj", lambda value: value * float("nan"), "visual.proj is not finite"),
    "integers": ("visual.proj", lambda value: value.long(), "visual.proj is int64"),
    "complex numbers": ("ln_final.bias", lambda value: value.cfloat(), "ln_final.bias is complex64"),
    "a text": ("visual.proj", lambda value: "x", "visual.proj is of type str"),
    "a vector": ("visual.proj", lambda value: value.flatten(), "expected 2 dimensions"),
    "a scalar": ("positional_embedding", lambda value: value.sum(), "expected 2 dimensions"),
    "a matrix of filters": ("visual.conv1.weight", lambda value: value.flatten(1), "expected 4 dimensions"),
    "an endless vocabulary": (
        "token_embedding.weight", lambda value: torch.zeros(1, 1).expand(10**9, value.shape[1]), "repeats a part",
    ),
    "a narrow tower": ("token_embedding.weight", lambda value: value[:, :32].clone(), "the text tower is 32 wide"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_tensors_that_cannot_be_those_of_a_clip_are_named(case, state, tmp_path):
    name, change, message = WRONG[case]
    torch.save(state | {name: change(state[name])}, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=message) as error:
        load_clip(str(tmp_path / "clip.pt"))
    assert "clip.pt" in str(error.value)


@pytest.mark.parametrize("prefix", ["module.module.", "_orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off(prefix, state, tmp_path):
    torch.save({prefix + name: value for name, value in state.items()}, tmp_path / "clip.pt")
    assert_loads(tmp_path / "clip.pt", state)
    inner = {name.replace("resblocks.0.", "resblocks.0._orig_mod."): value for name, value in state.items()}
    torch.save(inner, tmp_path / "clip.pt")
    assert_loads(tmp_path / "clip.pt", state)


def test_a_text_tower_of_another_vocabulary_reads_no_class_names(state, tmp_path):
    torch.save(state | {"token_embedding.weight": state["token_embedding.weight"][:64].clone()}, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"text tower reads 77 of 64 tokens, the class names need \d+ of 49408"):
        template_classes(load_clip(str(tmp_path / "clip.pt")), ["a cat"], "single")
