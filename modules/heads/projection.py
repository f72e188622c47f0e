"""What a model learns for its training classes alone, in a place of its own that other tests leave out."""

from torch import Tensor, nn


class ResidualProjection(nn.Module):
    """A linear residual of low rank behind the features that are compared with classes; it begins as the identity.

    In the way of TACO's specialisation projection (Zhu et al., 2026), which keeps what training optimises apart from
    the features of tests on other classes. Its exact form is not published; this one begins as LoRA does (Hu et al.,
    2022): the inner factor random, the outer zero.

    Args:
        width: D.
        rank: of the residual.
    """

    def __init__(self, width: int, rank: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, frames: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        return frames + self.up(self.down(frames))
