"""Classes that are vectors, not texts: drawn, orthogonal, learned, or from videos (the comparison of Text4Vis)."""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.towers import Towers

logger = logging.getLogger(__name__)

KEY = "text4vis.classifier"  # of the configuration; errors name it
MOST_NAMED = 5  # classes that an error lists


class Vectors(nn.Module):
    """Classes that are rows of a parameter, so that a system's checkpoint, optimizer and DDP know them.

    Args:
        vectors: [K, D], of any length; only directions count.
        is_trained: they are learned.
    """

    needs_text = False
    fingerprint = ""

    def __init__(self, vectors: Tensor, is_trained: bool = False):
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().float().clone(), requires_grad=is_trained)

    def __len__(self) -> int:
        return len(self.vectors)

    def encode(self, towers: Towers, labels: Tensor | None = None) -> Tensor:
        """See ``Classes``; fp32."""
        vectors = self.vectors if labels is None else self.vectors[labels]
        return F.normalize(vectors.to(towers.logit_scale.device, torch.float32), dim=-1)


def random_vectors(num_classes: int, dim: int, seed: int) -> Tensor:
    """N(0, 1), [K, D]: what torch draws first after ``torch.manual_seed(seed)``, without touching its generator."""
    return torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(seed))


def orthogonal_vectors(num_classes: int, dim: int, seed: int) -> Tensor:
    """Unit vectors at right angles, [K, D]: the first rows of Q of a random matrix [D, D], as Text4Vis draws them.

    Raises:
        ValueError: more classes than dimensions.
    """
    if num_classes > dim:
        raise ValueError(
            f"{KEY}: orthogonal has room for as many classes as the features have dimensions: expected at most {dim}, "
            f"found {num_classes}"
        )
    matrix = np.random.RandomState(seed).normal(size=(dim, dim)).astype(np.float32)
    return torch.from_numpy(np.linalg.qr(matrix, mode="complete")[0][:num_classes].copy())


def linear_vectors(num_classes: int, dim: int, seed: int) -> Tensor:
    """The start of a learned classifier: N(0, 1/D), [K, D].

    Text4Vis compares with one and releases none. Rows are about 1 long, as the features of texts are: the length has no
    part in a cosine, but says how far a step of the optimizer turns a row.
    """
    return random_vectors(num_classes, dim, seed) * dim**-0.5


def lda_vectors(features: Tensor, labels: Tensor, class_names: list[str]) -> Tensor:
    """Coefficients of linear discriminant analysis, [K, D]: what tells a class from others, less what varies within it.

    Text4Vis names the method and released neither program nor numbers; this is ours. The features are made unit. With
    m_k the mean of class k, m the mean of the m_k, and S the covariance within classes (averaged by their shares of the
    videos, shrunk after Ledoit and Wolf), row k is S^-1 (m_k - m) less its part along m. S and m_k are those of
    scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")``; rows differ as its ``coef_`` do,
    which has one row for the difference of two classes, where this keeps both.
    Classification here is a cosine and has no intercepts. Most of an intercept is there to make all classes equal for
    the video m, and CLIP's features have much in common; without their part along m, rows do that by themselves. The
    rest (lengths of the m_k, shares of the classes) is left out. With drawn classes that have a common mean, these rows
    classify nearly as the analysis with its intercepts, and bare ``coef_`` far worse.

    Args:
        features: [N, D], means over the frames of each training video from the frozen image tower; normalised here.
            Rows that are not finite (unreadable videos) are left out.
        labels: int64 [N].
        class_names: K of them.

    Raises:
        ValueError: a class has no video; no videos beyond one a class, or alike; scikit-learn is not installed.
    """
    try:
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    except ImportError:
        raise ValueError(f"{KEY}: lda needs scikit-learn: pip install scikit-learn") from None
    is_read = features.isfinite().all(dim=1)
    if num_left_out := int((~is_read).sum()):
        logger.warning("%s: lda leaves out %d of %d videos, which were not read", KEY, num_left_out, len(features))
    kept, kept_labels = F.normalize(features[is_read].double(), dim=-1).cpu().numpy(), labels[is_read].cpu().numpy()
    _check_videos(np.bincount(kept_labels, minlength=len(class_names)), class_names)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(kept, kept_labels)
    common = lda.means_.mean(axis=0)
    rows = np.linalg.lstsq(lda.covariance_, (lda.means_ - common).T, rcond=None)[0].T
    common /= max(float(np.linalg.norm(common)), np.finfo(np.float64).tiny)
    rows = torch.from_numpy(rows - np.outer(rows @ common, common)).float()
    if not rows.isfinite().all() or not rows.any(dim=1).all():
        raise ValueError(
            f"{KEY}: lda finds no difference between videos of one class, of which it learns what to ignore"
        )
    return rows


def _check_videos(counts: np.ndarray, class_names: list[str]) -> None:
    """See that videos [K] of each class are enough for LDA."""
    if missing := [name for name, count in zip(class_names, counts, strict=True) if not count]:
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        raise ValueError(
            f"{KEY}: lda needs a readable training video of every class, data.train_list has none of "
            f"{', '.join(map(repr, missing[:MOST_NAMED]))}{more}"
        )
    if len(counts) < 2 or counts.sum() <= len(counts):
        raise ValueError(
            f"{KEY}: lda needs at least 2 classes and more videos than classes, found {len(counts)} classes and "
            f"{counts.sum()} videos"
        )
