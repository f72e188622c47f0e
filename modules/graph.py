"""A video model as one graph that runs without this code: a torch.export program or an ONNX file.

Normalisation, image tower, temporal modulation, merged head, cosines and softmax are all in it. The number of clips B
and of frames T are free (T is fixed where the tower attends over all frames at once).
"""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from modules.heads.transformer import MAX_FRAMES
from modules.systems.base import System

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUTS, OUTPUTS = ("frames", "class_features"), ("logits", "probabilities")
LARGEST_DIFFERENCE = 1e-4  # of probabilities, between a graph and the model


class VideoGraph(nn.Module):
    """``forward`` of a graph: frames in, cosines and probabilities out.

    Args:
        model: in eval mode, in its form for tests.
        class_features: unit features [K, D] that become a constant; None: they are the graph's second input.
    """

    def __init__(self, model: System, class_features: Tensor | None):
        super().__init__()
        self.model = model
        self.register_buffer("class_features", class_features)

    def forward(self, frames: Tensor, class_features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """uint8 [B, T, 3, S, S] and unit class features [K, D] -> cosines [B, K] and their scaled softmax [B, K]."""
        classes = self.class_features if class_features is None else class_features
        scores = self.model.score(self.model.encode(frames), classes)
        return scores, (self.model.logit_scale * scores).softmax(dim=-1)

    @property
    def is_open(self) -> bool:
        """Whether class features are an input."""
        return self.class_features is None

    def example(self, num_clips: int, num_frames: int, num_classes: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs; K is ignored by a graph with classes of its own."""
        generator = torch.Generator().manual_seed(seed)
        towers, spec = self.model.towers, self.model.towers.spec
        shape = (num_clips, towers.graph_frames or num_frames, 3, spec.image_size, spec.image_size)
        frames = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        if not self.is_open:
            return (frames,)
        features = torch.randn(max(num_classes, self.model.fewest_classes), spec.embed_dim, generator=generator)
        return frames, nn.functional.normalize(features, dim=-1)


def trace(graph: VideoGraph) -> ExportedProgram:
    """The graph as a torch.export program."""
    shapes: dict = {"frames": {0: Dim("batch", min=1)}}
    if not graph.model.towers.graph_frames:
        shapes["frames"][1] = Dim("frames", min=1, max=MAX_FRAMES)
    if graph.is_open:
        # From 2 on: torch.export takes a size of 1 for a constant.
        shapes["class_features"] = {0: Dim("classes", min=max(2, graph.model.fewest_classes))}
    with torch.no_grad():
        return torch.export.export(graph, graph.example(2, 8, 9), dynamic_shapes=shapes)


def check_packages() -> None:
    """See that what ONNX needs is installed, and keep it from reporting every constant that it shares or keeps.

    Raises:
        ValueError: names what is missing.
    """
    if missing := [name for name in ONNX_PACKAGES if find_spec(name) is None]:
        raise ValueError(
            f"--format onnx needs {', '.join(missing)}, not installed: pip install -r requirements-export.txt"
        )
    for name in ("onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.WARNING)


def write_onnx(graph: VideoGraph, path: Path) -> None:
    """Write the graph as ONNX; weights beyond 2 GB go into a file beside it."""
    names = {"input_names": INPUTS[: 1 + graph.is_open], "output_names": OUTPUTS}
    program = torch.onnx.export(trace(graph), dynamo=True, verbose=False, **names)
    frames, *others = program.model.graph.inputs
    axes = {frames.shape[0]: "batch", frames.shape[1]: "frames"} | {each.shape[0]: "classes" for each in others}
    program.rename_axes({axis: name for axis, name in axes.items() if not isinstance(axis, int)})
    program.save(path)


def run_program(path: Path) -> Callable[..., list[Tensor]]:
    """A written torch.export program as a function."""
    module = torch.export.load(path).module()
    return lambda *inputs: list(module(*inputs))


def run_onnx(path: Path) -> Callable[..., list[Tensor]]:
    """A written ONNX file as a function, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> list[Tensor]:
        feed = {name: value.numpy() for name, value in zip(INPUTS, inputs, strict=False)}
        return [torch.from_numpy(output) for output in session.run(list(OUTPUTS), feed)]

    return run


@torch.no_grad()
def check_graph(graph: VideoGraph, run: Callable[..., list[Tensor]], num_frames: int) -> float:
    """Largest difference of probabilities between a written graph and the model, on random clips of several sizes.

    Raises:
        RuntimeError: it is above ``LARGEST_DIFFERENCE``.
    """
    worst = 0.0
    for seed, (num_clips, frames) in enumerate(((1, num_frames), (3, num_frames), (1, num_frames + 1), (2, 1))):
        inputs = graph.example(num_clips, min(frames, MAX_FRAMES), num_classes=7 + seed, seed=seed)
        worst = max(worst, (run(*inputs)[1] - graph(*inputs)[1]).abs().max().item())
    if not worst <= LARGEST_DIFFERENCE:
        raise RuntimeError(f"the written graph differs from the model by {worst:.1e} in probabilities")
    return worst
