"""What test_ost_system.py starts on two processes: losses and gradients of shares of a batch, under DDP.

python -m torch.distributed.run ... ost_on_processes.py FILE: the first process writes the results to FILE.
"""

import sys

import torch
from torch import Tensor, nn

from clip.model import CLIP
from modules.classes.descriptors import LiveDescriptors, filled, tokenize_descriptors
from modules.heads.mean import MeanPooling
from modules.systems.base import Batch, Draws
from modules.systems.ost import OST, OSTSettings
from tests.modules.vificlip_on_processes import NAMES, SMALL
from utils.config import SolverConfig
from utils.distributed import is_main, process_group, rank, wrap_ddp

SHARES = ((2, 2), (1, 3))  # videos of each process
PHRASES = [[[f"{part} {number} of {name}" for number in range(2)] for name in NAMES] for part in ("look", "step")]
CASES = [(share, gather, stop) for share in SHARES for gather in ("full", "published") for stop in (False, True)]


def system(gather: str = "full", shared_stop: bool = False) -> OST:
    """The same on every process; its text tower trains."""
    torch.manual_seed(0)
    clip = CLIP(SMALL)
    texts = filled(PHRASES, NAMES)
    classes = LiveDescriptors(PHRASES, texts, tokenize_descriptors(clip, texts, NAMES))
    solver = SolverConfig(loss_type="contrast", gather=gather)
    return OST(clip, MeanPooling(), classes, OSTSettings(shared_stop=shared_stop), solver)


def batch_of(rows: slice) -> Batch:
    """Rows of a batch of four clips, two of one class."""
    clips = torch.randint(256, (4, 3, 3, 16, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return Batch(clips=clips[rows], labels=torch.tensor([2, 0, 1, 2])[rows])


def gradients(model: nn.Module, rows: slice) -> dict[str, Tensor]:
    """Of all parameters, and the loss."""
    losses = model(batch_of(rows), Draws(torch.Generator()))
    losses.total.backward()
    plain = getattr(model, "module", model)
    return {name: value.grad.clone() for name, value in plain.named_parameters()} | {"loss": losses.total.detach()}


def main() -> None:
    torch.set_num_threads(1)
    with process_group(60) as device:
        results = {}
        for case in CASES:
            share, *settings = case
            start = sum(share[: rank()])
            results[case] = gradients(wrap_ddp(system(*settings), device), slice(start, start + share[rank()]))
        if is_main():
            torch.save(results, sys.argv[1])


if __name__ == "__main__":
    main()
