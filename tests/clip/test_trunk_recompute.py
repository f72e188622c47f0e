"""network.recompute on towers of timm and open_clip: the same gradients, fewer bytes, or an error."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import kept_bytes
from clip.blocks import FULL, LIGHT, MEDIUM, NONE, RECOMPUTE, set_recompute
from clip.load import load_towers
from clip.open_clip_tower import OpenClipTower
from clip.trunk import norms_of
from engine.flops import count_flops
from modules.classes.templates import LiveTexts
from modules.heads.mean import MeanPooling
from modules.recompute import apply_recompute
from modules.systems.base import Batch, Draws
from modules.systems.clip import PlainCLIP
from tests.clip.members import FAMILIES, description, reference_of, save_member, shrink_trunks, some_tokens

# Each with a kind of block of its own, or of neighbours of it: turned positions, SwiGLU, a last block that computes
# one token, a stem with BatchNorms, convolutions, open_clip's own blocks.
RECOMPUTING = ("PE-Core-T", "SigLIP2-B-16", "EVA02", "MobileCLIP2-L-14", "MobileCLIP2-B", "ConvNeXt", "CLIPA")
FAST = ("PE-Core-T", "SigLIP2-B-16", "CLIPA")
BY_FAMILY = [pytest.param(each, marks=[pytest.mark.slow] * (each not in FAST)) for each in RECOMPUTING]
DROPPING = [each for each in BY_FAMILY if each.values != ("CLIPA",)]
# Of a step's operations: attention's output layer, and where they are three layers, queries, keys and values.
LITTLE = 1.12


@pytest.fixture(autouse=True)
def small_trunks(monkeypatch):
    shrink_trunks(monkeypatch)


@pytest.fixture
def load(tmp_path):
    """A member of a family in training, with options, and entries of its description changed."""

    def load(family: str, parts: dict | None = None, **options) -> OpenClipTower:
        tree = description(family)
        for name, changes in (parts or {}).items():
            tree["model_cfg"][name] |= changes
        return load_towers(save_member(tmp_path / family, tree, reference_of(tree)), **options).train()

    return load


def encoder_of_images(towers: OpenClipTower) -> Callable[[], Tensor]:
    images = torch.randn(3, 3, *(towers.spec.image_size,) * 2, generator=torch.Generator().manual_seed(3))
    return lambda: towers.encode_image(images)


def encoder_of_texts(towers: OpenClipTower, family: str) -> Callable[[], Tensor]:
    tokens = some_tokens(FAMILIES[family].context_length, FAMILIES[family].vocab_size)
    return lambda: towers.encode_text(tokens)


def step_of(part: nn.Module, encode: Callable[[], Tensor], name: str) -> tuple[dict[str, Tensor], int]:
    """Gradients of all parameters, and operations, of a step that recomputes so."""
    assert set_recompute(part, name) > 0
    part.zero_grad()
    torch.manual_seed(1)
    with FlopCounterMode(display=False) as counter:
        encode().square().sum().backward()
    return {key: value.grad for key, value in part.named_parameters()}, counter.get_total_flops()


def check_steps(part: nn.Module, encode: Callable[[], Tensor]) -> None:
    """The same gradients to the bit, whatever is recomputed, and few products twice with ``light``: D of D alone."""
    found = {name: step_of(part, encode, name) for name in RECOMPUTE}
    expected, operations = found[NONE]
    assert all(value is not None for value in expected.values())  # no parameter is left out, which DDP would wait for
    for gradients, _ in found.values():
        assert [key for key, value in expected.items() if not torch.equal(gradients[key], value)] == []
    counts = [count / operations for _, count in found.values()]
    assert counts == sorted(counts)
    assert 1 <= found[LIGHT][1] / operations < LITTLE
    assert found[FULL][1] > 1.1 * operations


@pytest.mark.parametrize("family", BY_FAMILY)
def test_an_image_tower_gets_the_same_gradients(family, load):
    towers = load(family)
    check_steps(towers.visual, encoder_of_images(towers))


@pytest.mark.parametrize("family", DROPPING)
def test_the_same_paths_and_patches_are_dropped_again(family, load):
    options = {"emb_dropout": 0.2} if family != "ConvNeXt" else {}
    towers = load(family, drop_path=0.4, **options)
    encode = encoder_of_images(towers)
    check_steps(towers.visual, encode)
    assert not torch.equal(encode(), encode())


@pytest.mark.parametrize("family", ["PE-Core-T", "SigLIP2-B-16", "CLIPA"])
def test_a_text_tower_gets_the_same_gradients(family, load):
    towers = load(family)
    check_steps(towers.text, encoder_of_texts(towers, family))


def test_scales_of_layers_get_the_same_gradients(load):
    scales = {"ls_init_value": 0.5}
    towers = load("CLIPA", {"vision_cfg": scales, "text_cfg": scales})
    assert any("ls_2" in name for name, _ in towers.visual.named_parameters())
    check_steps(towers.visual, encoder_of_images(towers))
    check_steps(towers.text, encoder_of_texts(towers, "CLIPA"))


@pytest.mark.parametrize("family", BY_FAMILY)
def test_the_more_is_recomputed_the_less_is_kept(family, load):
    towers, kept = load(family), {}
    images = torch.randn(2, 3, *(towers.spec.image_size,) * 2)
    for name in RECOMPUTE:
        set_recompute(towers, name)
        kept[name] = kept_bytes(towers.encode_image, images, is_half=False)
    assert kept[FULL] < 0.8 * kept[LIGHT]
    assert kept[LIGHT] < 0.9 * kept[NONE]  # small members have as much in their stems as in their blocks


def test_light_keeps_a_block_s_input_and_what_products_and_attention_give(load):
    block, kept = load("SigLIP2-B-16").visual.trunk.blocks[0], {}
    length, width, heads = 9, 64, 4
    for name in RECOMPUTE:
        set_recompute(block, name)
        kept[name] = kept_bytes(block, torch.randn(2, length, width), is_half=False)
    of_width = 4 * length * width  # bytes of a tensor [L, D] in fp32
    log_sums = 4 * length * heads  # of attention
    assert kept[FULL] == of_width
    # Input, projections, attention, hidden layer, the last product.
    assert kept[LIGHT] == of_width * (1 + 3 + 1 + 4 + 1) + log_sums
    assert kept[MEDIUM] == of_width * (1 + 1 + 4 + 1) + log_sums


def test_all_blocks_of_both_towers_do_what_the_configuration_says_in_training_alone(load):
    towers = load("PE-Core-T")
    system = PlainCLIP(towers, MeanPooling(), LiveTexts(some_tokens(32, 49408)[:, None])).train()
    for name in ("", *RECOMPUTE):
        apply_recompute(system, name)
        assert Counter(block.recompute for block in towers.blocks()) == {name or NONE: 3 + 2}
    apply_recompute(system, FULL)
    encode, calls = encoder_of_images(towers), []
    towers.blocks()[0].attn.register_forward_pre_hook(lambda *inputs: calls.append(1))
    for mode, runs in ((True, 2), (False, 1)):
        calls.clear()
        system.train(mode)
        encode().sum().backward()
        assert len(calls) == runs


def test_operations_of_a_step_are_counted_once(load):
    towers = load("PE-Core-T")
    system = PlainCLIP(towers, MeanPooling(), LiveTexts(some_tokens(32, 49408)[:4, None])).train()
    clips = torch.zeros(2, 2, 3, 32, 32, dtype=torch.uint8, device="meta")
    batch = Batch(clips=clips, labels=torch.zeros(2, dtype=torch.long, device="meta"))
    counts = []
    for name in RECOMPUTE:
        apply_recompute(system, name)
        counts.append(count_flops(system, batch, Draws(torch.Generator())))
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("name", [LIGHT, FULL])
def test_a_tower_with_batch_norms_in_its_blocks_computes_nothing_again(name, load):
    towers = load("MobileCLIP2-S0")
    assert norms_of(towers.visual)
    system = PlainCLIP(towers, MeanPooling(), LiveTexts(some_tokens(77, 49408)[:, None]))
    with pytest.raises(ValueError, match=rf"network\.recompute {name}: .* BatchNorms in ") as error:
        apply_recompute(system, name)
    assert "\n" not in str(error.value)
    apply_recompute(system, "")
