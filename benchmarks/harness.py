"""Alternating timed runs of several ways to do the same thing, and peak memory of each in a process of its own."""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

BASELINE = "baseline"  # name of the contender that ratios refer to


@dataclass(frozen=True)
class Measurement:
    """Figures of one contender."""

    benchmark: str
    contender: str
    unit: str
    per_s: float  # units a second, from the median
    median_s: float
    min_s: float
    max_s: float
    speedup: float  # median over rounds of baseline time / this time
    peak_mib: float  # peak memory of the process (CPU) or of the allocator (CUDA)


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark module offers to the harness.

    ``contenders`` maps names to functions that build the thing to time, so that a process measuring memory builds only
    its own. A timed function does ``count`` units of work a call.
    """

    name: str
    module: str
    unit: str
    count: int
    contenders: dict[str, Callable[[], Callable[[], object]]]


def device() -> torch.device:
    """The device that benchmarks run on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run(benchmark: Benchmark, argv: list[str] | None = None) -> list[Measurement]:
    """Measure a benchmark; as a command also print its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, contenders alternating")
    parser.add_argument("--peak_memory_of", nargs=2, metavar=("BENCHMARK", "CONTENDER"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.peak_memory_of:  # a process that harness.run started
        name, contender = args.peak_memory_of
        if name == benchmark.name:
            sys.stdout.write(json.dumps(_peak_mib(benchmark.contenders[contender]())))
        return []
    functions = {name: build() for name, build in benchmark.contenders.items()}
    times = alternate(functions, args.rounds)
    measurements = [_measurement(benchmark, name, times, _peak_mib_of_process(benchmark, name)) for name in functions]
    sys.stdout.write(table(measurements))
    return measurements


def alternate(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each function in each round; one warm-up round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for round_number in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_number:
                times[name].append(time.perf_counter() - start)
    return times


def table(measurements: list[Measurement]) -> str:
    """Markdown table."""
    first = measurements[0]
    lines = [
        f"| {first.benchmark} | {first.unit}/s | median s | min s | max s | speed-up | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for m in measurements:
        figures = (
            f"{m.per_s:.2f} | {m.median_s:.3f} | {m.min_s:.3f} | {m.max_s:.3f} | {m.speedup:.2f} | {m.peak_mib:.0f}"
        )
        lines.append(f"| {m.contender} | {figures} |")
    return "\n".join(lines) + "\n"


def hardware() -> dict[str, str]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu_name()
    return {
        "device": name,
        "threads": str(torch.get_num_threads()),
        "bf16 units": str(_has_bf16_units()),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def save(measurements: list[Measurement], path: Path) -> None:
    """All figures as JSON."""
    path.write_text(json.dumps([asdict(m) for m in measurements], indent=2) + "\n")


def _measurement(benchmark: Benchmark, name: str, times: dict[str, list[float]], peak_mib: float) -> Measurement:
    own, reference = times[name], times[BASELINE]
    median = statistics.median(own)
    return Measurement(
        benchmark=benchmark.name,
        contender=name,
        unit=benchmark.unit,
        per_s=benchmark.count / median,
        median_s=median,
        min_s=min(own),
        max_s=max(own),
        speedup=statistics.median(b / o for b, o in zip(reference, own, strict=True)),
        peak_mib=peak_mib,
    )


def _peak_mib(function: Callable[[], object]) -> float:
    function()
    function()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    # Not getrusage: its peak is inherited from the process that started this one.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def _peak_mib_of_process(benchmark: Benchmark, contender: str) -> float:
    command = [sys.executable, "-m", benchmark.module, "--peak_memory_of", benchmark.name, contender]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def _has_bf16_units() -> bool:
    from utils.precision import resolve_precision

    return resolve_precision("auto", device()).name == "bf16"
