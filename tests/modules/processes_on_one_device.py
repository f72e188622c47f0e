"""What test_cuda.py starts on two processes that share a device through gloo: gradients of halves of a batch.

python -m torch.distributed.run ... processes_on_one_device.py DEVICE FILE: the first process writes them to FILE.
"""

import sys

import torch
import torch.distributed as dist

from tests.modules.vificlip_on_processes import STEPS, gradients, system
from utils.distributed import wrap_ddp


def results_on(device: torch.device) -> list[dict[str, torch.Tensor]]:
    """Gradients and loss of a few steps, on this process's part of a batch of four."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    share = 4 // (dist.get_world_size() if dist.is_initialized() else 1)
    begin = share * (dist.get_rank() if dist.is_initialized() else 0)
    model = wrap_ddp(system().to(device), device)
    found = [gradients(model, slice(begin, begin + share), step, device) for step in STEPS]
    return [{name: value.cpu() for name, value in each.items()} for each in found]


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")  # NCCL wants a device for each process
    results = results_on(torch.device(sys.argv[1]))
    if dist.get_rank() == 0:
        torch.save(results, sys.argv[2])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
