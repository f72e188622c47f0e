"""No option of training silently does nothing on a trunk of timm: it works, or it is an error."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from clip.load import load_towers
from clip.open_clip_tower import OpenClipTower
from clip.trunk import FIRST_ONLY
from engine.sharding import shard
from modules.classes.base import FixedClasses
from modules.compile import compile_blocks
from modules.heads.mean import MeanPooling
from modules.systems.base import Batch, Draws
from modules.systems.clip import PlainCLIP
from tests.clip.members import FAMILIES, shrink_trunks, write_member
from utils.distributed import process_group

TRANSFORMERS = ("PE-Core-T", "SigLIP2-B-16", "EVA02", "MobileCLIP2-L-14")
WITH_NORMS = ("MobileCLIP2-S0", "MobileCLIP2-B")
NUM_BLOCKS = dict.fromkeys(TRANSFORMERS, 3) | {"MobileCLIP2-B": 2, "MobileCLIP2-S0": 4, "ConvNeXt": 4}


@pytest.fixture(autouse=True)
def small_trunks(monkeypatch):
    shrink_trunks(monkeypatch)


@pytest.fixture
def load(tmp_path):
    """A member of a family, with options."""

    def load(family: str, **options) -> OpenClipTower:
        return load_towers(write_member(family, tmp_path / family)[0], **options)

    return load


def images_of(towers: OpenClipTower, count: int = 3) -> torch.Tensor:
    size = towers.spec.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("family", NUM_BLOCKS)
def test_each_block_is_compiled(family, load, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, *args, **kwargs: compiled.append(self))
    towers = load(family)
    assert compile_blocks(towers, torch.device("cpu"))
    blocks = set(compiled[1:])  # the first is the trial
    assert set(towers.blocks()) == blocks
    assert len([block for block in towers.visual.modules() if block in blocks]) == NUM_BLOCKS[family]
    # What is left outside the blocks is little: stem, pooling, projection.
    of_blocks = {id(p) for block in blocks for p in block.parameters()}
    assert sum(id(p) in of_blocks for p in towers.visual.parameters()) > len(list(towers.visual.parameters())) / 3


def test_towers_without_blocks_are_not_compiled_without_a_word():
    with pytest.raises(ValueError, match=r"network\.compile: the towers have no blocks"):
        compile_blocks(NoBlocks(), torch.device("cpu"))


class NoBlocks(nn.Module):
    blocks = list


@pytest.mark.slow
@pytest.mark.parametrize("family", TRANSFORMERS)
def test_compiled_blocks_compute_the_same(family, load):
    towers = load(family)
    images, names = images_of(towers), list(towers.state_dict())
    expected = towers.encode_image(images)
    if not compile_blocks(towers, torch.device("cpu")):
        pytest.skip("torch.compile does not work here: no C++ compiler, or Python's headers are missing")
    torch.testing.assert_close(towers.encode_image(images), expected, rtol=1e-4, atol=1e-4)
    assert list(towers.state_dict()) == names


@pytest.mark.parametrize("family", ["PE-Core-T", "EVA02"])
def test_each_block_is_sharded_and_computes_the_same(family, load, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    towers = load(family)
    towers.drop_text()
    system = PlainCLIP(towers, MeanPooling(), FixedClasses(torch.eye(2, 64)))
    clips = torch.randint(256, (2, 2, 3, *images_of(towers).shape[-2:]), dtype=torch.uint8)
    batch, draws = Batch(clips=clips, labels=torch.tensor([0, 1])), Draws(torch.Generator())
    expected = system(batch, draws).total.detach()
    with process_group(60):
        shard(system, system.blocks())
        assert [isinstance(block, FSDPModule) for block in towers.blocks()] == [True] * 3
        loss = system(batch, draws).total
        torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-5)
        loss.backward()
        assert all(isinstance(p.grad, DTensor) for p in towers.visual.parameters())


@pytest.mark.parametrize("family", [*TRANSFORMERS, *WITH_NORMS, "ConvNeXt"])
def test_paths_are_dropped_in_training_alone(family, load):
    plain, towers = load(family).eval(), load(family, drop_path=0.5)
    images = images_of(towers, 8)
    torch.testing.assert_close(towers.eval().encode_image(images), plain.encode_image(images), rtol=1e-5, atol=1e-5)
    towers.requires_grad_(False).train()  # BatchNorms stay as they are
    assert not torch.allclose(towers.encode_image(images), plain.encode_image(images), rtol=1e-2)
    plain.requires_grad_(False).train()  # whatever the recipe of the pretraining had
    torch.testing.assert_close(plain.encode_image(images), plain.eval().encode_image(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_dropout_of_patches_acts_in_training_alone(family, load):
    plain, towers = load(family).eval(), load(family, emb_dropout=0.5)
    images = images_of(towers)
    torch.testing.assert_close(towers.eval().encode_image(images), plain.encode_image(images), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(towers.train().encode_image(images), plain.encode_image(images), rtol=1e-2)


LACKING = {
    "dropout of a convolutional tower": ("MobileCLIP2-S0", {"emb_dropout": 0.1}, r"network\.emb_dropout: .* FastVit"),
    "paths of open_clip's own tower": ("CLIPA", {"drop_path": 0.1}, r"network\.drop_out: the image tower of local-dir"),
    "joint attention": ("PE-Core-T", {"joint_frames": 4}, r"network\.joint_st: the towers of local-dir:.* no such"),
    "a temporal module": ("PE-Core-T", {"time_module": "tsm"}, r"network\.tm: the towers of"),
    "another activation": ("PE-Core-T", {"activation": "gelu"}, r"network\.activation: the towers of"),
}


@pytest.mark.parametrize("case", LACKING)
def test_an_option_that_a_tower_lacks_is_an_error(case, load):
    family, options, message = LACKING[case]
    with pytest.raises(ValueError, match=message):
        load(family, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_block_computes_what_is_read_alone(family, load):
    towers = load(family)
    if not isinstance(towers, OpenClipTower) or not hasattr(towers.visual, "trunk"):
        return  # of clip.model, whose own tests look at it
    reads_first = getattr(towers.visual.trunk, "global_pool", "") == "token"
    assert reads_first == (family in ("EVA02", "MobileCLIP2-B", "MobileCLIP2-L-14"))
    if not reads_first:
        return
    last, lengths = towers.blocks()[NUM_BLOCKS[family] - 1], []
    assert type(last) in FIRST_ONLY
    last.mlp.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[1]))
    images = images_of(towers)
    short = towers.eval().encode_image(images)
    del last.forward  # timm's own
    torch.testing.assert_close(short, towers.encode_image(images), rtol=1e-5, atol=1e-5)
    assert lengths[0] == 1 < lengths[1]


def test_a_copy_of_the_towers_has_a_short_cut_of_its_own(load):
    towers = load("EVA02")
    images, twin = images_of(towers), copy.deepcopy(towers)
    with torch.no_grad():
        twin.blocks()[2].mlp.fc2.bias.add_(1.0)
    assert not torch.allclose(twin.encode_image(images), towers.encode_image(images))


def test_norms_of_a_fixed_tower_keep_their_statistics(load):
    towers = load("MobileCLIP2-S0")
    images = images_of(towers)
    before = [buffer.clone() for buffer in towers.statistics()]
    towers.image_tower.requires_grad_(False)
    towers.train().encode_image(images)
    assert before
    assert all(torch.equal(one, other) for one, other in zip(before, towers.statistics(), strict=True))
    towers.image_tower.requires_grad_(True)
    towers.train().encode_image(images)
    assert not any(torch.equal(one, other) for one, other in zip(before, towers.statistics(), strict=True))
