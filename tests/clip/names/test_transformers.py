"""CLIP as Hugging Face's transformers name it: the same model, and anything that it cannot be is named."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip.load import load_clip
from clip.model import CLIP

CASES = Path(__file__).resolve().parents[2] / "data" / "cases"
CONFIG = {
    "model_type": "clip",
    "vision_config": {"hidden_act": "quick_gelu", "num_attention_heads": 1, "hidden_size": 64},
    "text_config": {"hidden_act": "quick_gelu", "num_attention_heads": 1, "hidden_size": 64},
}


def in_transformers_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The reverse of what the reader does, by single replacements."""
    named = {}
    for name, value in state.items():
        tower, rest = ("vision", name.removeprefix("visual.")) if name.startswith("visual.") else ("text", name)
        if ".in_proj_" in rest:
            kind = rest.rsplit("_", 1)[1]
            prefix = rest.split(".attn.")[0].replace("transformer.resblocks", f"{tower}_model.encoder.layers")
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                named[f"{prefix}.self_attn.{part}_proj.{kind}"] = rows.clone()
            continue
        for old, new in (
            ("transformer.resblocks", f"{tower}_model.encoder.layers"), (".attn.out", ".self_attn.out"),
            (".ln_1", ".layer_norm1"), (".ln_2", ".layer_norm2"), ("c_fc", "fc1"), ("c_proj", "fc2"),
            ("ln_pre", "vision_model.pre_layrnorm"), ("ln_post", "vision_model.post_layernorm"),
            ("ln_final", "text_model.final_layer_norm"), ("conv1", "vision_model.embeddings.patch_embedding"),
            ("class_embedding", "vision_model.embeddings.class_embedding"),
            ("positional_embedding", f"{tower}_model.embeddings.position_embedding.weight"),
            ("token_embedding", "text_model.embeddings.token_embedding"),
        ):  # fmt: skip
            rest = rest.replace(old, new)
        if rest in ("proj", "text_projection"):
            rest, value = ("visual" if rest == "proj" else "text") + "_projection.weight", value.T.contiguous()
        named[rest] = value
    ids = {f"{tower}_model.embeddings.position_ids": torch.arange(7)[None] for tower in ("vision", "text")}
    return named | ids


@pytest.fixture
def state(tiny_clip) -> dict[str, torch.Tensor]:
    return in_transformers_names(tiny_clip.state_dict())


def write_folder(folder: Path, state: dict, config: object = CONFIG) -> str:
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def assert_same_features(found: CLIP, expected: CLIP) -> None:
    images = torch.randn(
        2, 3, found.config.image_size, found.config.image_size, generator=torch.Generator().manual_seed(0)
    )
    tokens = torch.tensor([[1, 5, 63, 0], [1, 63, 0, 0]])
    with torch.no_grad():
        for encode, inputs in (("encode_image", images), ("encode_text", tokens)):
            difference = getattr(found.eval(), encode)(inputs) - getattr(expected.eval(), encode)(inputs)
            assert difference.abs().max() < 1e-6


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_in_transformers_names_is_the_same_model(state, tiny_clip, suffix, tmp_path, caplog):
    path = tmp_path / f"clip{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    found = load_clip(str(path))
    assert found.config == tiny_clip.config
    assert_same_features(found, tiny_clip)
    assert "network.activation=gelu" in caplog.text


def test_two_files_of_one_clip_give_the_same_features():
    one, other = (load_clip(str(CASES / f"clip_{names}_names.safetensors")) for names in ("transformers", "openai"))
    assert one.config == other.config
    assert_same_features(one, other)


def test_the_test_s_own_names_are_those_of_a_real_file():
    names = load_file(CASES / "clip_transformers_names.safetensors")
    ours = in_transformers_names(load_file(CASES / "clip_openai_names.safetensors"))
    assert all(torch.equal(ours[name], value) for name, value in names.items())


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_folder_tells_its_activation_and_heads(state, activation, tmp_path, caplog):
    towers = {
        key: CONFIG[key] | {"hidden_act": activation, "num_attention_heads": 2} for key in CONFIG if "_config" in key
    }
    folder = write_folder(tmp_path / "model", state, CONFIG | towers)
    for arch in (folder, f"{folder}/model.safetensors"):
        config = load_clip(arch).config
        assert (config.activation, config.vision_heads, config.text_heads) == (activation, 2, 2)
    assert caplog.text == ""


def test_a_stated_activation_wins_and_warns_of_nothing(state, tmp_path, caplog):
    save_file(state, tmp_path / "clip.safetensors")
    assert load_clip(str(tmp_path / "clip.safetensors"), activation="gelu").config.activation == "gelu"
    assert caplog.text == ""


def test_a_folder_of_the_older_kind_is_read(state, tiny_clip, tmp_path):
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert_same_features(load_clip(str(tmp_path)), tiny_clip)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "config.json: damaged, the configuration of a CLIP is a JSON list"),
        ({}, "config.json: not the configuration of a CLIP"),
        (CONFIG | {"model_type": "siglip"}, "config.json: not the configuration of a CLIP"),
        (CONFIG | {"text_config": 3}, "config.json: not the configuration of a CLIP"),
        (CONFIG | {"text_config": {"hidden_act": "gelu"}}, "hidden_act: expected quick_gelu or gelu in both towers"),
        (CONFIG | {"vision_config": {"num_attention_heads": "12"}}, "num_attention_heads: expected positive integers"),
        (CONFIG | {"vision_config": {"num_attention_heads": 7}}, "is 64 wide, which 7 attention heads do not share"),
    ],
)
def test_a_configuration_that_is_not_that_of_a_clip_is_named(state, config, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_clip(write_folder(tmp_path / "model", state, config))


def test_a_configuration_of_many_levels_is_named(state, tmp_path):
    folder = write_folder(tmp_path / "model", state)
    (tmp_path / "model" / "config.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError, match=r"config\.json: damaged, the configuration of a CLIP is not JSON"):
        load_clip(folder)


def test_parts_that_are_missing_or_strange_are_named(state, tmp_path):
    path = tmp_path / "clip.safetensors"
    save_file({name: value for name, value in state.items() if "layers.1.self_attn.k_proj.bias" not in name}, path)
    with pytest.raises(ValueError, match=r"clip\.safetensors: .*self_attn\.k_proj is missing for "):
        load_clip(str(path))
    save_file(state | {"vision_model.head.probe": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"clip\.safetensors: .*vision_model\.head\.probe is no part of a CLIP ViT"):
        load_clip(str(path))
    save_file(state | {"logit_scale": torch.tensor(float("nan"))}, path)
    with pytest.raises(ValueError, match=r"clip\.safetensors: logit_scale is not finite"):
        load_clip(str(path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_clip(str(tmp_path))
