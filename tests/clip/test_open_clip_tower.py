"""Any model of open_clip gives open_clip's own embeddings, and is used with its own rules of pictures and texts."""

import json

import huggingface_hub
import huggingface_hub.errors
import open_clip
import pytest
import torch

from clip.load import load_towers, pictures_of
from clip.model import CLIP, PIXEL_MEAN
from clip.open_clip_tower import OpenClipTower
from clip.tokenizer import TooLong
from engine.flops import count_flops
from modules.classes.templates import LiveTexts, template_classes
from modules.heads.mean import MeanPooling
from modules.systems.base import Batch, Draws
from modules.systems.clip import PlainCLIP
from tests.clip.members import (
    FAMILIES,
    FAST,
    description,
    reference_of,
    save_member,
    shrink_trunks,
    some_tokens,
    write_member,
)
from utils.config.pixels import RESIZES

HALF = (0.5, 0.5, 0.5)


@pytest.fixture(autouse=True)
def small_trunks(monkeypatch):
    shrink_trunks(monkeypatch)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_embeddings_are_open_clip_s_own(family, tmp_path, relative_error):
    arch, reference = write_member(family, tmp_path / "member")
    towers = load_towers(arch).eval()
    assert type(towers) is (CLIP if family in FAST else OpenClipTower)
    member = FAMILIES[family]
    assert towers.spec.image_size == member.image_size
    images = torch.randn(4, 3, member.image_size, member.image_size)
    tokens = some_tokens(member.context_length, member.vocab_size)
    expected = reference.encode_image(images), reference.encode_text(tokens)
    assert min(len(each.std(dim=0).nonzero()) for each in expected) > 32  # they tell inputs apart
    assert relative_error(towers.encode_image(images), expected[0]) < 1e-5
    assert relative_error(towers.encode_text(tokens), expected[1]) < 1e-5
    assert torch.equal(towers.logit_scale, reference.logit_scale)
    assert towers.logit_scale.ndim == 0


RULES = {  # context length, mean, interpolation, resize
    "PE-Core-B": (32, HALF, "bilinear", "squash"),
    "PE-Core-L": (32, HALF, "bilinear", "squash"),
    "SigLIP2-B-16": (64, HALF, "bicubic", "squash"),
    "MobileCLIP2-S0": (77, (0.0, 0.0, 0.0), "bilinear", "shortest"),
    "MobileCLIP2-L-14": (77, PIXEL_MEAN, "bicubic", "shortest"),
    "DFN": (77, PIXEL_MEAN, "bicubic", "shortest"),
    "DFN, squashed": (77, PIXEL_MEAN, "bicubic", "squash"),
}


@pytest.mark.parametrize("family", RULES)
def test_the_rules_of_pictures_and_texts_are_the_model_s_own(family, tmp_path):
    arch, _ = write_member(family, tmp_path / "member")
    spec = load_towers(arch).spec
    assert (spec.context_length, spec.pixel_mean, spec.interpolation, spec.resize) == RULES[family]
    size, resize = pictures_of(arch)
    assert size == spec.image_size
    assert RESIZES[resize] == {"interpolation": spec.interpolation, "resize": spec.resize}


@pytest.mark.parametrize(
    ("tag", "size"),
    {"PE-Core-B-16/meta": 224, "ViT-B-16-SigLIP2-384/webli": 384, "ViT-H-14-378-quickgelu/dfn5b": 378}.items(),
)
def test_a_tag_tells_its_pictures_without_its_weights(tag, size):
    told = open_clip.get_pretrained_cfg(*tag.split("/"))
    assert pictures_of(tag) == (size, f"{told['resize_mode']}_{told['interpolation']}")
    assert pictures_of(tag).resize != "shortest_bicubic"


@pytest.mark.parametrize("name", ["ViT-B/16", "ViT-L/14@336px", "ViT-L/14-336px", "RN50x16"])
def test_openai_s_names_tell_their_size(name):
    theirs = open_clip.get_model_config(name.replace("/", "-").replace("@336px", "-336").replace("-336px", "-336"))
    assert pictures_of(name) == (theirs["vision_cfg"]["image_size"], "shortest_bicubic")


def test_a_logit_bias_stays_with_the_weights(tmp_path):
    arch, reference = write_member("SigLIP2-B-16", tmp_path / "member")
    towers = load_towers(arch)
    assert torch.equal(towers.state_dict()["logit_bias"], reference.logit_bias)
    assert "logit_bias" not in dict(towers.named_parameters())
    arch, _ = write_member("PE-Core-T", tmp_path / "other")
    assert "logit_bias" not in load_towers(arch).state_dict()


@pytest.mark.parametrize("is_quick", [False, True])
@torch.no_grad()
def test_the_activation_is_the_tag_s(is_quick, tmp_path):
    family = "MetaCLIP" if is_quick else "DataComp"
    towers = load_towers(write_member(family, tmp_path / "member")[0])
    assert towers.config.activation == ("quick_gelu" if is_quick else "gelu")


def test_clip_s_tokens_are_cut_to_the_model_s_length(tmp_path):
    towers = load_towers(write_member("PE-Core-T", tmp_path / "member")[0])
    texts = ["a person juggling", "a " * 29 + "cat"]
    assert torch.equal(towers.tokenize(texts), open_clip.get_tokenizer("PE-Core-T-16-384")(texts))
    with pytest.raises(TooLong, match=r"needs 33 tokens, CLIP reads at most 32: 'a a .*"):
        towers.tokenize(["a " * 30 + "cat"])
    cut = towers.tokenize(["a " * 30 + "cat"], truncate=True)
    assert cut.shape == (1, 32)
    assert cut[0, -1] == cut.max()


@torch.no_grad()
def test_the_text_part_keeps_the_text_tower_that_the_towers_drop(tmp_path):
    towers = load_towers(write_member("PE-Core-T", tmp_path / "member")[0])
    tokens = towers.tokenize(["a cat", "a dog"])
    expected = towers.encode_text(tokens)
    part = towers.text_part()
    towers.drop_text()
    assert torch.equal(part.encode_text(tokens), expected)
    assert not any(name.startswith("text.") for name in towers.state_dict())
    assert not any(name.startswith("visual.") for name in part.state_dict())
    assert len(towers.blocks()) == 3


def test_with_init_false_the_text_tower_is_random(tmp_path):
    arch, reference = write_member("PE-Core-T", tmp_path / "member")
    towers = load_towers(arch, visual_only=True)
    state, expected = towers.state_dict(), reference.state_dict()
    same = {name for name, value in expected.items() if torch.equal(state[name], value)}
    assert {name for name in expected if name.startswith("visual.")} <= same
    assert "text.token_embedding.weight" not in same


def rewrite(folder, **parts) -> None:
    """Change entries of model_cfg; None takes one away."""
    path = folder / "open_clip_config.json"
    tree = json.loads(path.read_text())
    for name, change in parts.items():
        if change is None:
            del tree["model_cfg"][name]
        elif isinstance(change, dict) and name in tree["model_cfg"]:
            tree["model_cfg"][name] |= change
        else:
            tree["model_cfg"][name] = change
    path.write_text(json.dumps(tree))


WRONG = {
    "no text side": ({"text_cfg": None}, r"local-dir:.*: expected an image and a text tower, found no text side"),
    "a CoCa": ({"multimodal_cfg": {}}, "a CoCa"),
    "no embed_dim": ({"embed_dim": None}, "expected embed_dim, an integer, found None"),
    "another family": ({"vision_cfg": {"timm_model_name": "eva02_base_patch16_clip_224", "timm_pool": "token"}},
                       r"local-dir:.*: the weights are not those of its description, missing visual\.trunk"),
    "an unknown trunk": ({"vision_cfg": {"timm_model_name": "vit_pe_cored"}}, r"cannot build it: Unknown model"),
    "another's text tower": ({"text_cfg": {"hf_model_name": "/nowhere/roberta"}}, r"local-dir:.*cannot build it: "),
    "heads that do not fit": ({"text_cfg": {"heads": 5}}, r"local-dir:.*cannot build it: .*divisible"),
    "a word for a number": ({"text_cfg": {"layers": "two"}}, r"local-dir:.*cannot build it: "),
    "an unknown entry": ({"vision_cfg": {"tokens": 3}}, r"open_clip does not know it .*tokens"),
    "an oblong picture": ({"vision_cfg": {"image_size": [32, 48]}}, r"image_size: expected one number .*\[32, 48\]"),
    "another picture": ({"vision_cfg": {"image_size": 40}}, r"image_size: expected a multiple of 16 pixels, found 40"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_description_that_does_not_fit_is_an_error_that_names_it(case, tmp_path):
    change, message = WRONG[case]
    arch, _ = write_member("PE-Core-T", tmp_path / "member")
    rewrite(tmp_path / "member", **change)
    with pytest.raises(ValueError, match=message) as error:
        load_towers(arch)
    assert "\n" not in str(error.value)


RULES_OF_PICTURES = {
    "resize_mode": ("longest", r"resize: expected shortest or squash, found 'longest'"),
    "interpolation": ("nearest", r"interpolation: expected bicubic or bilinear, found 'nearest'"),
    "std": ([1, 0, 1], r"std of pixels: expected 3 numbers, found \[1, 0, 1\]"),
    "mean": ([0.5, 0.5], r"mean of pixels: expected 3 numbers, found \[0\.5, 0\.5\]"),
    "resize_mod": ("squash", r"preprocess_cfg: expected size, .*resize_mode, .*found resize_mod$"),
}


@pytest.mark.parametrize("name", RULES_OF_PICTURES)
def test_a_rule_of_pictures_that_nobody_has_is_an_error(name, tmp_path):
    value, message = RULES_OF_PICTURES[name]
    arch, _ = write_member("PE-Core-T", tmp_path / "member")
    path = tmp_path / "member" / "open_clip_config.json"
    tree = json.loads(path.read_text())
    tree["preprocess_cfg"][name] = value
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=message):
        load_towers(arch)


def test_a_folder_without_description_or_weights_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"local-dir:.*nowhere: expected open_clip_config.json in the folder"):
        load_towers(f"local-dir:{tmp_path / 'nowhere'}")
    arch, _ = write_member("PE-Core-T", tmp_path / "member")
    (tmp_path / "member" / "open_clip_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"found no weights, expected open_clip_model\.safetensors"):
        load_towers(arch)


def test_a_name_that_lacks_a_part_says_which(tmp_path):
    write_member("PE-Core-T", tmp_path / "member")
    with pytest.raises(FileNotFoundError, match=r"a folder of open_clip is given as local-dir:.*member$"):
        load_towers(str(tmp_path / "member"))
    with pytest.raises(FileNotFoundError, match=r"of that name expected PE-Core-B-16/PRETRAINED; its tags are meta$"):
        load_towers("PE-Core-B-16")


def test_a_tag_that_does_not_exist_names_the_nearest():
    with pytest.raises(FileNotFoundError, match=r"'PE-Core-B-16/metta'.*its tags are meta; the nearest: PE-Core-B-16"):
        load_towers("PE-Core-B-16/metta")
    with pytest.raises(FileNotFoundError, match=r"no such model.*the nearest: .*ViT-B-16-SigLIP2/webli"):
        load_towers("ViT-B-16-SigLIP-2/webli")


@torch.no_grad()
def test_a_model_on_the_hub_is_described_there(tmp_path, monkeypatch):
    folder, (_, reference) = tmp_path / "member", write_member("PE-Core-T", tmp_path / "member")
    asked = []

    def download(name: str, file: str) -> str:
        asked.append((name, file))
        if not (folder / file).is_file():
            raise huggingface_hub.errors.EntryNotFoundError("404")
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert pictures_of("hf-hub:some/model") == (32, "squash_bilinear")
    assert asked == [("some/model", "open_clip_config.json")]
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.safetensors")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(load_towers("hf-hub:some/model").encode_image(images), reference.encode_image(images))
    (folder / "open_clip_pytorch_model.safetensors").unlink()
    with pytest.raises(ConnectionError, match=r"'hf-hub:some/model': open_clip_pytorch_model\.bin could not be"):
        load_towers("hf-hub:some/model")


def test_what_is_no_name_on_the_hub_is_an_error():
    with pytest.raises(ValueError, match="hf-hub:no name"):
        pictures_of("hf-hub:no name")


def test_a_tag_that_cannot_be_downloaded_says_where_its_weights_are(monkeypatch):
    def fail(told: dict) -> str:
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(ConnectionError, match=r"'PE-Core-T-16-384/meta'.*no network.*timm/PE-Core-T.*local-dir:DIR"):
        load_towers("PE-Core-T-16-384/meta")


@pytest.mark.parametrize("family", ["PE-Core-T", "SigLIP2-B-16", "EVA02", "MobileCLIP2-S0"])
def test_operations_are_counted_without_memory(family, tmp_path):
    towers = load_towers(write_member(family, tmp_path / "member")[0])
    member = FAMILIES[family]
    texts = LiveTexts(some_tokens(member.context_length, member.vocab_size)[:4, None])
    system = PlainCLIP(towers, MeanPooling(), texts)
    clips = torch.zeros(2, 2, 3, member.image_size, member.image_size, dtype=torch.uint8, device="meta")
    batch = Batch(clips=clips, labels=torch.zeros(2, dtype=torch.long, device="meta"))
    assert count_flops(system, batch, Draws(torch.Generator())) > 1e6


def test_a_plain_tower_that_reads_shorter_texts_names_what_is_too_long(tmp_path):
    tree = description("DFN")
    tree["model_cfg"]["text_cfg"]["context_length"] = 16
    towers = load_towers(save_member(tmp_path / "member", tree, reference_of(tree)))
    assert isinstance(towers, CLIP)
    assert towers.tokenize(["a cat"]).shape == (1, 16)
    with pytest.raises(ValueError, match=r"class name too long \(label 1, 'a very.*needs \d+ tokens, .* at most 16"):
        template_classes(towers, ["cat", "a " + "very " * 12 + "cat"], "single")
