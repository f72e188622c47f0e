"""Rules of pictures that towers, presets and published checkpoints share: statistics of pixels, ways of resizing."""

from typing import Any

# Means and standard deviations of red, green and blue, 0 to 1, over the pictures of ImageNet.
IMAGENET = {"pixel_mean": (0.485, 0.456, 0.406), "pixel_std": (0.229, 0.224, 0.225)}

TOWER_PRESET = "tower"  # value of data.transforms: pictures as the tower's own description wants them
# Values of data.resize: the side that gets the size (``squash``: both, whatever the shape was), and the interpolation.
RESIZES = {
    f"{resize}_{interpolation}": {"resize": resize, "interpolation": interpolation}
    for resize in ("shortest", "squash")
    for interpolation in ("bicubic", "bilinear")
}
OWN_RESIZE = "shortest_bicubic"  # OpenAI's


def rule_name(resize: str, interpolation: str, **others: Any) -> str:
    """The key of ``RESIZES``."""
    return f"{resize}_{interpolation}"
