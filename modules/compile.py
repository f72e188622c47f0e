"""torch.compile of the parts that repeat, where the machine can."""

import logging
import os
import time

import torch
from torch import nn
from torch._dynamo.callback import callback_handler
from torch._dynamo.exc import TorchDynamoException

from clip.blocks import ResidualAttentionBlock
from clip.released import cache_dir

logger = logging.getLogger(__name__)

AUTO, OFF, BLOCKS, WHOLE = "auto", "off", "blocks", "whole"
COMPILE = (AUTO, OFF, BLOCKS, WHOLE)  # values of network.compile
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # torch's


def way_of(choice: bool | str) -> str:
    """A name of ``COMPILE`` for what a configuration says, where True and False have names, too."""
    return {"True": BLOCKS, "False": OFF}.get(str(choice), str(choice))


def compile_system(system: nn.Module, choice: bool | str, cache: str, device: torch.device) -> bool:
    """Compile a system's towers as ``network.compile`` says, and log what that takes.

    Args:
        system: with ``towers``, see ``modules.systems.base``.
        choice: see ``way_of``. ``auto``: blocks on a GPU, nothing on a CPU. ``whole``: the image tower as one, too.
        cache: folder of compiled code; empty: torch's environment variable, or one beside downloaded weights.

    Returns:
        Whether anything is compiled.

    Raises:
        ValueError: there is nothing to compile, though it was asked for.
    """
    way, towers = way_of(choice), system.towers
    if way == OFF or (way == AUTO and (device.type != "cuda" or not towers.blocks())):
        return False
    folder = os.path.expanduser(cache) or os.environ.get(CACHE_VARIABLE) or str(cache_dir() / "compiled")
    os.environ[CACHE_VARIABLE] = folder
    if not compile_blocks(system, device):
        return False
    if way == WHOLE:
        towers.image_tower.compile()
    logger.info("network.compile: %s; compiled code is kept in %s", WHOLE if way == WHOLE else BLOCKS, folder)
    _log_times()
    return True


def _log_times() -> None:
    """Log how long each compilation takes: these are the first steps, and the first batches of other shapes."""
    began = []
    callback_handler.register_start_callback(lambda *_: began.append(time.perf_counter()))
    callback_handler.register_end_callback(
        lambda *_: logger.info("network.compile: %.1f s", time.perf_counter() - began.pop())
    )


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
