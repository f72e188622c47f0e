"""Average precision: how well the videos of a class are ranked before all others; a video may have several labels."""

import numpy as np
from torch import Tensor


def average_precisions(probabilities: Tensor, targets: Tensor, with_softmax: bool = False) -> np.ndarray:
    """Average precision of each class in percent, float64 [K]; their mean is mAP.

    The mean, over a class's videos, of the precision among all videos that score at least as high, without
    interpolation (scikit-learn's). Videos of equal score are taken together, whatever their order in the list. A video
    that could not be read stands below all others and is never found: it adds nothing to the mean, in which it counts.
    A class without a video has 0, as published.

    Args:
        probabilities: [N, K]; a row with NaN stands for a video that could not be read.
        targets: bool [N, K], which classes each video shows.
        with_softmax: of the probabilities over classes once more, as the published figure of ActivityNet has it. Videos
            are ranked anew by it, since each row is divided by a number of its own.
    """
    from sklearn.metrics import average_precision_score  # takes as long to import as torch

    scores = probabilities.double()  # close ones stay apart
    if with_softmax:
        scores = scores.softmax(dim=1)
    read = ~scores.isnan().any(dim=1)
    scores, found = scores[read].numpy(), targets[read].numpy()
    num_videos, num_read = targets.sum(dim=0).numpy(), found.sum(axis=0)
    precisions = np.zeros(len(num_videos))
    for label in np.flatnonzero(num_read):
        ranked = average_precision_score(found[:, label], scores[:, label])
        precisions[label] = 100.0 * ranked * num_read[label] / num_videos[label]
    return precisions
