"""The sorting head and its loss against the published code's numbers, and its own promises."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clip.names.tvts import PARTS
from clip.shapes import CLIPConfig
from clip.spacetime import SpaceTimeViT
from modules.objectives.sort import order_accuracy, sorting_loss
from modules.sorter import Sorter

RESULTS, GRADIENTS = 1e-5, 2e-5  # the tolerances of the published results


@pytest.fixture(scope="module")
def heads(tvtsv2_golden) -> dict[str, Tensor]:
    """heads.npz."""
    with np.load(tvtsv2_golden / "heads.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture
def sorter(heads) -> Sorter:
    """The published head, four attention heads wide."""
    sorter = Sorter(width=64, places=4, layers=2, heads=4)
    state = {name.removeprefix("sorter/"): value.float() for name, value in heads.items() if "sorter/" in name}
    sorter.load_state_dict(state)
    return sorter


def test_logits_loss_and_gradients_are_those_of_the_published_code(heads, sorter, relative_error):
    texts, tokens = (heads[name].clone().requires_grad_() for name in ("sort_text", "sort_video"))
    logits = sorter(texts, tokens)
    loss = 2 * sorting_loss(logits)
    loss.backward()
    assert relative_error(logits, heads["sort_logits"]) < RESULTS
    assert relative_error(loss, heads["sort_loss"]) < RESULTS
    gradients = {"video": tokens, "text": texts, "head": sorter.head.weight, "type_embed": sorter.type_embed}
    errors = {name: relative_error(of.grad, heads[f"sort_grad_{name}"]) for name, of in gradients.items()}
    assert max(errors.values()) < GRADIENTS, errors


def test_the_order_of_transcripts_at_the_input_does_not_matter(heads, sorter, relative_error):
    permutation = heads["permutation"]
    logits = sorter(heads["sort_text"][:, permutation], heads["sort_video"])
    assert relative_error(logits, heads["sort_logits_permuted"]) < RESULTS
    assert relative_error(logits[:, permutation.argsort()], heads["sort_logits"]) < RESULTS
    assert relative_error(2 * sorting_loss(logits[:, permutation.argsort()]), heads["sort_loss_permuted"]) < RESULTS


def fill(module: nn.Module, names: dict[str, str]) -> None:
    """Weights of the reference, 0.2 sin(0.37 i + 1.3 (k + 1)), k the place of the published name among all, sorted.

    Args:
        names: ends of our names, and of the published ones.
    """
    published = {}
    for name, weight in module.named_parameters():
        own = next((own for own in names if name.endswith(own)), None)
        published[name.removesuffix(own) + names[own] if own else name] = weight
    for number, name in enumerate(sorted(published)):
        weight = published[name]
        values = 0.2 * torch.sin(0.37 * torch.arange(1, weight.numel() + 1).double() + 1.3 * (number + 1))
        weight.data = values.view(weight.shape) + (name.endswith("weight") and weight.ndim == 1)


def test_a_clip_and_its_transcripts_give_the_hand_numbers_of_the_reference():
    shapes = {"embed_dim": 6, "image_size": 8, "patch_size": 4, "vision_width": 8, "vision_layers": 2}
    shapes |= {"vision_heads": 2, "text_width": 64, "text_layers": 1, "text_heads": 1}
    tower = SpaceTimeViT(CLIPConfig(**shapes, tower="divided", temporal_rows=3)).double()
    fill(tower, {own: theirs for theirs, own in PARTS.items()})
    images = torch.cos(0.11 * torch.arange(2 * 3 * 3 * 8 * 8).double()).view(6, 3, 8, 8)
    tokens = tower.tokens(images, 3).tokens  # [2, 13, 6]
    assert float(tokens.detach().sum()) == pytest.approx(3.554426245489645, rel=1e-12)
    sorter = Sorter(width=6, places=4, heads=2).double()
    fill(sorter, {})
    logits = sorter(torch.sin(0.23 * torch.arange(48).double()).view(2, 4, 6), tokens)
    expected = [
        [-0.06917726, 0.54786897, 0.00188547, -0.05098868],
        [0.62060634, -0.1033471, 0.09949018, 0.4822131],
        [0.77359874, -0.21783843, 0.08492978, 0.61430949],
        [0.47165119, 0.08269133, 0.02350543, 0.38804819],
    ]
    torch.testing.assert_close(logits[0].detach(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-8)
    assert float(2 * sorting_loss(logits).detach()) == pytest.approx(3.043417802663547, rel=1e-6)


def test_the_right_places_cost_nothing_and_the_wrong_ones_much():
    right = 50 * torch.eye(4).expand(3, 4, 4)
    assert float(sorting_loss(right)) < 1e-6
    assert float(sorting_loss(right.flip(1))) > 40
    assert float(sorting_loss(torch.zeros(3, 4, 4))) == pytest.approx(math.log(4))


def test_a_clip_counts_as_ordered_only_if_all_its_transcripts_are():
    logits = torch.eye(4).repeat(4, 1, 1)
    logits[1] = logits[1, [1, 0, 2, 3]]
    assert float(order_accuracy(logits)) == 0.75


def test_new_parameters_start_as_torch_has_them_and_types_at_zero():
    sorter = Sorter(width=512, places=4)
    assert sum(parameter.numel() for parameter in sorter.parameters()) == 6_308_868  # of the reference, C = 512
    assert not sorter.type_embed.any()
    assert float(sorter.head.weight.detach().abs().max()) <= 512**-0.5


def test_heads_that_do_not_share_the_width_are_told():
    with pytest.raises(ValueError, match=r"tvtsv2\.sorter_heads: 5 heads do not share .* 64"):
        Sorter(width=64, places=4, heads=5)


def test_a_sorter_may_begin_by_looking_at_what_is_alike():
    torch.manual_seed(0)
    random, alike = Sorter(64, 4), Sorter(64, 4, starts_alike=True)
    for block in alike.blocks:
        query, key, value = block.attn.qkv.weight.chunk(3)
        torch.testing.assert_close(query, key)
        assert not torch.equal(key, value)
    token = torch.randn(50, 64)
    for sorter, looks in ((random, False), (alike, True)):
        query, key, _ = sorter.blocks[0].attn.qkv.weight.chunk(3)
        scores = (token @ query.T) @ (token @ key.T).T  # of every token for every other, all heads together
        assert (scores.argmax(dim=1) == torch.arange(50)).all() == looks
