"""How fast this machine runs the project, beside the plain way of benchmarks/plain.py in the same run.

    python -m benchmarks.speed                      # everything
    python -m benchmarks.speed --only single multi  # some cases, by name; "growth" is the figure

Prints a table and writes runs/benchmarks/speed.{md,json} and growth.{pdf,png}. Each way runs in a separate process,
ours with the memory settings of every script. Both take turns, so a ratio compares neighbours in time. Seeds are fixed,
one step warms up, and numbers are medians with [range]. Peak memory is what the process grows by (on a GPU: what its
tensors take). The floor is a step's sums and products at the rate of this machine's matrix product of 2048 x 2048. If
other jobs run, set OMP_NUM_THREADS=1: threads that wait for each other take many times as long.

On a GPU a time is the median of 20 steps between CUDA events, the floor is by a bfloat16 product of 8192 x 8192, and a case
that needs more than 30 GB in one of the two processes is skipped. Results are written after every case."""

import argparse
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import Case, Step, cases, growth_cases
from data.files import write_text
from data.texts import write_json
from evaluation.plots import PREDICTED, STYLE, WEIGHTS, save_figure
from training.graphs import without_graphs
from training.runtime import pick_device, prepare_process

FOLDER = Path("runs/benchmarks")
MIN_PAIRS, MAX_PAIRS, SECONDS = 3, 15, 6.0  # repeats of a case: as many as take so long
GPU_STEPS, GPU_WARM_UP = 20, 3  # of which a time is the median; before the first of them
GPU_GIGABYTES = 30.0  # for each of the two processes


def seconds(step: Step, device: torch.device) -> float:
    """Return the seconds of a step, on a GPU the median of several."""
    if device.type != "cuda":
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(GPU_STEPS + 1)]
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in zip(marks, marks[1:])) / 1e3


def matrix_product(device: torch.device) -> tuple[Step, float]:
    """Return the matrix product that floors are by, and its sums and products."""
    side, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    square = torch.randn(side, side, device=device, dtype=dtype)
    return lambda: square @ square, 2 * side**3


def operations(step: Step) -> int:
    """Return the sums and products of a step, which runs once. Those of grouped convs' backward pass are counted as too many."""
    with FlopCounterMode(display=False) as counter, without_graphs():
        step()
    return counter.get_total_flops()


def peak_memory(device: torch.device) -> int:
    """Return the peak since the process began, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def work(connection: Connection, case: Case, plainly: bool) -> None:
    """Run one step, send its memory and operations, then time a step at every request. On a GPU, send what does not fit."""
    device = pick_device()
    if not plainly:
        prepare_process()
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1e9 * GPU_GIGABYTES / total, 0.45))
    torch.manual_seed(0)
    try:
        step = case.build(plainly, device)
        before = peak_memory(device)
        count = operations(step)
        for _ in range(GPU_WARM_UP if device.type == "cuda" else 0):
            step()
    except torch.OutOfMemoryError:
        connection.send({})
        return
    connection.send({"gigabytes": (peak_memory(device) - before) / 1e9, "gflop": count / 1e9})
    product, of_product = matrix_product(device)
    while connection.recv():
        rate = of_product / seconds(product, device) / 1e9
        connection.send((seconds(step, device), rate))


class Worker:
    """A process that times one way of a case. `facts` are empty if it does not fit into memory."""

    def __init__(self, case: Case, plainly: bool):
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, case, plainly), daemon=True)
        self.process.start()
        other.close()  # if the process dies, receiving ends
        self.facts: dict[str, float] = self.connection.recv()

    def time(self) -> tuple[float, float]:
        """Return the seconds of a step, and the GFLOP/s of a matrix product just before it."""
        self.connection.send(True)
        return self.connection.recv()

    def stop(self) -> None:
        if self.facts:
            self.connection.send(False)
        self.process.join()


def measure(case: Case) -> dict[str, Any]:
    """Time both ways in turn, in seconds per item; or say that one does not fit into memory."""
    plain, ours = Worker(case, plainly=True), Worker(case, plainly=False)
    if not plain.facts or not ours.facts:
        plain.stop()
        ours.stop()
        return {"title": case.title, "item": case.item, "skipped": f"needs more than {GPU_GIGABYTES:.0f} GB"}
    pairs, rates, start = [], [], time.monotonic()
    while len(pairs) < MIN_PAIRS or len(pairs) < MAX_PAIRS and time.monotonic() - start < SECONDS:
        (plainly, rate), (fast, second_rate) = plain.time(), ours.time()
        pairs.append((plainly / case.plain_items, fast / case.items))
        rates += [rate, second_rate]
    plain.stop()
    ours.stop()
    ratios = [plainly / fast for plainly, fast in pairs]
    # The two count differently where convs are folded into groups; the maths needs no more than the fewer.
    gflop = min(plain.facts["gflop"] / case.plain_items, ours.facts["gflop"] / case.items)
    rate, middle = statistics.median(rates), statistics.median(fast for _, fast in pairs)
    return {
        "title": case.title,
        "item": case.item,
        "plain_seconds": [plainly for plainly, _ in pairs],
        "seconds": [fast for _, fast in pairs],
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "gflop": gflop,
        "matrix_product_gflop_per_second": rate,
        "fraction_of_floor": gflop / rate / middle,
        "plain_gigabytes": plain.facts["gigabytes"],
        "gigabytes": ours.facts["gigabytes"],
        "same_items": case.items == case.plain_items,
    }


def duration(seconds: list[float]) -> str:
    """Return median and range as text, in a unit that suits."""
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    unit, scale = ("s", 1) if middle >= 1 else ("ms", 1e3)
    return f"{scale * middle:.3g} {unit} [{scale * low:.3g} to {scale * high:.3g}]"


def row(found: dict[str, Any]) -> str:
    """Return a row of the table."""
    if "skipped" in found:
        return f"| {found['title']} | {found['item']} | {' | '.join([found['skipped'], *'––––––'])} |"
    ratio, per_second = found["ratio"], 1 / statistics.median(found["seconds"])
    peaks = f"{1e3 * found['gigabytes']:,.0f}"
    if found["same_items"]:
        fraction = found["gigabytes"] / max(found["plain_gigabytes"], 1e-9)
        peaks = f"{1e3 * found['plain_gigabytes']:,.0f} / {peaks} ({fraction:.0%})"
    cells = [
        found["title"],
        found["item"],
        duration(found["plain_seconds"]),
        duration(found["seconds"]),
        f"{per_second:,.3g}",
        f"**{ratio['median']:.2f}** [{ratio['min']:.2f} to {ratio['max']:.2f}]",
        f"{found['gflop']:.3g}",
        f"{found['fraction_of_floor']:.0%}",
        peaks,
    ]
    return f"| {' | '.join(cells)} |"


HEADER = (
    "| what | per | plain | ours | ours, 1/s | plain / ours | GFLOP | floor / ours | peak memory, plain / ours, MB |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def machine(device: torch.device) -> str:
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, {versions}, CUDA {torch.version.cuda}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name, threads = (names or [platform.processor() or platform.machine()])[0], torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}, {versions}"


def plot_growth(growth: dict[str, dict[int, dict[str, Any]]], title: str) -> plt.Figure:
    """Draw a panel for what grows: milliseconds of a step over its size, log-log, with range and a line of slope 1."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(growth), figsize=(9, 3.2), sharey=True)
        for axes, (name, found) in zip(panels, growth.items()):
            sizes = np.array(list(found))
            for key, label, color in (("plain_seconds", "plain", WEIGHTS), ("seconds", "ours", PREDICTED)):
                times = 1e3 * np.array([[f(found[size][key]) for f in (min, statistics.median, max)] for size in found])
                axes.loglog(sizes, times[:, 1], "o-", color=color, markersize=4, label=label)
                axes.fill_between(sizes, times[:, 0], times[:, 2], color=color, alpha=0.2, linewidth=0)
            axes.loglog(sizes, times[-1, 1] * sizes / sizes[-1], ":", color="black", linewidth=1, label="in proportion")
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
            axes.minorticks_off()
            axes.set_xlabel(name)
        panels[0].set_ylabel("one training step (ms)")
        panels[0].legend()
        figure.suptitle(title, fontsize=9)
    return figure


def main() -> None:
    device = pick_device()
    found_cases = cases(device.type == "cuda")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[*found_cases, "growth"], choices=[*found_cases, "growth"])
    only = parser.parse_args().only
    text, results = f"{machine(device)}\n\n{HEADER}", {"machine": machine(device), "cases": {}, "growth": {}}
    print(text, flush=True)
    for name in only:
        if name != "growth":
            results["cases"][name] = measure(found_cases[name])
            text += "\n" + row(results["cases"][name])
            print(row(results["cases"][name]), flush=True)
            write_json(FOLDER / "speed.json", results)
            write_text(FOLDER / "speed.md", text + "\n")
    if "growth" in only:
        for name, sizes in growth_cases().items():
            results["growth"][name] = {size: measure(case) for size, case in sizes.items()}
            write_json(FOLDER / "speed.json", results)
        title = f"NetSpace's step from M = 8, B = 64, PRep 8x1,280, patches of 8x8\n{machine(device)}"
        for path in save_figure(plot_growth(results["growth"], title), FOLDER / "growth"):
            print(f"wrote {path}")
    print(f"wrote {FOLDER / 'speed.json'} and speed.md")


if __name__ == "__main__":
    main()
