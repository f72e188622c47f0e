"""torch.compile of the parts that repeat, where the machine can."""

import logging

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from clip.blocks import ResidualAttentionBlock

logger = logging.getLogger(__name__)


def compile_blocks(model: nn.Module, device: torch.device) -> bool:
    """Compile every block of the towers in place; names and state dict stay as they are.

    Blocks one by one, since all of one shape share what is compiled. A small block is compiled and run first, forward
    and backward: where that fails (no C++ compiler, for example) the model stays as it is, with one warning.

    Returns:
        Whether the blocks are compiled.

    Raises:
        ValueError: the towers have none.
    """
    blocks = getattr(model, "towers", model).blocks()
    if not blocks:
        raise ValueError("network.compile: the towers have no blocks that repeat, and nothing else is compiled")
    try:
        trial = ResidualAttentionBlock(64, 1, "quick_gelu", 0.0).to(device)
        trial.compile()
        trial(torch.zeros(1, 2, 64, device=device)).sum().backward()
        torch._dynamo.reset()  # or it would take every size that is not the trial's for one that varies
    except (TorchDynamoException, RuntimeError, OSError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        logger.warning("network.compile: torch.compile does not work here, running without it (%s)", reason.strip())
        return False
    # Blocks with rates of their own (drop_out) are compiled one by one, each with and without gradients.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * len(blocks))
    for block in blocks:
        block.compile()
    return True
