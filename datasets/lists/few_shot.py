"""Few-shot: the same K videos of each class on every process, in every run."""

import numpy as np

from datasets.lists.records import VideoList


def few_shot_indices(videos: VideoList, shot: int, seed: int, class_names: list[str]) -> np.ndarray:
    """Draw ``shot`` videos of each class: int64 [num_classes * shot] indices into the list, class by class.

    A class's videos are drawn from its sorted paths by a generator keyed by (seed, label), so the draw does not
    depend on the order of the list nor on other classes, and the first K of more shots are those of K shots.

    Raises:
        ValueError: videos have several labels; a class has fewer videos: the published protocols have exactly K of
            each, so a figure with fewer would not be a K-shot figure.
    """
    videos.check_one_label("data.train_list", "data.shot")
    chosen, too_few = [], []
    for label, name in enumerate(class_names):
        members = np.flatnonzero(videos.labels == label)
        # A path that the list names twice is one video.
        _, first = np.unique(videos.paths[members], return_index=True)
        members = members[first]
        if len(members) < shot:
            too_few.append(f"{name!r} {len(members)}")
        chosen.append(np.random.default_rng((seed, label)).permutation(members)[:shot])
    if too_few:
        more = f" and {len(too_few) - 5} more" if len(too_few) > 5 else ""
        raise ValueError(
            f"data.shot is {shot}, but some classes have fewer videos in the train list: {', '.join(too_few[:5])}{more}"
        )
    return np.concatenate(chosen)


def full_length_passes(num_videos: int, num_chosen: int) -> int:
    """Passes over K videos of each class that make an epoch about as long as one of the whole list.

    Text4Vis repeats its few-shot list as often, rounded down. At least one.
    """
    return max(num_videos // num_chosen, 1)
