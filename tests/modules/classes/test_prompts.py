"""Learned prompts against the published code's numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modules.classes import prompts
from modules.classes.prompts import POSITIONS, LearnedPrompts
from modules.scores import cosines

TOLERANCE = 1e-5  # of the largest magnitude


@pytest.fixture(scope="module")
def coop(text4vis_golden) -> dict[str, torch.Tensor]:
    """coop.npz."""
    with np.load(text4vis_golden / "coop.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("owner", ["shared", "per_class"])
def test_prompts_are_those_of_the_published_code(
    coop, published_clip, published_names, relative_error, owner, position
):
    classes = LearnedPrompts(published_clip, published_names, 4, position, per_class=owner == "per_class")
    assert torch.equal(classes.tokens.int(), coop["tokens"])
    assert classes.ctx.shape == coop[f"ctx_{owner}"].shape
    classes.ctx.data = coop[f"ctx_{owner}"]
    features = classes.encode(published_clip)
    logits = coop["logit_scale"].exp() * cosines(coop["features"][:, None], features)
    F.cross_entropy(logits, coop["labels"]).backward()
    golden = {name: coop[f"{owner}_{position}/{name}"] for name in ("class_features", "logits", "grad_ctx")}
    assert relative_error(features, F.normalize(golden["class_features"], dim=-1)) < TOLERANCE
    assert relative_error(logits, golden["logits"]) < TOLERANCE
    assert relative_error(classes.ctx.grad, golden["grad_ctx"]) < TOLERANCE


def test_context_vectors_start_small_from_their_seed(tiny_clip):
    names = [f"activity {number}" for number in range(40)]
    first, again = (LearnedPrompts(tiny_clip, names, 8, per_class=True, seed=3).ctx for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, LearnedPrompts(tiny_clip, names, 8, per_class=True, seed=4).ctx)
    assert float(first.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert LearnedPrompts(tiny_clip, names).ctx.shape == (4, 64)


def test_prompts_are_learned_in_a_checkpoint_and_nothing_else_of_them(tiny_clip):
    classes = LearnedPrompts(tiny_clip, ["yoga", "zumba"])
    assert list(classes.state_dict()) == ["ctx"]
    assert len(classes) == 2


def test_prompts_are_encoded_a_part_at_a_time_where_no_graph_holds_them_all(tiny_clip, monkeypatch):
    classes = LearnedPrompts(tiny_clip, ["yoga", "juggling balls", "zumba"], position="front")
    counts, encode = [], tiny_clip.encode_embedded
    monkeypatch.setattr(tiny_clip, "encode_embedded", lambda x, ends: counts.append(len(x)) or encode(x, ends))
    whole = classes.encode(tiny_clip).detach()
    monkeypatch.setattr(prompts, "CHUNK", 2)
    with torch.no_grad():
        torch.testing.assert_close(classes.encode(tiny_clip), whole)
    assert counts == [3, 2, 1]


def test_a_name_that_does_not_fit_beside_the_context_is_named(tiny_clip):
    name = "very " * 65 + "slow"
    LearnedPrompts(tiny_clip, [name], num_context=8)
    with pytest.raises(ValueError, match=r"class name too long \(label 1, 'very very.*needs 78 tokens.*at most 77"):
        LearnedPrompts(tiny_clip, ["yoga", name], num_context=9)


@pytest.mark.parametrize(("num_context", "position"), [(4, "behind"), (0, "end")])
def test_settings_that_mean_nothing_are_refused(tiny_clip, num_context, position):
    with pytest.raises(ValueError, match=r"at least 1 context vector .* one of end, middle, front, found \d and '"):
        LearnedPrompts(tiny_clip, ["yoga"], num_context, position)


def test_another_text_tower_is_refused(tiny_clip):
    with pytest.raises(ValueError, match="learned prompts need CLIP's text tower"):
        LearnedPrompts(tiny_clip.visual, ["yoga"])


@pytest.mark.parametrize("per_class", [False, True])
def test_context_vectors_are_taken_from_a_checkpoint_of_that_shape_only(tiny_clip, per_class):
    classes, other = (LearnedPrompts(tiny_clip, ["yoga", "zumba"], per_class=per_class, seed=seed) for seed in (0, 1))
    classes.load_context(other.state_dict()["ctx"].half())
    torch.testing.assert_close(classes.ctx, other.ctx, rtol=1e-3, atol=1e-4)
    assert classes.ctx.requires_grad
    for context, found in ((None, "none"), (torch.zeros(3, 64), r"\[3, 64\]")):
        with pytest.raises(ValueError, match=rf"expected context vectors .*4, 64\] in the checkpoint, found {found}"):
            classes.load_context(context)
