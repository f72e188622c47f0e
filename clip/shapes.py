"""The shapes of a CLIP, and what its tensors tell of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from clip.resnet import EXPANSION, STAGES, STRIDE
from clip.shift import pretrained_name

# Attention heads are 64 wide but for LAION's larger towers, which no tensor shape tells: width -> heads.
# The same towers use the exact GELU, all of OpenAI's the quick one.
WIDE_VISION_HEADS = {1280: 16, 1408: 16, 1664: 16}
HEAD_WIDTH = 64
POOLED = EXPANSION * 2 ** (STAGES - 1)  # the attention pool of a ResNet is so many times as wide as its stem
# Tensors that tell the shapes of a CLIP, and their dimensions.
TEXT_TELLING = {"token_embedding.weight": 2, "positional_embedding": 2, "text_projection": 2}
STEM = "visual.conv1.weight"
TELLING = {
    "ViT": {STEM: 4, "visual.positional_embedding": 2, "visual.proj": 2, **TEXT_TELLING},
    "ResNet": {
        STEM: 4,
        "visual.layer1.0.conv1.weight": 4,
        "visual.attnpool.positional_embedding": 2,
        "visual.attnpool.c_proj.weight": 2,
        **TEXT_TELLING,
    },
}
# Beginnings of names that only one kind of image tower has.
MARKS = {"ViT": ("visual.proj", "visual.transformer.", "visual.positional_embedding"), "ResNet": ("visual.layer",)}
TEMPORAL = "visual.temporal_embedding"  # which only a space-time tower has

FRAMES, DIVIDED = "frames", "divided"  # network.tower: how a ViT sees the frames of a clip, see ``clip.model``
NUM_FRAMES = 12  # rows of the temporal embedding in all released space-time towers


@dataclass(frozen=True)
class CLIPConfig:
    """Shapes of both towers, and the training options of the video task.

    ``joint_frames`` > 0 lets the vision tower attend over the patches of that many frames at once
    (published option ``joint_st``). ``drop_path`` is the rate of the last block (published ``drop_out``:
    stochastic depth, rising linearly over the blocks, the same rate on attention weights). ``time_module`` names a
    module of ``clip.shift`` between the frames of a clip (published ``tm``; empty: none). ``tower`` is one of
    ``IMAGE_TOWERS``: frames on their own, or divided space-time attention over ``temporal_rows`` frames.

    With ``resnet_layers``, the blocks of each stage, the image tower is a ResNet: ``vision_width`` is its stem's,
    ``vision_layers`` the sum of its blocks, ``patch_size`` the pixels for one place of its last layer.
    """

    embed_dim: int
    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    vision_mlp: int | None = None  # hidden width of the image tower's FFNs, None: 4 times its width
    context_length: int = 77
    vocab_size: int = 49408
    activation: str = "quick_gelu"
    drop_path: float = 0.0
    emb_dropout: float = 0.0
    joint_frames: int = 0
    time_module: str = ""
    resnet_layers: tuple[int, ...] = ()
    tower: str = FRAMES
    temporal_rows: int = NUM_FRAMES


@dataclass(frozen=True)
class ClipWeights:
    """A state dict in OpenAI's names, and what its shapes cannot tell (None: by the rules above)."""

    state_dict: Mapping[str, Tensor]
    activation: str | None = None
    vision_heads: int | None = None
    text_heads: int | None = None
    is_activation_unknown: bool = False  # weights of several origins have these names
    rules: Mapping[str, Any] = field(default_factory=dict)  # of pictures, where they are told: fields of ``TowerSpec``
    is_openai: bool = True  # as far as anybody knows


def kind_of(state: Mapping[str, Tensor], source: str) -> str:
    """``ViT`` or ``ResNet``: the kind of image tower that a state dict has.

    Raises:
        ValueError: tensors that tell the shapes of a CLIP are missing; lists them, for both kinds if it may be either.
    """
    names = {pretrained_name(name) for name in state}
    kinds = [kind for kind, marks in MARKS.items() if any(name.startswith(marks) for name in names)] or list(MARKS)
    missing = {kind: [name for name in TELLING[kind] if name not in names] for kind in kinds}
    if whole := next((kind for kind in kinds if not missing[kind]), None):
        return whole
    problems = [f"not a CLIP {kind}, missing {', '.join(missing[kind])}" for kind in kinds]
    raise ValueError(f"{source}: {'; '.join(problems)}")


def is_space_time(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is of a space-time tower, see ``clip.spacetime``."""
    return TEMPORAL in state


def heads_of_width(state: Mapping[str, Tensor], head_width: int, source: str) -> int:
    """Attention heads of a ViT whose heads are so wide.

    Raises:
        ValueError: it is a ResNet, or its width is no multiple.
    """
    kind, width = kind_of(state, source), len(state[STEM])
    if kind != "ViT" or width % head_width:
        found = f"one {width} wide" if kind == "ViT" else "a ResNet"
        raise ValueError(f"network.head_width {head_width}: expected a ViT of a multiple of it, {source} is {found}")
    return width // head_width


def infer_config(weights: ClipWeights, source: str = "weights") -> CLIPConfig:
    """Read a CLIPConfig off the tensor shapes.

    Raises:
        ValueError: the state dict is not that of a CLIP.
    """
    kind = kind_of(weights.state_dict, source)
    state = {pretrained_name(name): value for name, value in weights.state_dict.items()}
    for name, ndim in TELLING[kind].items():
        if state[name].ndim != ndim or not state[name].numel():
            found = list(state[name].shape)
            raise ValueError(f"{source}: not a CLIP {kind}, {name} has the shape {found}, expected {ndim} dimensions")
    image_tower = _vit(state, weights) if kind == "ViT" else _resnet(state, weights)
    text_width = state["token_embedding.weight"].shape[1]
    text_heads = weights.text_heads or text_width // HEAD_WIDTH
    attends = image_tower["vision_width"] * (1 if kind == "ViT" else POOLED)
    for tower, width, heads in (("image", attends, image_tower["vision_heads"]), ("text", text_width, text_heads)):
        if not heads or width % heads:
            raise ValueError(
                f"{source}: the {tower} tower is {width} wide, which {heads or 'no'} attention heads do not share "
                f"(a head is {HEAD_WIDTH} wide)"
            )
    is_wide = image_tower["vision_width"] in WIDE_VISION_HEADS
    return CLIPConfig(
        **image_tower,
        text_width=text_width,
        text_layers=count_blocks(state, "transformer.resblocks."),
        text_heads=text_heads,
        context_length=state["positional_embedding"].shape[0],
        vocab_size=state["token_embedding.weight"].shape[0],
        activation=weights.activation or ("gelu" if is_wide else "quick_gelu"),
    )


def _vit(state: Mapping[str, Tensor], weights: ClipWeights) -> dict[str, Any]:
    """The fields of a CLIPConfig that a ViT tells."""
    width, _, patch_size, _ = state[STEM].shape
    first_mlp = state.get("visual.transformer.resblocks.0.mlp.c_fc.weight")
    return {
        "embed_dim": state["visual.proj"].shape[1],
        "image_size": round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5) * patch_size,
        "patch_size": patch_size,
        "vision_width": width,
        "vision_layers": count_blocks(state, "visual.transformer.resblocks."),
        "vision_heads": weights.vision_heads or WIDE_VISION_HEADS.get(width, width // HEAD_WIDTH),
        **_over_time(state),
        "vision_mlp": None if first_mlp is None or len(first_mlp) == 4 * width else len(first_mlp),
    }


def _over_time(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields that a space-time tower tells."""
    return {"tower": DIVIDED, "temporal_rows": len(state[TEMPORAL])} if is_space_time(state) else {}


def _resnet(state: Mapping[str, Tensor], weights: ClipWeights) -> dict[str, Any]:
    """The fields of a CLIPConfig that a ResNet tells."""
    width = len(state["visual.layer1.0.conv1.weight"])
    layers = tuple(count_blocks(state, f"visual.layer{stage + 1}.") for stage in range(STAGES))
    return {
        "embed_dim": len(state["visual.attnpool.c_proj.weight"]),
        "image_size": round((len(state["visual.attnpool.positional_embedding"]) - 1) ** 0.5) * STRIDE,
        "patch_size": STRIDE,
        "vision_width": width,
        "vision_layers": sum(layers),
        "vision_heads": weights.vision_heads or width * POOLED // HEAD_WIDTH,
        "resnet_layers": layers,
    }


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks whose names begin like that."""
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})
