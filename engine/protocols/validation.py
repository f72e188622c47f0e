"""What training asks of a model after an epoch: one view a video of the validation list."""

from torch import Tensor
from torch.utils.data import DataLoader

from engine.collect import Pass, collect, score_views, tested
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


def in_order(system: System, loader: DataLoader, how: Pass) -> dict[str, float]:
    """The share of videos whose transcripts the system puts in order, in percent; an unreadable one counts as not.

    Raises:
        ValueError: no video of the list could be read.
    """
    with tested(system, how):
        found = collect(lambda batch: {"in_order": system.in_order(batch)[:, None]}, loader, {"in_order": (1, 1)}, how)
    found.check_some_read("data.val_transcripts")
    return {"order_accuracy": 100.0 * float(found.tables["in_order"].nan_to_num().mean())}
