"""The built-in worlds: what a set of videos is made of."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datasets.shapes import videos as demo_videos
from datasets.shapes import world as demo
from datasets.shapes.proxy import videos as proxy_videos
from datasets.shapes.proxy import world as proxy
from datasets.shapes.videos import ShapesSpec, VideoSpec, list_videos


@dataclass(frozen=True)
class ProxySpec(ShapesSpec):
    """The demo's set does not say its world, so that sets that were made before there were two stay what they are."""

    version: int = proxy_videos.FORMAT_VERSION
    world: str = "proxy"


@dataclass(frozen=True)
class World:
    """The parts of a set, and how their classes and videos are made."""

    spec: type[ShapesSpec]
    parts: tuple[str, ...]
    label_sets: tuple[str, ...]
    label_set_of: Callable[[str], str]  # of a part
    classes_of: Callable[[str], list]  # of a label set; each has a ``name``
    videos_per_class: Callable[[str], int]  # of a part, at scale 1
    render_video: Callable[[VideoSpec, int], np.ndarray]

    def videos_of(self, part: str, spec: ShapesSpec) -> list[VideoSpec]:
        """The videos of a part in list order."""
        return list_videos(part, self.classes_of(self.label_set_of(part)), self.videos_per_class(part), spec)


WORLDS = {
    "demo": World(
        ShapesSpec, demo.PARTS, demo.LABEL_SETS, demo.label_set_of, demo.classes_of,
        demo.VIDEOS_PER_CLASS.__getitem__, demo_videos.render_video,
    ),
    "proxy": World(
        ProxySpec, proxy.PARTS, proxy.LABEL_SETS, proxy.label_set_of, proxy.classes_of, proxy.videos_per_class,
        proxy_videos.render_video,
    ),
}  # fmt: skip
