"""What test_tvtsv2_training.py starts on two processes: losses and gradients of shares of a batch, under DDP and FSDP.

python -m torch.distributed.run ... tvtsv2_on_processes.py FILE [GATHER]: the first process writes the results to FILE.
GATHER is the published gather.npz, whose gradients are computed, too.
"""

import sys
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from clip.model import CLIP
from clip.shapes import CLIPConfig
from engine.sharding import shard
from modules.classes.base import FixedClasses
from modules.heads.mean import MeanPooling
from modules.objectives.contrast import pair_loss
from modules.systems.base import Batch, Draws
from modules.systems.tvtsv2 import TVTSv2, TVTSv2Settings
from utils.config import SolverConfig
from utils.distributed import gather, is_main, process_group, rank, wrap_ddp

SHARES = ((3, 3), (4, 2), (1, 5))  # clips of each process
TEXTS = {"transcripts": 4, "captions": 1}  # of a clip
SHAPES = {"embed_dim": 16, "vision_width": 64, "vision_layers": 2, "vision_heads": 1}
SHAPES |= {"text_width": 64, "text_layers": 2, "text_heads": 1, "context_length": 8, "vocab_size": 40}
SOLVER = SolverConfig(loss_type="contrast", clip_ratio=1e-3, weight_decay=0.05)
CASES = [(share, texts, way) for share in SHARES for texts in TEXTS for way in ("full", "published")]


def system(solver: SolverConfig = SOLVER, patch_size: int = 8, image_size: int = 16, **settings) -> TVTSv2:
    """The same on every process; the attention over time does something, and the first text block is fixed."""
    torch.manual_seed(0)
    shapes = {**SHAPES, "patch_size": patch_size, "image_size": image_size}
    towers = CLIP(CLIPConfig(**shapes, tower="divided", temporal_rows=3))
    for block in towers.visual.transformer.resblocks:
        for weight in block.timeattn.parameters():
            nn.init.normal_(weight, std=0.1)
    section = TVTSv2Settings(**{"text_layers": 1, "sorter_heads": 2, **settings})
    return TVTSv2(towers, MeanPooling(), FixedClasses(torch.zeros(1, 16)), section, solver)


def batch_of(rows: slice, num_texts: int) -> tuple[Batch, Tensor]:
    """Rows of a batch of six clips with their texts, and the patches of each that are seen."""
    generator = torch.Generator().manual_seed(1)
    clips = torch.randint(256, (6, 3, 3, 16, 16), generator=generator).to(torch.uint8)
    texts = torch.randint(1, 39, (6, num_texts, 8), generator=generator)
    texts[..., 5], texts[..., 6:] = 39, 0  # the end token
    keep = torch.stack([torch.randperm(4, generator=generator)[:3] for _ in range(6)])
    return Batch(clips=clips[rows], texts=texts[rows]), keep[rows]


def gradients(model: nn.Module, rows: slice, num_texts: int) -> dict[str, Tensor]:
    """Of all parameters that train, and the loss and its parts."""
    batch, keep = batch_of(rows, num_texts)
    plain = getattr(model, "module", model)
    plain.kept_patches = lambda clips, draws: keep
    losses = model(batch, Draws(torch.Generator()))
    losses.total.backward()
    found = {name: value.grad for name, value in plain.named_parameters() if value.requires_grad}
    found = {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in found.items()}
    return found | {"loss": losses.total.detach()} | {f"loss/{name}": value for name, value in losses.reported.items()}


def golden_gradients(path: str, way: str) -> dict[str, Tensor]:
    """Of each process's clips and texts, [W, B, D], and the loss."""
    with np.load(path) as file:
        leaves = [torch.from_numpy(file[name])[rank()].requires_grad_() for name in ("video", "text")]
    loss = pair_loss(*leaves, 0.05, way).total
    loss.backward()
    of_all = [torch.stack(gather(leaf.grad)) for leaf in leaves]
    return {"grad_video": of_all[0], "grad_text": of_all[1], "loss": loss.detach()}


def main() -> None:
    torch.set_num_threads(1)
    with process_group(60) as device:
        results = {}
        for case in CASES:
            share, texts, way = case
            start = sum(share[: rank()])
            rows = slice(start, start + share[rank()])
            results[case] = gradients(wrap_ddp(system(replace(SOLVER, gather=way)), device), rows, TEXTS[texts])
            if way == "full":
                sharded = system()
                shard(sharded, sharded.blocks())
                results[share, texts, "sharded"] = gradients(sharded, rows, TEXTS[texts])
        for way in ("full", "published") if len(sys.argv) > 2 else ():
            results["golden", way] = golden_gradients(sys.argv[2], way)
        if is_main():
            torch.save(results, sys.argv[1])


if __name__ == "__main__":
    main()
