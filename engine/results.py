"""The results of a test, over one list or several, and the one place that writes and reads ``results.json``."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.protocols.accuracy import mean_and_std
from utils.files import checked, no_file, read_json, write_text


@dataclass(frozen=True, kw_only=True)
class ProbeFacts:
    """How the classifier of a linear probe was fitted, see ``engine.protocols.probe``."""

    solver: str
    value: float  # of its setting
    held_out_top1: float | None = None  # of training videos that chose it; None: nothing chose
    normalized: bool  # vectors were made unit before
    num_train: int  # videos that could be read
    train_fingerprint: str  # of the training list
    shot: int = 0  # videos of each class; 0: all


@dataclass(frozen=True, kw_only=True)
class Results:
    """Figures in percent, and everything that must agree before two tests compare.

    None stands for what does not apply; such keys are absent from the file. Keys are written in this order.
    """

    dataset: str
    top1: float | None = None  # over several lists: the mean; None: videos have several labels
    top1_std: float | None = None  # of several lists: population std
    top5: float | None = None
    top5_std: float | None = None
    mAP: float | None = None  # mean average precision over classes, where it was asked for
    mAP_std: float | None = None
    num_videos: int
    num_clips: int
    num_crops: int
    dense: bool = False  # clips are windows of 128 frames
    fusion: str  # the rule that fused the views
    weights: str  # as given to the command
    list_fingerprint: str | None = None  # of one list
    class_texts: str | None = None  # fingerprint of the texts that stand for the classes; None: they are vectors
    precision: str
    decoder: str | None = None  # None: not video files, or several decoders
    failed_videos: list[str]  # could not be read, count as wrong
    frame_count_mismatches: list[str] | None = None  # None: the decoder cannot be wrong about them
    cut_texts: int | None = None  # of multiple choice: options that are longer than the text tower reads
    half_class: dict[str, float] | None = None  # see ``engine.protocols.zero_shot.half_class``
    probe: ProbeFacts | None = None  # of one list
    splits: "dict[str, Results] | None" = None  # the lists, where there are several

    @property
    def figures(self) -> dict[str, tuple[float, float | None]]:
        """The figures that there are, by their titles: mean and, over several lists, population std."""
        figures = {
            "top-1": (self.top1, self.top1_std),
            "top-5": (self.top5, self.top5_std),
            "mAP": (self.mAP, self.mAP_std),
        }
        return {title: figure for title, figure in figures.items() if figure[0] is not None}

    @property
    def views(self) -> str:
        """The views of a video in words."""
        return f"{self.num_clips} clips x {self.num_crops} crops{', dense' * self.dense}"

    def to_dict(self) -> dict[str, Any]:
        """What ``results.json`` holds."""
        return without_none(self)


@dataclass(frozen=True, kw_only=True)
class RetrievalResults:
    """Figures of a search in both directions, see ``engine.protocols.retrieval.figures``; else as ``Results``."""

    dataset: str
    t2v: dict[str, float]
    v2t: dict[str, float]
    dual_softmax: dict[str, Any] | None = None
    num_texts: int
    num_videos: int
    tie_rule: str
    num_clips: int
    num_crops: int
    dense: bool = False
    weights: str
    list_fingerprint: str
    precision: str
    decoder: str | None = None
    cut_texts: int  # longer than the text tower reads
    failed_videos: list[str]  # found last
    frame_count_mismatches: list[str] | None = None

    @property
    def views(self) -> str:
        """The views of a video in words."""
        return f"{self.num_clips} clips x {self.num_crops} crops{', dense' * self.dense}"

    @property
    def rows(self) -> dict[str, dict[str, float]]:
        """The sets of figures by their titles."""
        titles = {"t2v": "text to video", "v2t": "video to text"}
        rows = {title: getattr(self, key) for key, title in titles.items()}
        if dual := self.dual_softmax:
            rows |= {f"{title}, dual softmax {dual['lambda']:g}": dual[key] for key, title in titles.items()}
        return rows

    def to_dict(self) -> dict[str, Any]:
        """What ``results.json`` holds."""
        return without_none(self)


def without_none(results: Any) -> dict[str, Any]:
    """The fields of a dataclass, and of those in it, that apply."""
    return asdict(results, dict_factory=lambda pairs: {name: value for name, value in pairs if value is not None})


def over_splits(splits: dict[str, Results]) -> Results:
    """One result over several lists, tested alike: mean and population std of the figures that all of them have."""
    tests = list(splits.values())
    summary: dict[str, float | None] = {}
    for name in ("top1", "top5", "mAP"):
        values = [getattr(test, name) for test in tests]
        summary[name], summary[f"{name}_std"] = (None, None) if None in values else mean_and_std(values)
    compared = [test.frame_count_mismatches for test in tests if test.frame_count_mismatches is not None]
    decoders = {test.decoder for test in tests} - {None}
    texts = {test.class_texts for test in tests}
    return replace(
        tests[0],
        dataset="+".join(dict.fromkeys(test.dataset for test in tests)),
        **summary,
        num_videos=sum(test.num_videos for test in tests),
        list_fingerprint=None,
        class_texts=texts.pop() if len(texts) == 1 else None,
        decoder=decoders.pop() if len(decoders) == 1 else None,
        failed_videos=[path for test in tests for path in test.failed_videos],
        frame_count_mismatches=[path for paths in compared for path in paths] if compared else None,
        half_class=None,
        probe=None,
        splits=splits,
    )


def write_results(path: Path, results: Results | RetrievalResults) -> None:
    """Write ``results.json``."""
    write_text(path, json.dumps(results.to_dict(), indent=2) + "\n")


def read_results(path: Path) -> Results:
    """Read ``results.json``; keys of other versions are left out.

    Raises:
        FileNotFoundError, ValueError: no such file, or not one; it says what is missing or of another type.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {no_file(path)}")
    results = checked(Results, read_json(path, "the results of a test"), path)
    splits = {f"splits.{name}": split for name, split in (results.splits or {}).items()}
    for place, each in splits.items() or (("", results),):  # lists that share no figure have no mean
        if not each.figures:
            raise ValueError(f"{path}: damaged, missing {place}{'.' * bool(place)}top1, or mAP")
    return results
