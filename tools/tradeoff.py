"""Special against general: python -m tools.tradeoff --close C --zeroshot C1 C2 --weights W

Tests averages of CLIP's weights and a checkpoint's (`eval.weight_average` from 0 to 1) with modulation on and off, each
close-set and zero-shot. At 0 the image tower is CLIP's own, under the trained head; plain CLIP, without the head, is a
point of its own. Tests that are in OUT/tradeoff.json already are not repeated.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from commands.arguments import add_view_arguments, read_configs
from commands.testing import ListToTest, build_tested_model
from commands.weights import Weights
from datasets.build import build_eval_loader, decoder_of
from datasets.clips.kept import KeptBatches
from engine.collect import Pass, collect, rows_of_clips, score_views, shapes_of
from engine.protocols.accuracy import accuracy
from engine.protocols.close_set import CloseSet
from engine.protocols.fusion import Fusion
from engine.protocols.zero_shot import ZeroShot
from modules.build import PLAIN_CLIP, plain
from modules.systems.base import Batch
from reports.tradeoff import PLAIN, draw, summarise, table
from utils.cli import add_common_arguments, run_main
from utils.distributed import broadcast, is_main, process_group, rank, world_size
from utils.files import check_settings, read_json, write_text
from utils.logger import setup_logging
from utils.precision import Precision, resolve_precision
from utils.weights.four_keys import HEAD, MERGED, MODEL
from utils.weights.state_dicts import weights_sha256

logger = logging.getLogger(__name__)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--close", required=True, help="YAML file of the close-set test")
    parser.add_argument("--zeroshot", required=True, nargs="+", help="YAML files of the zero-shot tests")
    parser.add_argument("--weights", required=True, help="checkpoint")
    parser.add_argument(
        "--alphas",
        type=_alphas,
        default=[n / 10 for n in range(11)],
        help="0,0.5,1 for example (default: 11 from 0 to 1)",
    )
    add_view_arguments(parser)
    parser.add_argument("--dense", action="store_true", help="clips are windows of 128 frames")
    parser.add_argument(
        "--keep_gb",
        type=float,
        help="memory of a process for decoded views (default: its share of half of what is free)",
    )
    parser.add_argument("--out", type=Path, help="folder to write (default: beside the weights)")
    add_common_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    args.config = [args.close, *args.zeroshot]
    args.out = args.out or Path(args.weights).with_suffix("").with_name(
        f"tradeoff_{Path(args.weights).stem}_{args.test_clips}x{args.test_crops}{'_dense' * args.dense}"
    )
    return args


def _alphas(text: str) -> list[float]:
    try:
        alphas = sorted({float(number) for number in text.split(",")})
    except ValueError:
        alphas = []
    if not alphas or not 0 <= alphas[0] <= alphas[-1] <= 1:
        raise argparse.ArgumentTypeError(f"expected numbers from 0 to 1 like 0,0.5,1, found {text!r}")
    return alphas


def main(argv: list[str] | None = None) -> dict:
    """Run the tests that are missing, write and print the summary; returns what ``tradeoff.json`` holds.

    Raises:
        ValueError, FileNotFoundError: anything wrong with the input, before the first video.
    """
    args = parse_args(argv)
    setup_logging()
    weights = Weights(args.weights)
    configs = read_configs(args, weights)
    close, *zero_shot = configs
    if any(config.data.modality == "features" for config in configs.values()):
        raise ValueError("data.modality is features, but the weight average changes the image tower: expected videos")
    if any(config.network.residual_projection for config in configs.values()):
        raise ValueError(
            "network.residual_projection is for training classes alone, and one model is tested on these and others: "
            "set it to 0"
        )
    with process_group(max(config.solver.collective_timeout_s for config in configs.values())) as device:
        precision = resolve_precision(args.precision, device)
        swept = SweptModel(weights, {name: ListToTest.read(config) for name, config in configs.items()}, precision)
        settings = describe(args, swept) | {"precision": precision.name}
        results = broadcast(_open_results(args.out / "tradeoff.json", settings) if is_main() else None)
        for name in configs:
            for key, figures in run_missing(name, swept, results["tests"].setdefault(name, {}), args):
                results["tests"][name][key] = figures
                if is_main():
                    _write(args.out / "tradeoff.json", results)
        results |= summarise(results["tests"], close, zero_shot)
        if is_main():
            _write(args.out / "tradeoff.json", results)
            draw(results, args.out / "tradeoff.png")
            text = table(results)
            write_text(args.out / "tradeoff.txt", text)
            sys.stdout.write(f"{text}\nwrote {args.out}/tradeoff.json, .png, .txt\n")
    return results


class SweptModel:
    """One model that takes any average of CLIP's weights and a checkpoint's; and plain CLIP beside it."""

    def __init__(self, weights: Weights, lists: dict[str, ListToTest], precision: Precision):
        self.lists, self.precision = lists, precision
        if weights.checkpoint is None:
            raise ValueError(
                f"--weights: expected a checkpoint to average with the pretrained model, found {weights.name}"
            )
        self.weights, self.checkpoint = weights.name, weights.checkpoint
        if self.checkpoint.get(MERGED):
            raise ValueError(
                f"{self.weights} is merged: its weights are averaged with CLIP's already; sweep the original"
            )
        self.model, self.classes = build_tested_model(weights, lists, precision)
        config = next(iter(lists.values())).config
        pretrained = weights.towers(config, config.data.input_size).state_dict()
        self._pretrained = {name: pretrained[name] for name in self.model.towers.state_dict()}
        self.set_average(1.0)  # a checkpoint that does not fit is known now
        bare = {name: tested._replace(config=plain(tested.config)) for name, tested in lists.items()}
        self.plain, self.plain_classes = build_tested_model(Weights(PLAIN_CLIP), bare, precision)
        settings = self.model.settings
        # The system's settings for each form that is tested; only MoTE has two.
        self.forms, self.modulation = {"off": settings}, None
        if hasattr(settings, "modulation"):
            self.forms = {"on": replace(settings, modulation=True), "off": replace(settings, modulation=False)}
            self.modulation = settings.modulation_classes, settings.modulation_temperature

    def set_average(self, alpha: float) -> None:
        """Make CLIP's tensors ``alpha`` times the checkpoint's plus the rest pretrained ones."""
        self.model.towers.load_state_dict(self._pretrained)
        self.model.load_weights(self.checkpoint, self.weights, alpha)

    @torch.inference_mode()
    def scores(self, name: str, loader: KeptBatches, num_views: int, desc: str, fusion: Fusion) -> dict[str, Tensor]:
        """Fused scores [N, K] of one list with the current weights, by modulation; frames are encoded once."""
        model, classes = self.model.eval(), self.classes[name]
        with self.precision.autocast():
            encoded = classes.encode(model.towers)

        def compute(batch: Batch) -> dict[str, Tensor]:
            video = model.video_of(batch)
            rows = {}
            for form, model.settings in self.forms.items():
                found = rows_of_clips(model, video, encoded, fusion.tables)
                rows |= {f"{form} {table}": values for table, values in found.items()}
            return rows

        scale = model.logit_scale.item()
        shapes = shapes_of(fusion.tables, num_views, len(classes), model)
        with model.under_test(self.precision.half):
            of_forms = {f"{form} {table}": shape for form in self.forms for table, shape in shapes.items()}
            tables = collect(compute, loader, of_forms, self._pass(name, desc)).tables
        return {
            form: fusion.fuse({t: tables[f"{form} {t}"] for t in fusion.tables}, encoded.float().cpu(), scale)
            for form in self.forms
        }

    def plain_scores(self, name: str, loader: KeptBatches, num_views: int, desc: str, fusion: Fusion) -> Tensor:
        """Fused scores [N, K] of one list with plain CLIP, frames averaged."""
        classes, how = self.plain_classes[name], self._pass(name, desc)
        views = score_views(self.plain, loader, classes, num_views, how, fusion.tables)
        return fusion.fuse(views.tables, views.classes, self.plain.logit_scale.item())

    def _pass(self, name: str, desc: str) -> Pass:
        return Pass(self.precision, self.lists[name].config.data.batch_size, desc)


def run_missing(name: str, swept: SweptModel, done: dict, args: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """Key and figures of every test of one list that is not ``done``; the key is the average, or ``PLAIN``."""
    missing = [alpha for alpha in args.alphas if f"{alpha:g}" not in done]
    logger.info("%s: %d of %d averages to test", name, len(missing), len(args.alphas))
    if not missing and PLAIN in done:
        return
    config, videos, _ = swept.lists[name]
    videos.check_one_label(name, "this sweep")
    loader = build_eval_loader(config.data, videos, rank(), world_size(), args.test_clips, args.test_crops)
    kept = KeptBatches(loader, _bytes_to_keep(args.keep_gb))
    num_views, labels = args.test_clips * args.test_crops, torch.from_numpy(videos.labels)
    is_close = name == next(iter(swept.lists))
    fusion = (CloseSet if is_close else ZeroShot).of(config.eval).fusion
    if PLAIN not in done:
        yield PLAIN, accuracy(swept.plain_scores(name, kept, num_views, f"{name}, plain CLIP", fusion), labels)
    for alpha in missing:
        swept.set_average(alpha)
        scores = swept.scores(name, kept, num_views, f"{name}, average {alpha:g}", fusion)
        yield f"{alpha:g}", {modulation: accuracy(found, labels) for modulation, found in scores.items()}


def _bytes_to_keep(limit_gb: float | None) -> float:
    """Half of the free memory, shared by the processes of this machine, unless a limit is given."""
    if limit_gb is not None:
        return 1e9 * limit_gb
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free / 2 / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def describe(args: argparse.Namespace, swept: SweptModel) -> dict:
    """What the figures depend on, beside the precision: results of other settings are never mixed."""
    first = next(iter(swept.lists.values())).config
    state = swept.checkpoint[MODEL] | swept.checkpoint[HEAD]
    return {
        "weights": args.weights,
        "weights_sha256": weights_sha256(state),
        "arch": first.network.arch,
        "templates": first.network.templates,
        "class_text": first.network.class_text,
        "num_clips": args.test_clips,
        "num_crops": args.test_crops,
        "dense": first.data.dense,
        "num_segments": first.data.num_segments,
        "decoder": decoder_of(first.data),
        "modulation": swept.modulation,
        "softmax_scale": first.eval.softmax_scale,
        "fusion": first.eval.fusion,
        "lists": {name: tested.videos.fingerprint() for name, tested in swept.lists.items()},
        "class_names": {name: tested.class_names for name, tested in swept.lists.items()},
    }


def _open_results(path: Path, settings: dict) -> dict:
    """The results of an earlier call with the same settings, or empty ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps(settings))  # as they come back from the file
    if not path.exists():
        return {"settings": settings, "tests": {}}
    results = read_json(path, "the results of a sweep")
    found, tests = results.get("settings"), results.get("tests")
    if not isinstance(found, dict) or not isinstance(tests, dict):
        raise ValueError(f"{path}: damaged, expected settings and tests; give another --out")
    check_settings(path, found, settings, "give another --out")
    return results


def _write(path: Path, results: dict) -> None:
    write_text(path, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    run_main(main)
