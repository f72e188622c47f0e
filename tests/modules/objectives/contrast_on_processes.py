"""What test_contrast.py starts on two processes: gradients of the losses on unequal shares of a batch, under DDP.

python -m torch.distributed.run ... contrast_on_processes.py FILE: the first process writes the results to FILE.
"""

import sys

import torch
from torch import Tensor, nn

from modules.objectives.contrast import CONTRASTS, Contrast, both_directions, gathered, pair_loss
from utils.distributed import gather_rows, is_main, process_group, rank, wrap_ddp

SHARES = ((4, 4), (5, 3), (1, 7), (8, 0), (1, 1))  # videos of each process


def by_parts(videos: Tensor, texts: Tensor, labels: Tensor, scale: Tensor, gather: str) -> Contrast:
    """As OST contrasts: T = 4 frames of a video with two sets of two descriptors, the best match of each frame."""
    (frames, descriptors), labels = gathered(
        [videos.unflatten(1, (4, 2)), texts.unflatten(1, (2, 2, 2))], labels, gather
    )
    similarity = torch.einsum("vtd,csnd->vcstn", frames, descriptors)
    return both_directions(scale * similarity.amax(dim=-1).mean(dim=(-2, -1)), labels, is_halved=False)


def by_pairs(videos: Tensor, texts: Tensor, labels: Tensor, scale: Tensor, gather: str) -> Contrast:
    """As TVTSv2 contrasts; the scale is outside, so that it has a gradient."""
    loss = pair_loss(videos, texts, 0.05, gather)
    return loss._replace(total=loss.total * scale)


LOSSES = {**CONTRASTS, "by_parts": by_parts, "by_pairs": by_pairs}


class Pair(nn.Module):
    """An encoder of videos with a head, one of texts, and the scale of logits, as a system has them."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.encoder, self.head, self.text = (nn.Linear(8, 8) for _ in range(3))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, batch: tuple[Tensor, Tensor, Tensor], loss: str, gather: str) -> Tensor:
        videos, texts, labels = batch
        videos = self.head(self.encoder(videos).tanh())
        return LOSSES[loss](videos, self.text(texts), labels, self.logit_scale.exp(), gather).total


def batch_of(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Videos, texts and labels with repeats, of eight."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([3, 1, 3, 7, 0, 1, 2, 0])
    videos, classes = torch.randn(8, 8, generator=generator), torch.randn(9, 8, generator=generator)
    return videos[rows], classes[labels][rows], labels[rows]


def gradients(model: nn.Module, rows: slice, loss: str, gather: str) -> dict[str, Tensor]:
    """Of all parameters, and the loss."""
    model.zero_grad(set_to_none=True)
    value = model(batch_of(rows), loss, gather)
    value.backward()
    plain = getattr(model, "module", model)
    found = {name: parameter.grad.clone() for name, parameter in plain.named_parameters()}
    return found | {"loss": value.detach()}


def main() -> None:
    torch.set_num_threads(1)
    with process_group(60) as device:
        results = {}
        for share in SHARES:
            start = sum(share[: rank()])
            rows = slice(start, start + share[rank()])
            for loss in LOSSES:
                for gather in ("full", "published"):
                    model = wrap_ddp(Pair(), device)
                    results[share, loss, gather] = gradients(model, rows, loss, gather)
            results[share, "rows"] = tuple(gather_rows(tensor) for tensor in batch_of(rows))
        if is_main():
            torch.save(results, sys.argv[1])


if __name__ == "__main__":
    main()
