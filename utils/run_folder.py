"""Run folders: where a run writes, and what it was run with."""

import json
import os
import platform
import subprocess
from datetime import datetime
from importlib import metadata
from pathlib import Path

from utils.distributed import broadcast, is_main
from utils.files import read_json, write_text

CHECKPOINT, BEST_CHECKPOINT, EMA_CHECKPOINT = "last_model.pt", "model_best.pt", "ema_model.pt"
AVERAGE_CHECKPOINT = "average_model.pt"  # the mean over epochs
NON_FINITE_CHECKPOINT = "non_finite.pt"
FEW_SHOT_LIST = "few_shot.txt"
PACKAGES = ("torch", "torchvision", "open_clip_torch", "decord", "torchcodec", "av", "numpy")


def timestamp() -> str:
    """Default name of a run; processes that torchrun restarts get the name they had."""
    return os.environ.get("RUN_NAME") or datetime.now().strftime("%Y%m%d-%H%M%S")


def folder_name(arch: str) -> str:
    """A model name or weights file as one folder name: ``ViT-B/16`` is ``ViT-B-16``, a file is its stem, a folder its
    name, with or without ``local-dir:``."""
    kind, _, name = arch.partition(":")
    if kind == "local-dir":
        return Path(name).resolve().name
    if kind == "hf-hub":
        return name.replace("/", "-")
    if Path(arch, "config.json").is_file():
        return Path(arch).resolve().name
    return Path(arch).stem if Path(arch).suffix else arch.replace("/", "-")


def run_folder(output_path: str, dataset: str, arch: str, name: str) -> Path:
    """Where a run of this name writes.

    Raises:
        ValueError: the name (or the data set's) leads out of ``output_path``.
    """
    for key, part in (("data.dataset", dataset), ("--log_time", name)):
        if Path(part).is_absolute() or ".." in Path(part).parts or (key == "--log_time" and not Path(part).parts):
            raise ValueError(f"{key}: expected a name for a folder below {output_path}, found {part!r}")
    return Path(output_path, dataset, folder_name(arch), name)


def check_run_folder(folder: Path, may_continue: bool) -> None:
    """See that no other run is overwritten.

    Args:
        may_continue: the folder may hold a run already (it is being resumed).

    Raises:
        FileExistsError: it does.
    """
    if broadcast((folder / "config.yaml").exists()) and not may_continue:
        raise FileExistsError(
            f"{folder} already holds a run; give another --log_time, continue it with resume=auto, or remove it"
        )


def launch_id() -> str:
    """The same for all processes that one start of a script or of torchrun brings up, restarted ones too."""
    return os.environ.get("LAUNCH_ID") or os.environ.get("TORCHELASTIC_RUN_ID", "")


def is_of_this_launch(folder: Path) -> bool:
    """Whether this launch began the run in ``folder``: a process that torchrun restarts goes on with no other."""
    record = folder / "environment.json"
    is_own = record.exists() and read_json(record, "the record of a run").get("launch") == launch_id()
    return broadcast(is_own)


def create_run_folder(folder: Path, config_yaml: str, **facts: str | None) -> None:
    """Create ``folder`` with ``config.yaml`` and ``environment.json`` (versions, and ``facts``)."""
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        facts |= {"launch": launch_id()}
        write_text(folder / "environment.json", json.dumps(environment() | facts, indent=2) + "\n")
        write_text(folder / "config.yaml", config_yaml)  # the mark of a run, so the last


def environment() -> dict[str, str | None]:
    """Commit, Python and package versions; None for a package that is not installed."""
    versions = {name: _version(name) for name in PACKAGES}
    return {"git_sha": _git_sha(), "python": platform.python_version(), **versions}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_sha() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return result.stdout.strip() or None
