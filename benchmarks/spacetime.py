"""Space-time ViT-B/16 on clips of 12 frames: encoding, and a training step with half of the patches masked.

The baseline is our rendering of how TVTSv2's code works: attention by einsum, whose probabilities are kept in memory,
keys and values of the class token copied beside those of every group, all tokens through the last block, fp32.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import harness, models
from benchmarks.baseline import FeedForward, Float32LayerNorm
from benchmarks.harness import Benchmark, Measurement
from clip.model import CLIP, CLIPConfig
from clip.names.tvts import MARK, to_tvts
from clip.towers import Tokens
from engine.optim import build_optimizer
from modules.compile import compile_blocks
from modules.half import weights_cast
from modules.systems.parts import Group
from utils.config import SolverConfig
from utils.precision import resolve_precision

NUM_FRAMES, MASKED = 12, 0.5
CONFIG = replace(models.VIT_B16, tower="divided")


class EinsumAttention(nn.Module):
    """Attention of patches within their groups, and of the class token."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, num_frames: int, over_time: bool) -> Tensor:
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B, heads, 1+T*n, head_dim]
        query, key, value = (part.flatten(0, 1) for part in parts)
        query = query * query.shape[-1] ** -0.5
        of_class = attend(query[:, :1], key, value)
        groups = []
        for part in (query, key, value):
            frames = part[:, 1:].unflatten(1, (num_frames, -1))  # [B*heads, T, n, head_dim]
            groups.append((frames.transpose(1, 2) if over_time else frames).flatten(0, 1))
        per_head = len(groups[0]) // len(query)
        first = [part[:, :1].repeat_interleave(per_head, dim=0) for part in (key, value)]
        patches = attend(groups[0], *(torch.cat(pair, dim=1) for pair in zip(first, groups[1:], strict=True)))
        patches = patches.unflatten(0, (-1, per_head))
        patches = (patches.transpose(1, 2) if over_time else patches).flatten(1, 2)
        mixed = torch.cat([of_class, patches], dim=1).unflatten(0, (-1, self.heads)).transpose(1, 2)
        return self.proj(mixed.flatten(2))


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    probabilities = torch.einsum("bid,bjd->bij", query, key).softmax(dim=-1)
    return torch.einsum("bij,bjd->bid", probabilities, value)


class EinsumBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn, self.timeattn = EinsumAttention(width, heads), EinsumAttention(width, heads)
        self.ln_1, self.ln_2, self.ln_3 = (Float32LayerNorm(width) for _ in range(3))
        self.mlp = FeedForward(width)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        over_time = x + self.timeattn(self.ln_3(x), num_frames, over_time=True)
        x = x + self.attn(self.ln_1(over_time), num_frames, over_time=False)
        return x + self.mlp(self.ln_2(x))


class EinsumSpaceTime(nn.Module):
    """The image tower, under published names."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        width, patch = config.vision_width, config.patch_size
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + (config.image_size // patch) ** 2, width))
        self.temporal_embedding = nn.Parameter(torch.zeros(config.temporal_rows, width))
        self.ln_pre, self.ln_post = Float32LayerNorm(width), Float32LayerNorm(width)
        self.transformer = nn.Module()
        blocks = (EinsumBlock(width, config.vision_heads) for _ in range(config.vision_layers))
        self.transformer.resblocks = nn.ModuleList(blocks)
        self.proj = nn.Parameter(torch.zeros(width, config.embed_dim))

    def forward(self, frames: Tensor, keep: Tensor) -> Tensor:
        """Normalised frames [B, T, 3, S, S] and patches to keep, int64 [B, n] -> all tokens [B, 1+T*n, D]."""
        num_clips, num_frames = frames.shape[:2]
        patches = self.conv1(frames.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, (num_clips, -1))
        patches = patches + self.positional_embedding[1:] + self.temporal_embedding[:num_frames, None]
        clips = torch.arange(num_clips, device=keep.device)[:, None]
        patches = patches.transpose(1, 2)[clips, keep].transpose(1, 2).flatten(1, 2)
        first = (self.class_embedding + self.positional_embedding[0]).expand(num_clips, 1, -1)
        x = self.ln_pre(torch.cat([first, patches], dim=1))
        for block in self.transformer.resblocks:
            x = block(x, num_frames)
        return self.ln_post(x) @ self.proj


def our_towers(config: CLIPConfig) -> CLIP:
    """Random weights, those over time included."""
    torch.manual_seed(0)
    towers = CLIP(config)
    for block in towers.visual.transformer.resblocks:
        nn.init.normal_(block.timeattn.in_proj_weight, std=config.vision_width**-0.5)
        nn.init.normal_(block.timeattn.out_proj.weight, std=0.1 * config.vision_width**-0.5)
    return towers


def baseline_tower(config: CLIPConfig) -> EinsumSpaceTime:
    """With the same weights; they are in memory once, so that the peak is not that of making it."""
    with torch.device("meta"):
        tower = EinsumSpaceTime(config)
    state = to_tvts(our_towers(config).state_dict(), "benchmark")
    state = {name.removeprefix(MARK): value for name, value in state.items() if name.startswith(MARK)}
    tower.load_state_dict(state, assign=True)
    return tower


def clips(num_clips: int) -> Tensor:
    """uint8 [B, 12, 3, 224, 224]"""
    return models.as_loaded(torch.randint(256, (num_clips, NUM_FRAMES, 3, 224, 224), dtype=torch.uint8))


def kept(num_clips: int, share: float) -> Tensor:
    """Patches that are seen, int64 [B, n], others for each clip."""
    num_patches = (CONFIG.image_size // CONFIG.patch_size) ** 2
    return torch.stack([torch.randperm(num_patches)[: int(num_patches * share)] for _ in range(num_clips)])


def encoding(num_clips: int, choice: str = "", is_compiled: bool = False) -> Callable[[], object]:
    """``choice`` of precision, empty: the baseline."""
    device, frames = harness.device(), clips(num_clips)
    if not choice:
        tower, keep = baseline_tower(CONFIG).to(device).eval(), kept(num_clips, 1.0).to(device)
        images = models.as_loaded((frames.float() / 255 - 0.45) / 0.27)  # arrives normalised, in fp32
        return torch.no_grad()(lambda: tower(images.to(device, non_blocking=True), keep)[:, 0])
    towers, precision = our_towers(CONFIG).to(device).eval(), resolve_precision(choice, device)
    towers.drop_text()
    form = ExitStack()  # left when ``encode`` is dropped: as long as that lives the tower is in its form for tests
    form.enter_context(weights_cast(towers.visual, precision.half))
    if is_compiled:
        compile_blocks(towers, device)

    @torch.inference_mode()
    def encode(_form: ExitStack = form) -> Tensor:
        with precision.autocast():
            return towers.encode_clips(frames.to(device, non_blocking=True))

    return encode


def training(num_clips: int, choice: str = "", is_compiled: bool = False) -> Callable[[], object]:
    """A step on all tokens of the clips, with AdamW, ours ``solver.optim: adamw``; arguments as of ``encoding``."""
    device, keep = harness.device(), kept(num_clips, 1 - MASKED).to(harness.device())
    precision, frames = resolve_precision(choice or "fp32", device), clips(num_clips)
    if choice:
        towers = our_towers(CONFIG).to(device).train()
        towers.drop_text()
        if is_compiled:
            compile_blocks(towers, device)
        encode, group = partial(towers.encode_tokens, keep=keep), Group("clip", list(towers.visual.parameters()), 1.0)
        optimizer = build_optimizer([group], SolverConfig())
    else:
        module, frames = baseline_tower(CONFIG).to(device).train(), (frames.float() / 255 - 0.45) / 0.27
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5)

        def encode(images):
            return Tokens(None, module(images, keep))

    scaler = precision.grad_scaler()

    def step() -> None:
        with precision.autocast():
            loss = encode(frames.to(device, non_blocking=True)).tokens.float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def main(argv: list[str] | None = None) -> list[Measurement]:
    has_gpu = torch.cuda.is_available()
    num_clips, num_trained = (64, 24) if has_gpu else (4, 2)
    ways = {
        harness.BASELINE: {},
        "ours fp32": {"choice": "fp32"},
        "ours auto": {"choice": "auto"},
        "ours auto, compiled": {"choice": "auto", "is_compiled": True},
    }
    to_encode = {name: partial(encoding, num_clips, **way) for name, way in ways.items()}
    to_train = {name: partial(training, num_trained, **way) for name, way in ways.items()}
    module, name = "benchmarks.spacetime", f"space-time B/16, {NUM_FRAMES} frames"
    measured = harness.run(Benchmark(f"encode {name}", module, "clips", num_clips, to_encode), argv)
    step = Benchmark(f"training step {name}, half masked", module, "clips", num_trained, to_train)
    return measured + harness.run(step, argv)


if __name__ == "__main__":
    main()
