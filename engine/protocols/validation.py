"""What training asks of a model after an epoch: one view a video of the validation list."""

from torch import Tensor
from torch.utils.data import DataLoader

from engine.collect import Pass, score_views
from engine.protocols.accuracy import accuracy
from modules.systems.base import System


def validate(system: System, loader: DataLoader, labels: Tensor, how: Pass) -> dict[str, float]:
    """Top-1 and top-5 among the classes of training, in percent.

    Args:
        labels: int64 [N], of the loader's list.

    Raises:
        ValueError: no video of the list could be read.
    """
    found = score_views(system, loader, system.classes, 1, how)
    found.check_some_read("data.val_list")
    return accuracy(found.tables["scores"][:, 0], labels)  # one view: there is nothing to fuse
