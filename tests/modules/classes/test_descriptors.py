"""Classes that are sets of descriptors."""

import logging
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from clip.load import load_clip
from clip.tokenizer import tokenize
from modules.classes import descriptors
from modules.classes.descriptor_files import read_descriptors
from modules.classes.descriptors import FixedDescriptors, LiveDescriptors, descriptor_classes, filled

NAMES = ["yoga", "juggling balls", "tai chi"]


@pytest.fixture
def file(tmp_path):
    """Two static things and two steps of each class."""
    tree = {name: {part: [f"{name} {part} {n}" for n in range(2)] for part in ("static", "steps")} for name in NAMES}
    (tmp_path / "d.yaml").write_text(yaml.safe_dump({"classes": tree}))
    return tmp_path / "d.yaml"


@pytest.fixture(scope="module")
def published_labels(ost_golden) -> list[str]:
    """Names of the published results' twelve classes."""
    lines = (ost_golden.parent / "mote" / "labels.csv").read_text().splitlines()[1:]
    return [line.split(",", 1)[1] for line in lines]


@pytest.fixture(scope="module")
def published_pair(ost_golden) -> list[str]:
    return [str(ost_golden / f"{name}_descriptors.json") for name in ("spatio", "temporal")]


@pytest.fixture(scope="module")
def published_tower(ost_golden, tmp_path_factory):
    """The towers of the published OST results, by CLIP's own names."""
    with torch.serialization.safe_globals([(OrderedDict, "yacs.config.CfgNode")]):
        state = torch.load(ost_golden / "tiny_ost.pt", weights_only=True)["model"]
    names = {"module.image_encoder.": "visual.", "module.text_encoder.": "", "module.": ""}
    ours = {}
    for name, tensor in state.items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        ours[names[prefix] + name.removeprefix(prefix)] = tensor.float().clone()
    path = tmp_path_factory.mktemp("clip") / "tiny_ost_as_clip.pt"
    torch.save(ours, path)
    return load_clip(str(path)).float().eval()


def test_prompts_and_tokens_are_the_published_ones(ost_golden, published_pair, published_labels):
    texts = filled(read_descriptors(published_pair, published_labels), published_labels)
    with np.load(ost_golden / "forward_T8.npz") as found:
        for part, name in zip(texts, ("spatio", "temporal"), strict=True):
            assert part == found[f"prompts_{name}"].tolist()
            tokens = torch.stack([tokenize(of_class) for of_class in part])
            assert torch.equal(tokens, torch.from_numpy(found[f"tokens_{name}"]).long())


def test_features_are_the_published_ones(ost_golden, published_tower, published_pair, published_labels, relative_error):
    classes = descriptor_classes(published_tower, published_labels, published_pair)
    with np.load(ost_golden / "forward_T8.npz") as found:
        texts = torch.stack([torch.from_numpy(found[f"text_{name}"]) for name in ("spatio", "temporal")])
        assert relative_error(classes.encode(published_tower), F.normalize(texts, dim=-1)) < 1e-5
        assert relative_error(published_tower.logit_scale.exp(), found["logit_scale"]) < 1e-5


@torch.no_grad()
def test_each_descriptor_is_one_unit_text(file, tiny_clip):
    features = descriptor_classes(tiny_clip, NAMES, file).encode(tiny_clip)
    assert features.shape == (2, 3, 2, 64)
    text = "A video of juggling balls usually includes juggling balls steps 1"
    torch.testing.assert_close(features[1, 1, 1], F.normalize(tiny_clip.encode_text(tokenize([text]))[0], dim=-1))
    text = "This is a video about tai chi static 0"
    torch.testing.assert_close(features[0, 2, 0], F.normalize(tiny_clip.encode_text(tokenize([text]))[0], dim=-1))


@torch.no_grad()
def test_live_descriptors_encode_to_what_fixed_ones_hold(file, tiny_clip):
    fixed = descriptor_classes(tiny_clip, NAMES, file)
    live = descriptor_classes(tiny_clip, NAMES, file, is_live=True)
    assert isinstance(fixed, FixedDescriptors)
    assert isinstance(live, LiveDescriptors)
    assert (fixed.needs_text, live.needs_text) == (False, True)
    assert (len(fixed), len(live)) == (3, 3)
    assert not [*fixed.parameters(), *live.parameters()]
    assert (fixed.phrases, fixed.fingerprint) == (live.phrases, live.fingerprint)
    torch.testing.assert_close(live.encode(tiny_clip), fixed.encode(tiny_clip))
    labels = torch.tensor([2, 0, 2, 2])
    torch.testing.assert_close(live.encode(tiny_clip, labels), fixed.encode(tiny_clip)[:, labels])
    assert torch.equal(fixed.encode(tiny_clip, labels), fixed.encode(tiny_clip)[:, labels])


def test_only_the_distinct_classes_of_a_batch_are_encoded_with_the_gradients_of_all(file, tiny_clip, monkeypatch):
    live = descriptor_classes(tiny_clip, NAMES, file, is_live=True)
    weights = torch.randn(2, 3, 2, 64, generator=torch.Generator().manual_seed(0))
    parameter = tiny_clip.text_projection
    (expected,) = torch.autograd.grad((live.encode(tiny_clip)[:, [1, 0, 1]] * weights).sum(), parameter)
    counts, encode = [], tiny_clip.encode_text
    monkeypatch.setattr(tiny_clip, "encode_text", lambda tokens: counts.append(len(tokens)) or encode(tokens))
    (found,) = torch.autograd.grad((live.encode(tiny_clip, torch.tensor([1, 0, 1])) * weights).sum(), parameter)
    assert counts == [2 * 2 * 2]
    torch.testing.assert_close(found, expected)


def test_encoding_is_in_eval_mode_without_gradients_and_restores_the_mode(file, tiny_clip):
    tiny_clip.train()
    tiny_clip.transformer.resblocks[0].drop_path.rate = 0.9
    features = [descriptor_classes(tiny_clip, NAMES, file).encode(tiny_clip) for _ in range(2)]
    assert torch.equal(*features)
    assert not features[0].requires_grad
    assert tiny_clip.training


def test_texts_are_encoded_a_part_at_a_time_where_no_graph_holds_them_all(file, tiny_clip, monkeypatch):
    live = descriptor_classes(tiny_clip, NAMES, file, is_live=True)
    monkeypatch.setattr(descriptors, "CHUNK", 5)
    counts, encode = [], tiny_clip.encode_text
    monkeypatch.setattr(tiny_clip, "encode_text", lambda tokens: counts.append(len(tokens)) or encode(tokens))
    live.encode(tiny_clip)
    with torch.no_grad():
        live.encode(tiny_clip)
    assert counts == [12, 5, 5, 2]


def test_shapes_alone_can_be_computed(file, tiny_clip):
    live = descriptor_classes(tiny_clip, NAMES, file, is_live=True)
    labels = torch.zeros(2, dtype=torch.long, device="meta")
    assert live.encode(tiny_clip.to("meta"), labels).shape == (2, 2, 2, 64)


def test_a_descriptor_that_is_too_long_is_named_with_its_class(file, tiny_clip):
    tree = yaml.safe_load(file.read_text())
    tree["classes"]["tai chi"]["steps"][1] = "slow " * 80
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(
        ValueError, match=r"descriptor 2 in steps of class 'tai chi': .*at most 77: 'A video of tai chi"
    ):
        descriptor_classes(tiny_clip, NAMES, file)


def test_the_fingerprint_is_of_the_texts_that_are_read_not_of_the_file(file, tiny_clip, caplog):
    fingerprint = descriptor_classes(tiny_clip, NAMES, file).fingerprint
    tree = yaml.safe_load(file.read_text())
    file.write_text("# a remark\n" + yaml.safe_dump({"classes": dict(reversed(tree["classes"].items()))}))
    with caplog.at_level(logging.WARNING):
        assert descriptor_classes(tiny_clip, NAMES, file).fingerprint == fingerprint
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert descriptor_classes(tiny_clip, NAMES[::-1], file).fingerprint != fingerprint
