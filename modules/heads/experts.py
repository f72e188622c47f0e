"""The mixture-of-temporal-experts feed-forward layer (MoTE, NeurIPS 2024, section 3.2-3.3).

One abstraction carries everything the paper does with experts: *mixing weights* over them, one row a route.

- one-hot row: the route runs a single expert (the expert pass of training);
- softmax([1..E] / temperature): the route runs the merge of all (the weight-merging regularisation);
- softmax(fusion weight): the merge of evaluation, a plain average in all released checkpoints.

A route's FFN parameters are its mixture of the experts' parameters, so a route costs one ordinary FFN.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from clip.blocks import ACTIVATIONS, MLP
from modules.heads.transformer import TemporalTransformer
from utils.precision import without_autocast

# Softmax over [1..E] / t for one t of these; an infinite t gives the plain average.
MERGE_TEMPERATURES = (-9.6, -4.8, -2.4, -1.2, -0.6, 0.6, 1.2, 2.4, 4.8, 9.6, float("inf"))


class ExpertTransformer(TemporalTransformer):
    """The temporal transformer of MoTE: feed-forward layers are mixtures of experts.

    Routes share attention, norms and positions. They also share their input until the first mixture: the leading route
    dimension starts at 1 and broadcasts there, so the first attention runs once for all routes.

    Args:
        num_experts: E; 0: plain feed-forward layers, and one route.
        num_train_classes: rows of ``spe_cls_feature``, the class features of training (its released name).
    """

    def __init__(self, width: int, layers: int, heads: int, num_experts: int, num_train_classes: int):
        super().__init__(width, layers, heads, (lambda: ExpertFFN(width, num_experts)) if num_experts > 0 else None)
        self.num_experts = num_experts
        self.register_buffer("spe_cls_feature", torch.zeros(num_train_classes, width))

    def forward(self, frames: Tensor, gate: Tensor | None = None) -> Tensor:
        """The merge of evaluation: [B, T, D] -> ``gate * h + frames``, [B, T, D].

        Args:
            gate: weight of the temporal branch for each clip, [B]; None: 1.
        """
        (branch,) = self._branch(frames, None)
        return (branch if gate is None else branch * gate[:, None, None]) + frames

    def routes(self, frames: Tensor, mixing: Tensor | None) -> Tensor:
        """Every route of a training step: [B, T, D] -> [R, B, T, D].

        Args:
            mixing: experts of each layer and route [layers, R, E], see ``draw``; None: one route.
        """
        return self._branch(frames, mixing) + frames

    def _branch(self, frames: Tensor, mixing: Tensor | None) -> Tensor:
        x = (frames + self.positions(frames))[None]  # [1, B, T, D]
        for layer, block in enumerate(self.transformer.resblocks):
            x = block(x) if mixing is None else block(x, mixing[layer])
        return x

    def draw(
        self, generator: torch.Generator, merge_temperatures: tuple[float, ...], with_merged: bool
    ) -> Tensor | None:
        """Routes of one training step, [layers, R, E] on the CPU; None for plain feed-forward layers."""
        sizes = len(self.transformer.resblocks), self.num_experts
        return draw_mixing(*sizes, merge_temperatures, generator, with_merged) if self.num_experts > 0 else None


class ExpertFFN(nn.Module):
    """E feed-forward experts D -> 4D -> D, run as mixtures.

    Parameter names are the released ones: ``fc_up.e``, ``fc_dn.e`` and ``mote_fusion_weight``, which
    nothing trains there (zeros), hence a buffer here.
    """

    def __init__(self, width: int, num_experts: int, activation: str = "quick_gelu"):
        super().__init__()
        self.activation = activation
        self.fc_up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(num_experts))
        self.act = ACTIVATIONS[activation]()
        self.fc_dn = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(num_experts))
        self.register_buffer("mote_fusion_weight", torch.zeros(num_experts))

    def forward(self, x: Tensor, mixing: Tensor | None = None) -> Tensor:
        """Run every route through its own mixture of experts.

        Args:
            x: [R, ..., D], or [1, ..., D] where all routes still share their input.
            mixing: weights over experts, [R, E]; None: the evaluation merge (R = 1).

        Returns:
            [R, ..., D]
        """
        if mixing is None:
            mixing = self.mote_fusion_weight.softmax(dim=0)[None]
        hidden = self.act(_routed_linear(x.flatten(1, -2), self.fc_up, mixing))  # [R, N, 4D]
        return _routed_linear(hidden, self.fc_dn, mixing).unflatten(1, x.shape[1:-1])

    @torch.no_grad()
    def merged(self) -> MLP:
        """The evaluation merge as an ordinary FFN (MLP) with parameters of its own."""
        with torch.device("meta"):  # its parameters come below
            mlp = MLP(self.fc_up[0].in_features, self.activation)
        mixing = self.mote_fusion_weight.softmax(dim=0)[None]
        for layer, experts in ((mlp.c_fc, self.fc_up), (mlp.c_proj, self.fc_dn)):
            weight, bias = _mix(experts, mixing)
            layer.weight, layer.bias = nn.Parameter(weight[0]), nn.Parameter(bias[0])
        return mlp.train(self.training)


def _mix(experts: nn.ModuleList, mixing: Tensor) -> tuple[Tensor, Tensor]:
    """Mixtures of the experts' linear layers: weights [R, out, in] and biases [R, out]."""
    weights = torch.stack([e.weight for e in experts])
    biases = torch.stack([e.bias for e in experts])
    # Parameters mix in their own precision: autocast would round the experts before averaging them.
    with without_autocast(weights):
        mixing = mixing.to(weights.dtype)
        return torch.einsum("re,eoi->roi", mixing, weights), mixing @ biases


def _routed_linear(x: Tensor, experts: nn.ModuleList, mixing: Tensor) -> Tensor:
    """x [R or 1, N, in] through one mixed linear layer a route -> [R, N, out]."""
    weight, bias = _mix(experts, mixing)
    product = x @ weight.transpose(1, 2)
    return product + bias[:, None].to(product.dtype)  # under autocast the hidden layer stays in half precision


def one_hot_mixing(experts: Tensor, num_experts: int) -> Tensor:
    """Each layer runs one expert: indices [L] -> mixing weights [L, E]."""
    return nn.functional.one_hot(experts, num_experts).float()


def merge_mixing(temperatures: Tensor, num_experts: int) -> Tensor:
    """softmax([1..E] / temperature) for each layer: [L] -> [L, E]; an infinite temperature averages."""
    ranks = torch.arange(1, num_experts + 1, dtype=torch.float32)
    return (ranks / temperatures[:, None]).softmax(dim=-1)


def draw_mixing(
    num_layers: int,
    num_experts: int,
    merge_temperatures: tuple[float, ...],
    generator: torch.Generator,
    with_merged: bool = True,
) -> Tensor:
    """Mixing weights of one training step: [L, 2, E], or [L, 1, E] without the merged pass.

    Route 0 is the expert pass: every layer draws an expert with probability softmax([1..E]).
    Route 1 is the merged pass: every layer draws a merge temperature uniformly.
    One draw serves the whole batch (section 3.2); ``generator`` is a CPU generator.
    """
    probabilities = merge_mixing(torch.ones(1), num_experts)[0]
    experts = torch.multinomial(probabilities, num_layers, replacement=True, generator=generator)
    picks = torch.randint(len(merge_temperatures), (num_layers,), generator=generator)
    routes = [one_hot_mixing(experts, num_experts)]
    if with_merged:
        routes.append(merge_mixing(torch.tensor(merge_temperatures)[picks], num_experts))
    return torch.stack(routes, dim=1)


@contextmanager
def merged_experts(model: nn.Module) -> Iterator[None]:
    """Within this context every ExpertFFN of ``model`` is its merged FFN.

    Evaluation merges once this way, not at every call. Parameters must not be updated inside.
    """
    swapped = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, ExpertFFN)
    ]
    for parent, name, ffn in swapped:
        setattr(parent, name, ffn.merged())
    try:
        yield
    finally:
        for parent, name, ffn in swapped:
            setattr(parent, name, ffn)
