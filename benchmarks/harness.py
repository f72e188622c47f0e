"""Alternating timed runs of several ways to do the same thing, each in a process of its own.

So each has the memory allocator and the settings that it has in use, and its peak memory is its own.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from engine.flops import peak_flops
from utils.cli import keep_freed_memory

BASELINE = "baseline"  # name of the contender that ratios refer to
ANSWER = "answer: "
WARM_UP = 3  # untimed runs: memory that is kept for reuse takes a few to settle


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
    utilisation: float | None = None  # share of the GPU's bf16 peak; None where work or peak are unknown
    shares: dict[str, float] = field(default_factory=dict)  # of each ceiling's operations a second, median over rounds


class Ceiling(NamedTuple):
    """What no contender can be faster than, operation for operation; timed in the same rounds."""

    build: Callable[[], Callable[[], object]]
    flops: float  # of a call


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark module offers to the harness.

    ``contenders`` maps names to functions that build the thing to time. A timed function does ``count`` units of work
    a call, of ``flops()`` operations each, recomputation not counted.
    """

    name: str
    module: str
    unit: str
    count: int
    contenders: dict[str, Callable[[], Callable[[], object]]]
    flops: Callable[[], float] | None = None
    ceilings: dict[str, Ceiling] = field(default_factory=dict)  # only with ``flops``

    def builders(self) -> dict[str, Callable[[], Callable[[], object]]]:
        """All that is timed."""
        return self.contenders | {name: ceiling.build for name, ceiling in self.ceilings.items()}


def device() -> torch.device:
    """The device that benchmarks run on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run(benchmark: Benchmark, argv: list[str] | None = None) -> list[Measurement]:
    """Measure a benchmark, every contender in a process of its own, in turns; as a command also print its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, contenders alternating")
    parser.add_argument("--serve", nargs=2, metavar=("BENCHMARK", "CONTENDER"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:  # a process that harness.run started
        name, contender = args.serve
        if name == benchmark.name:
            _serve(benchmark.builders()[contender], contender)
        return []
    workers = {contender: _start(benchmark, contender) for contender in benchmark.builders()}
    times = {contender: [] for contender in workers}
    for _ in range(args.rounds):
        for contender, worker in workers.items():
            times[contender].append(_ask(worker))
    peaks = {contender: _peak_mib_at_end(worker) for contender, worker in workers.items()}
    flops = benchmark.count * benchmark.flops() if benchmark.flops else None
    measurements = [_measurement(benchmark, name, times, peaks[name], flops) for name in benchmark.contenders]
    sys.stdout.write(table(measurements))
    return measurements


def is_baseline(contender: str) -> bool:
    """Whether a contender runs as the published code does, without what our commands set up."""
    return contender.startswith(BASELINE)


def _start(benchmark: Benchmark, contender: str) -> subprocess.Popen:
    command = [sys.executable, "-m", benchmark.module, "--serve", benchmark.name, contender]
    environment = dict(os.environ)
    environment.pop("OMP_WAIT_POLICY", None)
    if not is_baseline(contender):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"  # as scripts/launch.sh does
    worker = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    _answer(worker)  # built and warm
    return worker


def _ask(worker: subprocess.Popen) -> float:
    """Seconds of one run."""
    worker.stdin.write("go\n")
    worker.stdin.flush()
    return _answer(worker)


def _peak_mib_at_end(worker: subprocess.Popen) -> float:
    worker.stdin.close()
    peak = _answer(worker)
    worker.wait()
    return peak


def _answer(worker: subprocess.Popen) -> float:
    """The next figure that a worker prints; other output of libraries is passed over."""
    for line in worker.stdout:
        if line.startswith(ANSWER):
            return float(line.removeprefix(ANSWER))
    raise ChildProcessError(f"a contender ended with status {worker.wait()}; its error stands above")


def _serve(build: Callable[[], Callable[[], object]], contender: str) -> None:
    """Run once for every line of the standard input and answer with the seconds; at its end with the peak memory."""
    if not is_baseline(contender):
        keep_freed_memory()  # as utils.cli.run_main does
    function = build()
    for _ in range(WARM_UP):
        function()
    _leave_gpu()
    _say(0.0)
    for _ in sys.stdin:
        if torch.cuda.is_available():
            function()  # takes its memory again
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        elapsed_s = time.perf_counter() - start
        _leave_gpu()
        _say(elapsed_s)
    _say(peak_mib())


def _leave_gpu() -> None:
    """Give memory between two runs to the other contenders: a GPU may not hold the activations of all at once."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def _say(figure: float) -> None:
    sys.stdout.write(f"{ANSWER}{figure}\n")
    sys.stdout.flush()


def table(measurements: list[Measurement]) -> str:
    """Markdown table."""
    first = measurements[0]
    columns = [first.benchmark, f"{first.unit}/s", "median s", "min s", "max s", "speed-up", "peak MiB"]
    has_utilisation = any(m.utilisation is not None for m in measurements)
    if has_utilisation:
        columns.append("% of bf16 peak")
    columns += [f"% of {ceiling}" for ceiling in first.shares]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for m in measurements:
        figures = (
            f"{m.per_s:.2f} | {m.median_s:.3f} | {m.min_s:.3f} | {m.max_s:.3f} | {m.speedup:.2f} | {m.peak_mib:.0f}"
        )
        if has_utilisation:
            figures += f" | {100 * m.utilisation:.1f}"
        figures += "".join(f" | {100 * m.shares[ceiling]:.0f}" for ceiling in first.shares)
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


def _measurement(
    benchmark: Benchmark, name: str, times: dict[str, list[float]], peak_mib: float, flops: float | None
) -> Measurement:
    """``flops``: of a call."""
    own = times[name]
    median = statistics.median(own)
    peak = peak_flops(device()) if flops else None
    return Measurement(
        benchmark=benchmark.name,
        contender=name,
        unit=benchmark.unit,
        per_s=benchmark.count / median,
        median_s=median,
        min_s=min(own),
        max_s=max(own),
        speedup=_ratio(times[BASELINE], own),
        peak_mib=peak_mib,
        utilisation=None if peak is None else flops / median / peak,
        shares={ceiling: flops / of.flops * _ratio(times[ceiling], own) for ceiling, of in benchmark.ceilings.items()},
    )


def _ratio(times: list[float], own: list[float]) -> float:
    """Median over rounds."""
    return statistics.median(other / each for other, each in zip(times, own, strict=True))


def peak_mib() -> float:
    """Peak memory of this process, or of the allocator on a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    # Not getrusage: its peak is inherited from the process that started this one.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def _has_bf16_units() -> bool:
    from utils.precision import resolve_precision

    return resolve_precision("auto", device()).name == "bf16"
