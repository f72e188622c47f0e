"""The model card of the Hub: what the model is, how it is used, and a table of its results."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.results import Results
from utils.config import DataConfig, NetworkConfig

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


def model_card(
    name: str, network: NetworkConfig, data: DataConfig, class_names: list[str] | None, results: list[Results]
) -> str:
    """The card as Markdown with the Hub's YAML header.

    Args:
        name: ``owner/name``, or that of a folder.
        data: of the training.
        class_names: of the training; None: not known.
        results: the table and the header's figures.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    figures = [
        EvalResult(
            task_type="video-classification",
            dataset_type=result.dataset,
            dataset_name=result.dataset,
            metric_type="mean_average_precision" if metric == "mAP" else "accuracy",
            metric_name=f"{metric}, {result.views}",
            metric_value=round(value, 2),
        )
        for result in results
        for metric, (value, _) in result.figures.items()
    ]
    tests = [test for result in results for test in (result, *(result.splits or {}).values())]
    titles = list(dict.fromkeys(title for test in tests for title in test.figures))
    header = ModelCardData(
        library_name="mote",
        pipeline_tag="video-classification",
        tags=["clip", "zero-shot", "mote"],
        **({"model_name": name.split("/")[-1], "eval_results": figures} if figures else {}),
    )
    card = ModelCard.from_template(
        header,
        template_path=str(TEMPLATE),
        name=name,
        network=network,
        data=data,
        num_classes=len(class_names or ()),
        titles=titles,
        rows=[row for result in results for row in _rows(result, titles)],
    )
    return f"{card}\n"


def _rows(result: Results, titles: Sequence[str]) -> Iterator[list[str]]:
    """Rows of the table, with figures of these titles: each list and, of several, their mean."""
    splits = result.splits or {}
    for name, split in splits.items():
        yield _row(f"{split.dataset}, {name}", split, titles)
    yield _row(f"{result.dataset}, mean of {len(splits)}" if splits else result.dataset, result, titles)


def _row(name: str, result: Results, titles: Sequence[str]) -> list[str]:
    views = f"{result.num_clips} x {result.num_crops}" + ", dense" * result.dense
    videos = str(result.num_videos)
    if result.failed_videos:
        videos += f" ({len(result.failed_videos)} unreadable)"
    figures = {
        title: f"{mean:.2f}" + ("" if std is None else f" ± {std:.2f}") for title, (mean, std) in result.figures.items()
    }
    cells = (figures.get(title, "") for title in titles)
    return [name, views, *cells, videos, result.fusion, result.precision]
