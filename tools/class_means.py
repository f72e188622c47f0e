"""Classes from videos in the place of names: the mean feature of each class's training videos.

    python -m tools.class_means --config configs/text4vis/k400/vitb16_8f.yaml --out class_means.npz

The file is for ``text4vis.classifier=file:class_means.npz``.
"""

import argparse
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from commands.training.data import frozen_features
from datasets.read import read_data
from engine.collect import Pass
from modules.build import build_towers, load_config
from modules.check import check_network
from modules.classes.vector_files import write_vectors
from utils.cli import add_common_arguments, run_main
from utils.distributed import is_main, process_group
from utils.files import prepare_output
from utils.logger import setup_logging
from utils.precision import resolve_precision

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Encode one clip of each training video with the pretrained image tower, and write the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file; its training list and network.arch count")
    parser.add_argument("--out", required=True, type=Path, help="npz to write")
    add_common_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    setup_logging()
    config = load_config(args.config, args.overrides)
    check_network(config)
    data, network = config.data, config.network
    if data.modality == "features":
        raise ValueError("data.modality: expected pictures, whose features are averaged, found 'features'")
    with process_group(config.solver.collective_timeout_s) as device:
        precision = resolve_precision(args.precision, device)
        class_names, parts, *_ = read_data(data, ("train",))
        parts["train"].check_one_label("data.train_list", "the mean of a class")
        if is_main():
            prepare_output(args.out)
        towers = build_towers(network, data.num_segments, data.input_size, config.seed).to(device)
        how = Pass(precision, data.batch_size, "class means")
        means = class_means(*frozen_features(towers, data, parts["train"], how), class_names)
        if is_main():
            write_vectors(args.out, means, class_names)
            logger.info("wrote %s: %d classes", args.out, len(class_names))


def class_means(features: Tensor, labels: Tensor, class_names: list[str]) -> Tensor:
    """Mean of the unit features of each class's videos, [K, D].

    Args:
        features: [N, D], made unit here. Rows that are not finite (unreadable videos) are left out.
        labels: int64 [N].
        class_names: K of them.

    Raises:
        ValueError: a class has no video.
    """
    is_read = features.isfinite().all(dim=1)
    features, labels = F.normalize(features[is_read], dim=-1), labels[is_read]
    counts = labels.bincount(minlength=len(class_names))
    if not counts.all():
        missing = class_names[int(counts.argmin())]
        raise ValueError(f"data.train_list: expected a readable video of every class, found none of {missing!r}")
    sums = torch.zeros(len(class_names), features.shape[1]).index_add(0, labels, features)
    return sums / counts[:, None]


if __name__ == "__main__":
    run_main(main)
