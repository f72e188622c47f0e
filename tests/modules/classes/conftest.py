"""The published code's tiny CLIP and the names of its classes."""

import pytest
import torch

from clip.load import load_clip
from clip.model import CLIP


@pytest.fixture(scope="session")
def published_clip(text4vis_golden, tmp_path_factory) -> CLIP:
    """The CLIP of the published Text4Vis results."""
    path = tmp_path_factory.mktemp("clip") / "tiny_clip.pt"
    state = torch.load(text4vis_golden / "tiny_clip.pt", weights_only=True)
    torch.save({name: tensor.clone() for name, tensor in state.items()}, path)  # its tensors overlap, to be small
    return load_clip(str(path))


@pytest.fixture(scope="session")
def published_names(golden) -> list[str]:
    """Names of its twelve classes."""
    return [line.split(",", 1)[1] for line in (golden / "labels.csv").read_text().splitlines()[1:]]
