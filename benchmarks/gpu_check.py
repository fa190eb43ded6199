"""What a GPU makes of this project, in two commands of a few minutes; on a CPU, the same in miniature.

    python -m benchmarks.gpu_check paths                   # every fast path beside the CPU in float64, times, profiles
    python -m benchmarks.gpu_check cifar10 --seconds 330   # 132 ResNet8 and their NetSpace, Fig. 3c and 3d

Writes into --out (runs/gpu): paths.json and profile-*.txt, or cifar10.json and the figures and results of CIFAR-10, which is read
from --data-dir. Times are medians of 20 steps, floors the sums and products of a step at the rate of a bfloat16 product of
8192x8192 (benchmarks/speed.py times more, beside the plain way). Results are written as they come."""

import argparse
import gc
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import create_nets_dataset_single
import eval_single
import interpolate_single_arch
import train_single_arch
import visualize_prep
from benchmarks.cases import PHOTOS, Case, Step, cases, instance_training, single_step, siren_fitting
from benchmarks.gpu_paths import check_all, check_moves
from benchmarks.speed import machine, matrix_product, operations, seconds
from data.folders import Folders
from data.texts import write_json
from models.prep_autoencoder import Sizes
from training.graphs import without_graphs
from training.runtime import pick_device, prepare_process

WARM_UP = 3  # steps
# In order of importance, and in which precision beside the scripts' own, or "eager": without CUDA graphs.
TIMED = {
    "single": ("eager",),
    "resnet8-132": ("tf32", "float32"),
    "siren": ("float32", "bfloat16"),
    "multi": ("eager",),
    "photos": (),
    "sdf": (),
    "evaluation": (),
    "decoding": (),
    "sane": (),
}
PROFILED = ("single", "resnet8-132", "multi", "siren")


# Times


def timed_cases(tiny: bool) -> Iterator[tuple[str, str, Case]]:
    """Yield what is timed: its name, how it differs from what the scripts do, and how it is built."""
    found = cases(on_gpu=True)
    if tiny:
        sizes = Sizes((8, 640), emb_size=256, grid=16, row_length=64, row_channels=32)
        single = partial(single_step, sizes=sizes, image_shape=PHOTOS, m=2, batch=4)
        instances = partial(instance_training, name="resnet8", image_shape=PHOTOS, m=3, batch=4)
        found = {"single": Case("", single), "resnet8-132": Case("", instances, 3, 3)}
        found["siren"] = Case("", partial(siren_fitting, m=2, points=64), 2, 2)
    timed = {name: variants for name, variants in TIMED.items() if name in found}
    for name in timed:
        yield name, "", found[name]
    for name, variants in timed.items():
        for variant in variants:
            build = found[name].build if variant == "eager" else partial(found[name].build, precision=variant)
            yield name, variant, replace(found[name], build=build)


def time_case(case: Case, device: torch.device, eager: bool, rate: float) -> dict[str, Any]:
    """Return the time, the floor at a rate in operations a second, and the memory of a case's step."""
    gc.collect()
    plain_count = operations(case.build(True, device)) / case.plain_items
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    step = without_graphs()(case.build(False, device)) if eager else case.build(False, device)
    for _ in range(WARM_UP):
        step()
    taken = seconds(step, device)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None
    count = min(plain_count, operations(step) / case.items) * case.items
    whole = {"whole_seconds": time.monotonic() - began}
    return {"ms": 1e3 * taken, "floor_ms": 1e3 * count / rate, "gigabytes": peak, **whole}


def time_all(device: torch.device, tiny: bool, deadline: float) -> Iterator[dict[str, Any]]:
    """Yield what each step takes, until the deadline."""
    product, count = matrix_product(device)
    product()
    rate = count / seconds(product, device)
    yield {"what": "matrix product", "tflops": rate / 1e12}
    for name, variant, case in timed_cases(tiny):
        about = {"what": name, "variant": variant}
        if time.monotonic() > deadline:
            yield {**about, "error": "no time left"}
            continue
        torch.manual_seed(0)
        try:
            yield {**about, **time_case(case, device, variant == "eager", rate)}
        except Exception as error:  # the others are still worth knowing
            yield {**about, "error": f"{type(error).__name__}: {str(error)[:300]}"}


def check_waits(step: Step, device: torch.device) -> dict[str, Any]:
    """Return what makes a step wait for the GPU, which should be nothing."""
    about = {"path": "waits in a single step"}
    if device.type != "cuda":
        return {**about, "found": "not measured"}
    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        return {**about, "found": str(error)[:300], "good": False}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {**about, "found": "none", "good": True}


def profile(step: Step, device: torch.device, path: Path) -> str:
    """Write a profile of 3 steps, and return the operations that take longest, milliseconds and calls of a step."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    for _ in range(WARM_UP):
        step()
    with torch.profiler.profile(activities=activities) as found:
        for _ in range(3):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
    averages, key = found.key_averages(), f"self_{device.type}_time_total"
    path.write_text(averages.table(sort_by=key, row_limit=40, max_name_column_width=90))
    times = [(each.self_device_time_total or each.self_cpu_time_total, each.count, each.key) for each in averages]
    return "\n".join(
        f"{time / 3e3:8.3f} ms {count // 3:5d} {name[:110]}" for time, count, name in sorted(times)[:-15:-1]
    )


def paths(device: torch.device, out: Path, tiny: bool, deadline: float) -> None:
    """Time, check and profile every fast path."""
    results: dict[str, Any] = {"machine": machine(device), "times": [], "checks": []}

    def report(kind: str, found: dict[str, Any]) -> None:
        results[kind].append(found)
        write_json(out / "paths.json", results)
        short = {key: round(value, 6) if isinstance(value, float) else value for key, value in found.items()}
        print(json.dumps(short), flush=True)

    for found in time_all(device, tiny, deadline):
        report("times", found)
    for found in check_all(device):
        report("checks", found)
    report("checks", check_moves(device))
    steps = {name: partial(case.build, False, device) for name, variant, case in timed_cases(tiny) if not variant}
    report("checks", check_waits(steps["single"](), device))
    for name in PROFILED:
        if name in steps and time.monotonic() < deadline + 30:
            print(f"{name}:\n{profile(steps[name](), device, out / f'profile-{name}.txt')}", flush=True)


# CIFAR-10


def make_instances(folders: Folders, tiny: bool) -> tuple[int, ...]:
    """Train 132 ResNet8 of 22 lengths, with the constants of `photos`, and return the lengths in steps."""
    preset = create_nets_dataset_single.PRESETS["photos" if tiny else "cifar10"]
    lengths = (5, 9) if tiny else tuple(round(30 * (5000 / 30) ** (i / 21)) for i in range(22))
    constants = {"lengths": lengths, "lengths_in": "steps", "learning_rate": 2e-3, "classifier_start": "zero"}
    counts = {"num_train": 6, "num_val": 2, "num_test": 4} if tiny else {}
    create_nets_dataset_single.main(replace(preset, folders=folders, **constants, **counts))
    return lengths


def train_space(num_steps: int, folders: Folders, runs_dir: Path, tiny: bool) -> float:
    """Train NetSpace on these instances, as on `photos` but for its sizes and rate, and return the seconds of it all."""
    base = train_single_arch.PRESETS["photos" if tiny else "cifar10"]
    changes = {"num_steps": num_steps, "learning_rate": 1e-3, "validate_every": max(num_steps // 8, 1)}
    config = replace(
        base,
        temperature=1.0,
        optim=replace(base.optim, schedule="one-cycle", clip_norm=1.0, **changes),
        start=replace(base.start, affine_start="instance", affine_quantile=0.8),
        views=replace(base.views, prep_noise=0.3, reorder_channels=True),
        folders=replace(folders, runs_dir=runs_dir),  # the instances are read through their lists, which name them
    )
    began = time.monotonic()
    train_single_arch.main(config)
    return time.monotonic() - began


def cifar10(device: torch.device, out: Path, tiny: bool, deadline: float, data_dir: Path) -> None:
    """Train instances, and their NetSpace for the time that is left."""
    began = time.monotonic()
    folders = Folders(lists_dir=out / "input_lists", runs_dir=out, data_dir=data_dir)
    facts: dict[str, Any] = {"machine": machine(device)}

    def report(**found: Any) -> None:
        facts.update(found)
        write_json(out / "cifar10.json", facts)
        print(f"{time.monotonic() - began:.0f} s: {json.dumps(found)}", flush=True)

    report(lengths=make_instances(folders, tiny))
    # Loading, validations and compiling take no part in a step: two lengths tell it apart. The first one compiles.
    few, many = (1, 4) if tiny else (100, 1500)
    tried = [train_space(steps, folders, out / "tried" / str(i), tiny) for i, steps in enumerate((few, few, many))]
    seconds_a_step = max((tried[2] - tried[1]) / (many - few), 1e-4)
    left = deadline - time.monotonic() - (tried[1] - few * seconds_a_step) - 25  # the rest evaluates
    num_steps = many if tiny else max(int(left / seconds_a_step), many)
    report(steps=num_steps, seconds_a_step=seconds_a_step, tried=tried)
    report(seconds=train_space(num_steps, folders, out, tiny))
    for script in (eval_single, interpolate_single_arch, visualize_prep):
        script.main(replace(script.PRESETS["photos" if tiny else "cifar10"], folders=folders))
    report(whole_seconds=time.monotonic() - began)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["paths", "cifar10"])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the results")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder with cifar10.npz")
    parser.add_argument("--seconds", type=float, default=300, help="time for it all")
    parser.add_argument("--tiny", action="store_true", help="in miniature, as on a CPU")
    chosen = parser.parse_args(arguments)
    prepare_process()
    device, deadline = pick_device(), time.monotonic() + chosen.seconds
    tiny = chosen.tiny or device.type != "cuda"
    chosen.out.mkdir(parents=True, exist_ok=True)
    print(machine(device), flush=True)
    if chosen.part == "paths":
        paths(device, chosen.out, tiny, deadline)
    else:
        cifar10(device, chosen.out, tiny, deadline, chosen.data_dir)


if __name__ == "__main__":
    main()
