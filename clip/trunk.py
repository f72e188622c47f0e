"""What training asks of an image tower that timm or open_clip built: its blocks, recomputation, dropout, a short cut.

An option that a tower does not have is an error: it would silently do nothing.
"""

from collections.abc import Callable

from timm.layers import DropPath
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from clip.blocks import FULL, NONE, recomputable, set_recompute

# Why a tower computes nothing again.
WITHOUT_BLOCKS = "which has no blocks, or BatchNorms in them, which would count every batch twice"


def trunk_of(visual: nn.Module) -> nn.Module:
    """The part that timm built, or the tower itself."""
    return getattr(visual, "trunk", visual)


def name_of(visual: nn.Module) -> str:
    """What the tower is, for errors."""
    return f"the image tower is a {type(trunk_of(visual)).__name__}"


def blocks_of(visual: nn.Module) -> list[nn.Module]:
    """The blocks that repeat, in their order."""
    lists = [getattr(module, name, ()) for module in visual.modules() for name in ("blocks", "resblocks")]
    return [block for each in lists if isinstance(each, nn.Sequential | nn.ModuleList) for block in each]


def norms_of(visual: nn.Module) -> list[nn.BatchNorm2d]:
    """All BatchNorms."""
    return [module for module in visual.modules() if isinstance(module, nn.BatchNorm2d)]


def let_recompute(tower: nn.Module) -> None:
    """Have the blocks of a tower run as ``network.recompute`` says, see ``clip.blocks.recomputable``.

    Blocks with BatchNorms stay as they are: in a second pass these would count every batch twice.
    """
    for block in blocks_of(tower):
        if not norms_of(block):
            block.recompute = NONE
            # A block of another library may do anything with its last product, so it is kept.
            _run_as(block, recomputable(block.forward.__func__, keeps_last=True))


def checkpoint(visual: nn.Module, is_on: bool) -> None:
    """Recompute whole blocks in the backward pass, or nothing.

    Raises:
        ValueError: no block can.
    """
    if not set_recompute(visual, FULL if is_on else NONE) and is_on:
        raise ValueError(f"network.recompute full: {name_of(visual)}, {WITHOUT_BLOCKS}")


def check_drop_path(visual: nn.Module) -> None:
    """See that stochastic depth was built in.

    Raises:
        ValueError: no block has it.
    """
    if not any(isinstance(module, DropPath) and module.drop_prob for module in visual.modules()):
        raise ValueError(f"network.drop_out: {name_of(visual)}, which has no such option")


def add_dropout(visual: nn.Module, rate: float) -> None:
    """Dropout on the embedded patches.

    Raises:
        ValueError: the tower has no place for it.
    """
    trunk = trunk_of(visual)
    if not isinstance(getattr(trunk, "pos_drop", None), nn.Dropout):
        raise ValueError(f"network.emb_dropout: {name_of(visual)}, which has no such option")
    trunk.pos_drop = nn.Dropout(rate)


def fit_size(visual: nn.Module, size: int, arch: str) -> None:
    """Take pictures of so many pixels.

    Raises:
        ValueError: the tower was built for others.
    """
    trunk = trunk_of(visual)
    patches = getattr(trunk, "patch_embed", None)
    built_for = getattr(patches, "img_size", None)
    if built_for is None or tuple(built_for) == (size, size):
        return
    if not hasattr(trunk, "set_input_size"):
        raise ValueError(f"network.arch {arch}: {name_of(visual)} of {built_for[0]} pixels, image_size says {size}")
    if size % (patch := patches.patch_size[0]):
        raise ValueError(f"network.arch {arch}: image_size: expected a multiple of {patch} pixels, found {size}")
    trunk.set_input_size((size, size))


def read_first_only(visual: nn.Module) -> bool:
    """Where the embedding is the first token's alone, let the last block compute no other's feed-forward layer.

    Returns:
        Whether the tower is of this kind; else nothing has changed.
    """
    trunk = trunk_of(visual)
    if not isinstance(trunk, VisionTransformer | Eva) or trunk.attn_pool is not None or trunk.global_pool != "token":
        return False
    last = trunk.blocks[-1]
    if type(last) not in FIRST_ONLY:
        return False
    _run_as(last, FIRST_ONLY[type(last)])
    return True


def _run_as(block: nn.Module, forward: Callable[..., Tensor]) -> None:
    """Give one block a ``forward`` of its own; a copy of the block gets a copy of it."""
    block.forward = forward.__get__(block)


def _first_of_block(block: Block, x: Tensor, **attention: object) -> Tensor:
    """timm's block for the first token: [N, L, D] -> [N, 1, D]."""
    mixed = block.attn(block.norm1(x), **attention)[:, :1]
    x = x[:, :1] + block.drop_path1(block.ls1(mixed))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def _first_of_eva_block(block: EvaBlock, x: Tensor, **attention: object) -> Tensor:
    """The same of EVA and PE, whose scales are parameters or not there."""
    mixed = block.attn(block.norm1(x), **attention)[:, :1]
    x = x[:, :1] + block.drop_path1(mixed if block.gamma_1 is None else block.gamma_1 * mixed)
    hidden = block.mlp(block.norm2(x))
    return x + block.drop_path2(hidden if block.gamma_2 is None else block.gamma_2 * hidden)


FIRST_ONLY: dict[type, Callable[..., Tensor]] = {Block: _first_of_block, EvaBlock: _first_of_eva_block}
