"""Two videos of a batch as one: MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019), torchvision's."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import CutMix, MixUp

from utils.config import SolverConfig

SOFT_LOSSES = ("CE",)  # values of solver.loss_type that take shares of classes in the place of labels


def mixes(solver: SolverConfig) -> bool:
    """Whether training mixes videos."""
    return solver.mixup > 0 or solver.cutmix > 0


def is_soft(solver: SolverConfig) -> bool:
    """Whether several classes of a video are right in part, so that the loss must take shares of classes."""
    return mixes(solver) or solver.label_smoothing > 0


def mixed(
    inputs: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator, solver: SolverConfig
) -> tuple[Tensor, Tensor]:
    """Each clip mixed with another of the batch, all its frames alike, and the shares of the classes in it.

    MixUp lays both over each other, CutMix puts a box of the other into the one; how much of each is drawn once for the
    batch, from Beta(a, a) with the a of ``solver.mixup`` or ``solver.cutmix``, and so is the place of the box. Where
    both are on, CutMix takes ``solver.mix_switch`` of the steps.

    Neighbours are mixed: the first with the second and the second with the first, and so on; of an odd number, the last
    three in a circle. Batches are shuffled, so a neighbour is any video, and a batch of even size is mixed alike
    however it is shared out to processes, if these draw alike (``solver.draws: shared``). ViFi-CLIP permutes the batch.

    Args:
        inputs: clips [B, T, 3, S, S], of any pixel values that are linear in light as stored; or frame features
            [B, T', D], for MixUp only.
        labels: int64 [B].
        generator: on the CPU; one number is taken. torch's global generators are left as they are.

    Returns:
        Mixed inputs in fp32, and shares [B, num_classes], rows of which sum to 1.
    """
    key = int(torch.randint(2**63 - 1, (), generator=generator))
    images = inputs.float().reshape(len(inputs), -1, *inputs.shape[-2:])  # frames and colours are channels of one
    shares = F.one_hot(labels, num_classes).float()
    # torchvision rolls a batch by one place, and two are thereby exchanged.
    sizes = [2] * (len(labels) // 2 - 1) + [2 + len(labels) % 2]
    parts = []
    with torch.random.fork_rng(devices=[]):
        seed = torch.default_generator.manual_seed  # the CPU's alone, which torchvision draws from
        seed(key)
        transform = _chosen(solver)
        for pair in zip(images.split(sizes), shares.split(sizes), strict=True):
            seed(key)  # the same draws for each pair
            parts.append(transform(*pair))
    images, shares = (torch.cat(part) for part in zip(*parts, strict=True))
    return images.view(inputs.shape), shares


def _chosen(solver: SolverConfig) -> MixUp | CutMix:
    """The transform of this step."""
    takes_cutmix = float(torch.rand(())) < solver.mix_switch if solver.mixup > 0 else True
    if solver.cutmix > 0 and takes_cutmix:
        return CutMix(alpha=solver.cutmix)
    return MixUp(alpha=solver.mixup)
