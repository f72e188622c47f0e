"""A model's weights in checkpoints: names, averages, and errors that name what does not fit."""

import math
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch

from clip.load import load_clip
from clip.model import CLIP
from modules.classes.base import FixedClasses
from modules.classes.templates import template_classes
from modules.formats.ours import read_checkpoint
from modules.heads.experts import ExpertTransformer
from modules.heads.mean import MeanPooling
from modules.systems.base import System
from modules.systems.clip import PlainCLIP
from modules.systems.mote import MoTE
from utils.weights.four_keys import HEAD, MODEL, save_checkpoint
from utils.weights.state_dicts import weights_sha256


def make_model(config, seed: int, head=None, layers: int = 1, classes: int = 5) -> System:
    torch.manual_seed(seed)
    head = head or ExpertTransformer(config.embed_dim, layers, 1, num_experts=2, num_train_classes=classes)
    clip = CLIP(config)
    clip.drop_text()
    kind = MoTE if isinstance(head, ExpertTransformer) else PlainCLIP
    system = kind(clip, head, FixedClasses(torch.zeros(classes, config.embed_dim)))
    if hasattr(head, "spe_cls_feature"):
        head.spe_cls_feature.normal_()
    return system


@pytest.fixture
def make(tiny_clip_config):
    """Small video models; another seed, other weights."""
    return lambda seed, **options: make_model(tiny_clip_config, seed, **options)


def checkpoint_of(model: System) -> dict:
    return {"epoch": 2, **model.weights(), "optimizer_state_dict": {}}


def test_weights_have_the_published_names(make):
    weights = make(0).weights()
    assert set(weights) == {"model_state_dict", "fusion_model_state_dict"}
    assert all(name == "logit_scale" or name.startswith("visual.") for name in weights["model_state_dict"])
    head = weights["fusion_model_state_dict"]
    assert {"spe_cls_feature", "frame_position_embeddings.weight"} <= head.keys()
    assert {name.removeprefix("transformer.resblocks.0.") for name in head if name.startswith("transformer")} == {
        "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias",
        "ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias", "mlp.mote_fusion_weight",
        *(f"mlp.{part}.{e}.{kind}" for part in ("fc_up", "fc_dn") for e in range(2) for kind in ("weight", "bias")),
    }  # fmt: skip


def test_averaging_equal_weights_keeps_every_bit(make):
    model = make(0)
    before = weights_sha256(model.towers.visual.state_dict())
    tuned = checkpoint_of(make(0))
    tuned["model_state_dict"]["logit_scale"] = torch.tensor(5.0)
    model.load_weights(tuned, "x", average=0.99)
    assert weights_sha256(model.towers.visual.state_dict()) == before
    assert model.towers.logit_scale.item() == pytest.approx(0.99 * 5.0 + 0.01 * math.log(1 / 0.07))


def test_what_is_saved_is_read_back(make, tmp_path):
    content = checkpoint_of(make(0)) | {"class_names": ["a", "b"], "best_top1": 12.5}
    save_checkpoint(tmp_path / "model.pt", content)
    found = read_checkpoint(tmp_path / "model.pt")
    assert found.keys() == content.keys()
    assert (found["epoch"], found["class_names"], found["best_top1"]) == (2, ["a", "b"], 12.5)
    model = make(1)
    model.load_weights(found, "model.pt")
    for name, value in make(0).state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_truncated_file_is_an_error_that_names_it(make, tmp_path):
    save_checkpoint(tmp_path / "whole.pt", checkpoint_of(make(0)))
    content = (tmp_path / "whole.pt").read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "part.pt").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"checkpoint .*part.pt: not readable"):
            read_checkpoint(tmp_path / "part.pt")


def test_module_prefixes_are_taken_off(make, tmp_path):
    content = checkpoint_of(make(0))
    for part in ("model_state_dict", "fusion_model_state_dict"):
        content[part] = {f"module.{name}": value for name, value in content[part].items()}
    save_checkpoint(tmp_path / "ddp.pt", content)
    model = make(1)
    model.load_weights(read_checkpoint(tmp_path / "ddp.pt"), "ddp.pt")
    assert torch.equal(model.towers.visual.proj, make(0).towers.visual.proj)


def test_averaged_weights_are_99_parts_tuned_and_one_part_pretrained(make):
    tuned, pretrained, model = make(0), make(1), make(1)
    with torch.no_grad():
        tuned.towers.logit_scale.fill_(4.0)
        for each in (pretrained, model):
            each.towers.logit_scale.fill_(3.0)
    model.load_weights(checkpoint_of(tuned), "x", average=0.99)
    expected = {name: 0.99 * a + 0.01 * b for (name, a), b in zip(
        tuned.towers.state_dict().items(), pretrained.towers.state_dict().values(), strict=True)}  # fmt: skip
    for name, value in model.towers.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)
    assert model.towers.logit_scale.item() == pytest.approx(3.99)
    for name, value in model.head.state_dict().items():
        assert torch.equal(value, tuned.head.state_dict()[name]), name


def test_without_averaging_weights_are_exactly_those_of_the_checkpoint(make):
    model = make(1)
    model.load_weights(checkpoint_of(make(0)), "x", average=1.0)
    for name, value in make(0).state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_time_embedding_is_not_averaged(tiny_clip_config):
    config = replace(tiny_clip_config, joint_frames=2)
    tuned, model = (make_model(config, seed, head=MeanPooling()) for seed in (0, 1))
    model.load_weights(checkpoint_of(tuned), "x", average=0.5)
    assert torch.equal(model.towers.visual.time_embedding, tuned.towers.visual.time_embedding)
    assert not torch.equal(model.towers.visual.proj, tuned.towers.visual.proj)


def test_any_number_of_training_classes_loads(make):
    model, tuned = make(1, classes=5), make(0, classes=9)
    model.load_weights(checkpoint_of(tuned), "x")
    assert torch.equal(model.head.spe_cls_feature, tuned.head.spe_cls_feature)
    assert model.state_dict()["head.spe_cls_feature"].shape == (9, 64)


def test_the_model_s_own_training_classes_can_be_kept(make):
    model = make(1, classes=5)
    own = model.head.spe_cls_feature.clone()
    model.load_weights(checkpoint_of(make(0, classes=9)), "x", keep_train_classes=True)
    assert torch.equal(model.head.spe_cls_feature, own)
    assert torch.equal(model.head.frame_position_embeddings.weight, make(0).head.frame_position_embeddings.weight)


def test_missing_and_unexpected_keys_are_named(make):
    content = checkpoint_of(make(0, layers=2))
    with pytest.raises(ValueError, match=r"checkpoint x does not fit.*unexpected head.transformer.resblocks.1.*more"):
        make(1).load_weights(content, "x")
    with pytest.raises(ValueError, match=r"checkpoint y does not fit.*missing head.transformer.resblocks.1."):
        make(1, layers=2).load_weights(checkpoint_of(make(0)), "y")
    del content["model_state_dict"]["visual.proj"]
    with pytest.raises(ValueError, match=r"missing clip.visual.proj$"):
        make(1, layers=2).load_weights(content, "x")


def test_shapes_that_differ_are_named_with_both_shapes(make):
    content = checkpoint_of(make(0))
    content["model_state_dict"]["visual.proj"] = torch.zeros(64, 32)
    for average in (1.0, 0.99):
        with pytest.raises(ValueError, match=r"clip.visual.proj is \[64, 32\], the configured model has \[64, 64\]"):
            make(1).load_weights(content, "x", average=average)


def test_a_checkpoint_that_does_not_fit_changes_nothing(make):
    model, content = make(1), checkpoint_of(make(0))
    del content["fusion_model_state_dict"]["frame_position_embeddings.weight"]
    with pytest.raises(ValueError, match="does not fit"):
        model.load_weights(content, "x")
    for name, value in make(1).state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_mean_pooling_model_loads_its_own_checkpoint_and_no_other(make):
    tuned = make(0, head=MeanPooling())
    make(1, head=MeanPooling()).load_weights(checkpoint_of(tuned), "x")
    with pytest.raises(ValueError, match=r"unexpected head.*more"):
        make(1, head=MeanPooling()).load_weights(checkpoint_of(make(0)), "x")


def test_a_checkpoint_in_the_released_format_loads(golden):
    clip = load_clip(str(golden / "tiny_clip.pt"))
    pretrained = {name: value.clone() for name, value in clip.visual.state_dict().items()}
    clip.drop_text()
    model = MoTE(
        clip, ExpertTransformer(64, 3, 1, num_experts=4, num_train_classes=12), FixedClasses(torch.zeros(12, 64))
    )
    checkpoint = read_checkpoint(golden / "tiny_mote.pt")
    model.load_weights(checkpoint, "tiny_mote.pt", average=0.99)
    assert checkpoint["epoch"] == 7
    assert model.head.spe_cls_feature.shape == (400, 64)
    for name, value in checkpoint["fusion_model_state_dict"].items():
        assert torch.equal(model.head.state_dict()[name], value), name
    for name, value in model.towers.visual.state_dict().items():
        expected = 0.99 * checkpoint["model_state_dict"][f"visual.{name}"] + 0.01 * pretrained[name]
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)


def test_fused_weights_are_those_of_ost(ost_golden, tmp_path):
    """Every tensor, the scale and the embedding of tokens among them, is 0.2 of CLIP's and 0.8 of the tuned one."""
    with torch.serialization.safe_globals([(OrderedDict, "yacs.config.CfgNode")]):
        released = torch.load(ost_golden / "tiny_ost.pt", weights_only=True)["model"]
    pretrained = torch.load(ost_golden / "tiny_clip.pt", weights_only=True)
    torch.save({name: tensor.clone() for name, tensor in pretrained.items()}, tmp_path / "clip.pt")
    clip = load_clip(str(tmp_path / "clip.pt"))

    def released_name(name: str) -> str:
        if name == "logit_scale":
            return name
        return name.replace("visual.", "image_encoder.") if "visual." in name else f"text_encoder.{name}"

    tuned = {name: released[f"module.{released_name(name)}"].float() for name in clip.state_dict()}
    system = PlainCLIP(clip, MeanPooling(), template_classes(clip, ["yoga"], "name", is_live=True))
    system.load_weights({MODEL: tuned, HEAD: {}}, "tiny_ost.pt", 0.8)
    with np.load(ost_golden / "fusion.npz") as golden:
        assert float(golden["share_of_clip"]) == pytest.approx(0.2)
        for name, value in clip.state_dict().items():
            key = released_name(name)
            expected = golden[f"fused/{key}"]
            sample = value.flatten()[:: int(golden[f"fused_stride/{key}"])]
            if name.startswith("token_embedding"):
                sample = value[torch.from_numpy(golden[f"fused_rows/{key}"]).long()].flatten()[
                    :: int(golden[f"fused_stride/{key}"])
                ]
            assert np.abs(sample.numpy() - expected).max() <= 1e-6 * np.abs(expected).max(), name
            assert float(value.double().norm()) == pytest.approx(float(golden[f"fused_norm/{key}"]), rel=1e-5), name
