"""What test_vificlip_system.py starts on two processes: losses and gradients of shares of a batch, under DDP.

python -m torch.distributed.run ... vificlip_on_processes.py FILE: the first process writes the results to FILE.
"""

import sys

import torch
from torch import Tensor, nn

from clip.model import CLIP, CLIPConfig
from engine.draws import draws_of_update
from modules.classes.templates import template_classes
from modules.heads.mean import MeanPooling
from modules.systems.base import Batch
from modules.systems.vificlip import ViFiCLIP
from utils.config import SolverConfig
from utils.distributed import average_over_processes, is_main, process_group, rank, world_size, wrap_ddp

NAMES = ["yoga", "juggling balls", "archery"]
SMALL = CLIPConfig(32, 16, 8, 32, 1, 1, 32, 1, 1)
STEPS = range(4)  # of which some are CutMix's
SOLVER = SolverConfig(label_smoothing=0.1, mixup=0.8, cutmix=1.0, mix_switch=0.5)


def system() -> ViFiCLIP:
    """The same on every process."""
    torch.manual_seed(0)
    clip = CLIP(SMALL)
    return ViFiCLIP(clip, MeanPooling(), template_classes(clip, NAMES, "a photo of a {}.", is_live=True), solver=SOLVER)


def batch_of(rows: slice) -> Batch:
    """Rows of a batch of four clips."""
    clips = torch.randint(256, (4, 2, 3, 16, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return Batch(clips=clips[rows], labels=torch.tensor([2, 0, 1, 2])[rows])


def gradients(model: nn.Module, rows: slice, step: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Of all parameters that train, and the loss; draws are those of ``solver.draws: shared``."""
    model.zero_grad(set_to_none=True)
    clips, labels = (part.to(device) for part in (batch_of(rows).clips, batch_of(rows).labels))
    loss = model(Batch(clips=clips, labels=labels), draws_of_update(7, step)).total
    loss.backward()
    plain = getattr(model, "module", model)
    found = {name: value.grad.clone() for name, value in plain.named_parameters() if value.grad is not None}
    total = loss.detach().clone()
    average_over_processes([total])
    return found | {"loss": total}


def main() -> None:
    torch.set_num_threads(1)
    with process_group(60) as device:
        model = wrap_ddp(system(), device)
        size = 4 // world_size()
        rows = slice(rank() * size, (rank() + 1) * size)
        results = [gradients(model, rows, step) for step in STEPS]
        if is_main():
            torch.save(results, sys.argv[1])


if __name__ == "__main__":
    main()
