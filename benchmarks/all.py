"""Every benchmark, and docs/benchmarks.md: python -m benchmarks.all

On two quiet CPU cores it takes more than half an hour. Figures of each benchmark are kept beside the page when it is
done: a run that was stopped goes on there, on the same machine, with the same commit and as many rounds.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from benchmarks import encode, evaluate, gpu, harness, head, loader, memory, retrieval, spacetime, train_step, transport
from benchmarks.harness import Measurement
from utils.run_folder import environment

BENCHMARKS = {
    "encode": encode,
    "train_step": train_step,
    "spacetime": spacetime,
    "head": head,
    "transport": transport,
    "loader": loader,
    "evaluate": evaluate,
    "retrieval": retrieval,
}
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
NOTES = Path(__file__).with_name("notes.md")  # a section by hand: what these benchmarks do not measure each time
PACKAGES = ("torch", "torchvision", "decord", "av")
INTRODUCTION = """# Benchmarks

What `python -m benchmarks.all` measured; the page is written by it, but for `measured apart`. `baseline` is our own
plain rendering of how the published code works: nn.MultiheadAttention, activation checkpointing always on, the expert
pass and the merged pass one after the other, experts merged at every call, frames decoded one by one, PIL transforms,
fp32 (fp16 autocast on CUDA). That of the space-time tower computes attention by einsum, keeps its probabilities, and
runs in fp32. Weights are random.

Every contender runs in a process of its own, in turns. `speed-up` is the median over rounds of the baseline's time
divided by the contender's in the same round; peak memory is that of the whole process on a CPU, of the allocator on
CUDA. Machines differ and are noisy: read the ratios.

`% of fp32 products` and `% of bf16 products` are the products' share: operations a second of the contender,
recomputation not counted, against those of the plain products of a block's linear layers alone, at the same batch and
in the same rounds. A contender in fp32 cannot reach more than the fp32 rate, which is a part of the bf16 rate.

What bf16 can bring on a CPU depends on its units: how much faster its products are is the quotient of these two
columns. Instructions of AVX512-BF16 do twice the work of those of fp32, and read half the bytes. Whatever is no product
gains less: norms, softmax, activations, residual sums and the optimizer. AMX has a higher rate, and the same rest.
"""


def main(argv: list[str] | None = None) -> None:
    """Run the benchmarks, print their tables, and write the page and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", default="5", help="timed rounds (default: 5)")
    parser.add_argument("--page", type=Path, default=PAGE, help=f"Markdown file to write (default: {PAGE.name})")
    args = parser.parse_args(argv)
    kept = args.page.with_suffix(".part.json")
    measurements = measured(args.rounds, kept)
    args.page.write_text(page(measurements, int(args.rounds), memory.section(memory.TOWERS)))
    harness.save([m for part in measurements.values() for m in part], args.page.with_suffix(".json"))
    kept.unlink()
    sys.stdout.write(f"wrote {args.page} and {args.page.with_suffix('.json').name}\n")


def measured(rounds: str, path: Path) -> dict[str, list[Measurement]]:
    """Measurements by benchmark; what ``path`` keeps of the same machine, commit and rounds is not measured again."""
    facts = harness.hardware() | environment() | {"rounds": rounds}
    kept = json.loads(path.read_text()) if path.exists() else {}
    found = kept["measurements"] if kept.get("facts") == facts else {}
    for name, module in BENCHMARKS.items():
        if name in found:
            sys.stdout.write(f"{name}: kept from {path}\n")
            continue
        start = time.monotonic()
        found[name] = [asdict(m) for m in module.main(["--rounds", rounds])]
        path.write_text(json.dumps({"facts": facts, "measurements": found}, indent=2) + "\n")
        sys.stdout.write(f"{name}: {time.monotonic() - start:.0f} s\n")
    return {name: [Measurement(**row) for row in found[name]] for name in BENCHMARKS}


def page(measurements: dict[str, list[Measurement]], rounds: int, memory_table: str) -> str:
    """The Markdown page; ``memory_table``: see ``benchmarks.memory``."""
    versions = {package: metadata.version(package) for package in PACKAGES}
    facts = harness.hardware() | versions | {"date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "rounds": str(rounds)}
    lines = [INTRODUCTION, "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items()), ""]
    for name, part in measurements.items():
        lines.append(f"## {name}\n")
        by_benchmark = {m.benchmark: [n for n in part if n.benchmark == m.benchmark] for m in part}
        lines += [harness.table(rows) for rows in by_benchmark.values()]
    parts = [*lines, "## memory\n", memory_table, NOTES.read_text(), gpu.section(gpu.read(gpu.FIGURES))]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    main()
