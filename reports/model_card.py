"""The model card of the Hub: what the model is, how it is used, and a table of its results."""

import json
from pathlib import Path

import yaml

from utils.config import DataConfig, NetworkConfig

NEEDED = {"dataset", "top1", "top5", "num_videos", "num_clips", "num_crops", "fusion", "weights", "precision"}


def read_results(path: Path) -> dict:
    """A ``results.json`` of a test.

    Raises:
        FileNotFoundError, ValueError: no such file, or not one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--results {path}: no such file")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--results {path}: not JSON ({error})") from None
    if missing := sorted(NEEDED - (result.keys() if isinstance(result, dict) else set())):
        raise ValueError(f"--results {path}: not a results.json, missing {', '.join(missing)}")
    for name in ("top1", "top5", "num_videos", "num_clips", "num_crops"):
        if type(result[name]) not in (int, float):
            raise ValueError(f"--results {path}: {name}: expected a number, found {str(result[name])[:40]!r}")
    return result


def model_card(
    name: str, network: NetworkConfig, data: DataConfig, class_names: list[str] | None, results: list[dict]
) -> str:
    """The card as Markdown with the Hub's YAML header.

    Args:
        name: ``owner/name``, or that of a folder.
        data: of the training.
        class_names: of the training; None: not known.
        results: what ``results.json`` files hold; the table and the header's figures.
    """
    header = {"library_name": "mote", "pipeline_tag": "video-classification", "tags": ["clip", "zero-shot", "mote"]}
    if results:
        header["model-index"] = [{"name": name.split("/")[-1], "results": [_indexed(result) for result in results]}]
    head = "none (frames averaged)" if network.sim_header == "None" else f"{network.temporal_layer} layers"
    trained_on = data.dataset + (f" ({len(class_names)} classes)" if class_names else "")
    where = f"hf://{name}" if "/" in name else "FOLDER"
    return f"""---
{yaml.safe_dump(header, sort_keys=False)}---

# {name}

A video model made of CLIP and a temporal head (MoTE, [arXiv 2410.10589](https://arxiv.org/abs/2410.10589)). It takes
{data.num_segments} frames a clip and any class names.

| | |
|---|---|
| CLIP | `{network.arch}`, needed for its text tower |
| trained on | {trained_on or "not known"} |
| temporal head | {head} |
| templates | `{network.templates}` |
| weights | experts merged, averaged with CLIP's pretrained weights; tested as they are |

## Results

{_table(results)}

## Use

```bash
python test_zeroshot.py --config CONFIG.yaml --weights {where}
```

CONFIG.yaml names the videos and classes, and this network (`config.json` holds it).
"""


def _table(results: list[dict]) -> str:
    if not results:
        return "None were given."
    lines = ["| data | views | top-1 | top-5 | videos | fusion | precision |", "|---|---|---|---|---|---|---|"]
    for result in results:
        splits = result.get("splits", {})
        lines += [_row(f"{split['dataset']}, {name}", split) for name, split in splits.items()]
        lines.append(_row(f"{result['dataset']}, mean of {len(splits)}" if splits else result["dataset"], result))
    return "\n".join(lines)


def _row(name: str, result: dict) -> str:
    views = f"{result['num_clips']} x {result['num_crops']}" + ", dense" * result.get("dense", False)
    failed = len(result.get("failed_videos", ()))
    videos = f"{result['num_videos']}" + (f" ({failed} unreadable)" if failed else "")
    figures = [f"{result[key]:.2f}" + _spread(result, key) for key in ("top1", "top5")]
    return f"| {' | '.join([name, views, *figures, videos, result['fusion'], result['precision']])} |"


def _spread(result: dict, key: str) -> str:
    return f" ± {result[f'{key}_std']:.2f}" if f"{key}_std" in result else ""


def _indexed(result: dict) -> dict:
    metrics = [{"type": "accuracy", "name": f"top-{k}", "value": round(result[f"top{k}"], 2)} for k in (1, 5)]
    return {
        "task": {"type": "video-classification"},
        "dataset": {"type": result["dataset"], "name": result["dataset"]},
        "metrics": metrics,
    }
