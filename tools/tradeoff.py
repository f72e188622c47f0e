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

from commands.testing import PLAIN_CLIP, build_tested_model, read_configs, read_part
from datasets.build import build_eval_loader, decoder_of
from datasets.clips.kept import KeptBatches
from datasets.clips.transforms import CROPS
from datasets.lists.records import VideoList
from engine.collect import collect, evaluate
from engine.protocols.rules import accuracy, fuse_close_set, fuse_zero_shot
from modules.formats.ours import read_checkpoint
from modules.heads.transformer import TemporalTransformer
from modules.video_clip import VideoCLIP
from reports.tradeoff import PLAIN, draw, summarise, table
from utils.cli import add_common_arguments, add_view_arguments, run_main
from utils.config import Config
from utils.distributed import broadcast, is_main, process_group, rank, world_size
from utils.files import read_json, write_text
from utils.logger import setup_logging
from utils.precision import Precision, resolve_precision
from utils.weights.four_keys import HEAD, MERGED, MODEL
from utils.weights.state_dicts import weights_sha256

logger = logging.getLogger(__name__)

Part = tuple[VideoList, list[str]]


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
    add_view_arguments(parser, CROPS)
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
        ValueError, FileNotFoundError, FileExistsError: anything wrong with the input, before the first video.
    """
    args = parse_args(argv)
    setup_logging()
    configs = read_configs(args)
    close, *zero_shot = configs
    if any(config.data.modality == "features" for config in configs.values()):
        raise ValueError("data.modality is features, but the weight average changes the image tower: expected videos")
    with process_group(max(config.solver.collective_timeout_s for config in configs.values())) as device:
        precision = resolve_precision(args.precision, device)
        parts = {name: read_part(config) for name, config in configs.items()}
        swept = SweptModel(args.weights, configs, parts, precision)
        settings = describe(args, configs, parts, swept) | {"precision": precision.name}
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

    def __init__(self, weights: str, configs: dict[str, Config], parts: dict[str, Part], precision: Precision):
        self.configs, self.parts, self.precision = configs, parts, precision
        self.weights, self.checkpoint = weights, read_checkpoint(weights)
        if self.checkpoint.get(MERGED):
            raise ValueError(f"{weights} is merged: its weights are averaged with CLIP's already; sweep the original")
        self.model, self.classes = build_tested_model(PLAIN_CLIP, configs, parts, precision)
        self._pretrained = {name: value.clone() for name, value in self.model.clip.state_dict().items()}
        self.set_average(1.0)  # a checkpoint that does not fit is known now
        bare = {
            name: replace(config, network=replace(config.network, sim_header="None"))
            for name, config in configs.items()
        }
        self.plain, self.plain_classes = build_tested_model(PLAIN_CLIP, bare, parts, precision)

    @property
    def modulations(self) -> dict[str, tuple[int, float] | None]:
        """Modulation settings by name; the same for all configurations."""
        evaluation = next(iter(self.configs.values())).eval
        on = {"on": (evaluation.modulation_classes, evaluation.modulation_temperature)}
        return (on if isinstance(self.model.head, TemporalTransformer) else {}) | {"off": None}

    def set_average(self, alpha: float) -> None:
        """Make CLIP's tensors ``alpha`` times the checkpoint's plus the rest pretrained ones."""
        self.model.clip.load_state_dict(self._pretrained)
        self.model.load_weights(self.checkpoint, self.weights, alpha)

    @torch.inference_mode()
    def view_logits(self, name: str, loader: KeptBatches, num_views: int, desc: str) -> dict[str, Tensor]:
        """Cosines [N, V, K] of one list with the current weights, by modulation; frames are encoded once."""
        model: VideoCLIP = self.model.eval()
        with self.precision.autocast():
            class_features = model.class_features(self.classes[name])

        def classify(clips: Tensor) -> Tensor:
            frame_features = model.encode_frames(clips)
            cosines = []
            for model.modulation in self.modulations.values():
                cosines.append(model(frame_features, class_features).logits[0])
            return torch.cat(cosines, dim=1)  # [B, 2K], or [B, K] where there is nothing to modulate

        shape = num_views, len(self.modulations) * len(class_features)
        with model.merged_experts():
            clips_per_pass = self.configs[name].data.batch_size
            views = collect(classify, loader, shape, self.precision, clips_per_pass, desc)
        return dict(zip(self.modulations, views.logits.split(len(class_features), dim=2), strict=True))

    def plain_logits(self, name: str, loader: KeptBatches, num_views: int, desc: str) -> Tensor:
        """Cosines [N, V, K] of one list with plain CLIP, frames averaged."""
        clips_per_pass = self.configs[name].data.batch_size
        classes = self.plain_classes[name]
        return evaluate(self.plain, loader, classes, num_views, self.precision, clips_per_pass, desc).logits


def run_missing(name: str, swept: SweptModel, done: dict, args: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """Key and figures of every test of one list that is not ``done``; the key is the average, or ``PLAIN``."""
    missing = [alpha for alpha in args.alphas if f"{alpha:g}" not in done]
    logger.info("%s: %d of %d averages to test", name, len(missing), len(args.alphas))
    if not missing and PLAIN in done:
        return
    config, (videos, _) = swept.configs[name], swept.parts[name]
    loader = build_eval_loader(config.data, videos, rank(), world_size(), args.test_clips, args.test_crops)
    kept = KeptBatches(loader, _bytes_to_keep(args.keep_gb))
    num_views, labels = args.test_clips * args.test_crops, torch.from_numpy(videos.labels)
    is_close = name == next(iter(swept.configs))

    def figures(cosines: Tensor) -> dict[str, float]:
        scores = fuse_close_set(cosines, config.eval.softmax_scale) if is_close else fuse_zero_shot(cosines)
        return accuracy(scores, labels)

    if PLAIN not in done:
        yield PLAIN, figures(swept.plain_logits(name, kept, num_views, f"{name}, plain CLIP"))
    for alpha in missing:
        swept.set_average(alpha)
        views = swept.view_logits(name, kept, num_views, f"{name}, average {alpha:g}")
        yield f"{alpha:g}", {modulation: figures(cosines) for modulation, cosines in views.items()}


def _bytes_to_keep(limit_gb: float | None) -> float:
    """Half of the free memory, shared by the processes of this machine, unless a limit is given."""
    if limit_gb is not None:
        return 1e9 * limit_gb
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free / 2 / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def describe(args: argparse.Namespace, configs: dict[str, Config], parts: dict[str, Part], swept: SweptModel) -> dict:
    """What the figures depend on, beside the precision: results of other settings are never mixed."""
    first = next(iter(configs.values()))
    state = swept.checkpoint[MODEL] | swept.checkpoint[HEAD]
    return {
        "weights": args.weights,
        "weights_sha256": weights_sha256(state),
        "arch": first.network.arch,
        "templates": first.network.templates,
        "num_clips": args.test_clips,
        "num_crops": args.test_crops,
        "dense": first.data.dense,
        "num_segments": first.data.num_segments,
        "decoder": decoder_of(first.data),
        "modulation": swept.modulations.get("on"),
        "softmax_scale": first.eval.softmax_scale,
        "lists": {name: videos.fingerprint() for name, (videos, _) in parts.items()},
        "class_names": {name: class_names for name, (_, class_names) in parts.items()},
    }


def _open_results(path: Path, settings: dict) -> dict:
    """The results of an earlier call with the same settings, or empty ones.

    Raises:
        FileExistsError: the file holds results of other settings; it names them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps(settings))  # as they come back from the file
    if not path.exists():
        return {"settings": settings, "tests": {}}
    results = read_json(path, "the results of a sweep")
    found, tests = results.get("settings"), results.get("tests")
    if not isinstance(found, dict) or not isinstance(tests, dict):
        raise ValueError(f"{path}: damaged, expected settings and tests; give another --out")
    if names := sorted(name for name in {*found, *settings} if found.get(name) != settings.get(name)):
        raise FileExistsError(f"{path} holds results that differ in {', '.join(names)}; give another --out")
    return results


def _write(path: Path, results: dict) -> None:
    write_text(path, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    run_main(main)
