"""What a GPU makes of this project, in two commands of a few minutes; on a CPU, the same in miniature.

    python -m benchmarks.gpu_check paths                     # every fast path beside the CPU in float64, times, profiles
    python -m benchmarks.gpu_check cifar10 --seconds 330     # 132 ResNet8 and their NetSpace at the paper's sizes, Fig. 3c and 3d

Writes into --out (runs/gpu): paths.json and profile-*.txt after each part, and the figures and results of CIFAR-10. CIFAR-10 is
read from data/ (or --data-dir). Times are medians of 20 steps between CUDA events, floors the sums and products of a step at
the rate of a bfloat16 product of 8192x8192."""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import create_nets_dataset_single
import eval_single
import interpolate_single_arch
import train_single_arch
import visualize_prep
from benchmarks import cases
from benchmarks.cases import CIFAR10, PHOTOS, Step
from benchmarks.speed import machine
from data.folders import Folders
from data.texts import write_json
from models import layers, prep_autoencoder
from models.instances import TargetNet, TargetNets
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.target_nets import architectures_by_class_id, get_architecture, siren
from training import graphs
from training.graphs import Graphed
from training.losses import distillation_losses, sdf_losses, teacher_losses
from training.runtime import Precision, mixed_precision, pick_device, prepare_process
from training.zoo import Ensemble, squared_errors

STEPS, WARM_UP = 20, 3
# Largest relative error from float64, of losses and of gradients; for bfloat16 the smallest cosine of gradients.
LIMITS = {"float32": 1e-4, "tf32": 5e-3, "bfloat16": 0.98}


# Correctness: losses and gradients beside the CPU's in float64


def single(device: torch.device, dtype: torch.dtype, precision: Precision) -> tuple[Tensor, list[Tensor]]:
    """Return loss and gradients of NetSpace on 3 ResNet8, through a CUDA graph on a GPU."""
    torch.manual_seed(0)
    net = TargetNet(get_architecture("resnet8"), CIFAR10, 10)
    rows, x = net.fuse(net.start(range(3))), torch.randn(16, *CIFAR10)
    model = started(Sizes((8, 10_000), emb_size=1024, grid=32, row_length=512, row_channels=32), rows[0], None)
    model, rows, x = model.to(device, dtype), rows.to(device, dtype), x.to(device, dtype)

    def loss(rows: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = net.run(rows, x)
        return distillation_losses(net.run(model(rows), x), target, 4.0).mean()

    value = Graphed(loss, model, mixed_precision(device, precision))(rows, x)
    return value, list(torch.autograd.grad(value, list(model.parameters())))


def several(device: torch.device, dtype: torch.dtype, precision: Precision) -> tuple[Tensor, list[Tensor]]:
    """Return loss and gradients of NetSpace on four architectures, of which ResNet8 is there twice."""
    torch.manual_seed(0)
    nets = TargetNets.on_images(architectures_by_class_id(), PHOTOS, 10)
    class_ids, width = [0, 1, 2, 2, 3], max(nets.num_parameters.values())
    each = [nets[i].fuse(nets[i].start([i]))[0] for i in class_ids]
    rows = torch.stack([F.pad(row, (0, width - len(row))) for row in each])
    sizes = Sizes((32, 936), emb_size=1024, grid=32, row_length=128, row_channels=32)
    model, x = started(sizes, rows[-1], len(nets)), torch.randn(16, *PHOTOS)
    teacher, labels = torch.randn(16, 10), torch.randint(10, (16,))
    model, rows, x, teacher = (each.to(device, dtype) for each in (model, rows, x, teacher))
    run = cases.Graphs(cases.Space(model, nets, {}, {}), mixed_precision(device, precision))
    embeddings = run.encode(rows)
    logits = run.run(run.decode(embeddings), class_ids, x)
    loss = teacher_losses(logits, teacher, labels.to(device), 2.0, 0.9).sum() + run.classify(embeddings).square().mean()
    return loss, list(torch.autograd.grad(loss, list(model.parameters())))


def sirens(device: torch.device, dtype: torch.dtype, precision: Precision) -> tuple[Tensor, list[Tensor]]:
    """Return loss and gradients of NetSpace on 3 SIRENs."""
    torch.manual_seed(0)
    net = TargetNet(siren())
    rows, points, targets = net.fuse(net.start(range(3))), torch.rand(3, 1000, 3) * 2 - 1, torch.randn(3, 1000) / 10
    model = started(Sizes((8, 10_000), emb_size=1024, grid=32, row_length=512, row_channels=32), rows[0], None)
    model, rows, points, targets = (each.to(device, dtype) for each in (model, rows, points, targets))
    loss = Graphed(
        lambda *given: sdf_losses(net.run(model(given[0]), given[1]), given[2]).sum(),
        model,
        mixed_precision(device, precision),
    )(rows, points, targets)
    return loss, list(torch.autograd.grad(loss, list(model.parameters())))


def started(sizes: Sizes, row: Tensor, num_class_ids: int | None) -> PrepAutoencoder:
    """Return an autoencoder that predicts instances near a row, so that gradients are of ordinary size."""
    model = PrepAutoencoder(sizes, num_class_ids)
    model.decoder.scalelayer.start_at(F.pad(row, (0, model.width - len(row))).view(sizes.prep_shape), 0.1)
    return model


def training(
    name: str, m: int, device: torch.device, dtype: torch.dtype, precision: Precision
) -> tuple[Tensor, list[Tensor]]:
    """Return the losses of M instances at the third step of training, and their changes since the start."""
    torch.manual_seed(0)
    net = TargetNet(siren()) if name == "siren" else TargetNet(get_architecture(name), PHOTOS, 10)
    state = {
        key: value.to(device, dtype if value.is_floating_point() else None)
        for key, value in net.start(range(m)).items()
    }
    points = net.input_shape == (3,)
    inputs = torch.rand(3, m, 32, 3) * 2 - 1 if points else torch.randn(3, m, 32, *PHOTOS)
    targets = torch.randn(3, m, 32) / 10 if points else torch.randint(10, (3, m, 32))
    sgd = partial(torch.optim.SGD, lr=0.03 if points else 0.05)  # Adam's first steps have the size of gradients' signs
    losses = {"losses": squared_errors} if points else {}
    ensemble = Ensemble(net, state, sgd, precision=mixed_precision(device, precision), **losses)
    before = ensemble.rows.detach().clone()
    for i in range(3):
        y = targets[i].to(device)
        found = ensemble.step(inputs[i].to(device, dtype), y.to(dtype) if points else y)
    running = [value for value in ensemble.statistics.values() if value.is_floating_point()]
    return found.sum(), [ensemble.rows.detach() - before, *running]


CHECKS: dict[str, Callable[[torch.device, torch.dtype, Precision], tuple[Tensor, list[Tensor]]]] = {
    "NetSpace, one architecture": single,
    "NetSpace, four architectures": several,
    "NetSpace, SIRENs": sirens,
    "5 ResNet8 in training": partial(training, "resnet8", 5),
    "16 VanillaCNN in training": partial(training, "vanilla_cnn", 16),
    "4 SIRENs in training": partial(training, "siren", 4),
}


def check_all(device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield each path's errors in each precision, relative to the CPU's in float64."""
    for name, check in CHECKS.items():
        exact, of = check(torch.device("cpu"), torch.float64, "float32")
        reference = torch.cat([each.flatten() for each in of])
        for precision, limit in LIMITS.items():
            loss, found = check(device, torch.float32, precision)
            flat = torch.cat([each.flatten() for each in found]).double().cpu()
            relative = ((flat - reference).norm() / reference.norm()).item()
            cosine = F.cosine_similarity(flat, reference, dim=0).item()
            of_loss = abs(loss.item() - exact.item()) / abs(exact.item())
            good = cosine > limit if precision == "bfloat16" else max(relative, of_loss) <= limit
            yield {
                "path": name,
                "precision": precision,
                "loss_error": of_loss,
                "gradient_error": relative,
                "cosine": cosine,
                "good": good,
            }


def check_moves(device: torch.device) -> bool:
    """Return whether instances in training go on as they would have after moving to the CPU, and back."""
    torch.manual_seed(0)
    net = TargetNet(get_architecture("lenetlike"), PHOTOS, 10)
    state, x, y = net.start(range(3)), torch.randn(3, 8, *PHOTOS), torch.randint(10, (3, 8))
    adam = partial(torch.optim.Adam, lr=1e-3, fused=True)
    places = [device, torch.device("cpu"), device]
    moving = Ensemble(net, {name: value.to(device) for name, value in state.items()}, adam)
    staying = Ensemble(net, state, adam)
    for place in places:
        saved = moving.state_dict()
        moving = Ensemble(net, {name: value.to(place) for name, value in state.items()}, adam)
        moving.load_state_dict(saved)
        moving.step(x.to(place), y.to(place))
        staying.step(x, y)
    return torch.allclose(moving.rows.detach().cpu(), staying.rows.detach(), rtol=1e-3, atol=1e-5)


# Times


@contextmanager
def setting(module: Any, **values: Any) -> Iterator[None]:
    """Give a module's constants other values within this context."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def time_of(step: Step, device: torch.device, steps: int = STEPS) -> float:
    """Return the median seconds of a step."""
    for _ in range(WARM_UP):
        step()
    if device.type != "cuda":
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in zip(marks, marks[1:])) / 1e3


def timed_cases(tiny: bool) -> list[tuple[str, str, Callable[[torch.device], Step]]]:
    """Return what is timed, in order of importance: a name, which variant, and what builds its step."""
    m, batch, images = (2, 4, PHOTOS) if tiny else (8, 128, CIFAR10)
    sizes = Sizes((8, 640), emb_size=256, grid=16, row_length=64, row_channels=32) if tiny else Sizes((8, 10_000))
    many, points = (4, 64) if tiny else (132, 20_000)

    def one(precision: Precision | None = None, m: int = m) -> Callable[[torch.device], Step]:
        return lambda device: cases.single_step(False, device, sizes, images, m, batch, precision)

    def instances(m: int, precision: Precision) -> Callable[[torch.device], Step]:
        return lambda device: cases.instance_training(False, device, "resnet8", images, m, batch, precision)

    def fits(m: int, precision: Precision) -> Callable[[torch.device], Step]:
        return lambda device: cases.siren_fitting(False, device, m, points, precision)

    few = 2 if tiny else 16
    found = [
        ("single", "", one()),
        ("resnet8", "untuned", instances(many, "bfloat16")),
        ("resnet8", "", instances(many, "bfloat16")),
        ("resnet8 tail", "untuned", instances(2 if tiny else 6, "bfloat16")),
        ("siren", "", fits(few, "float32")),
        ("siren", "tf32", fits(few, "tf32")),
        ("siren", "bfloat16", fits(few, "bfloat16")),
        ("single", "convs", one()),
        ("single", "channels of 3", one()),
        ("resnet8", "channels of 3", instances(many, "bfloat16")),
    ]
    if not tiny:
        found += [
            ("multi", "", lambda device: cases.multi_step(False, device)),
            ("sane", "", lambda device: cases.sane_step(False, device)),
            ("sdf", "", lambda device: cases.sdf_step(False, device, 50_000)),
            ("accuracy", "", lambda device: cases.evaluation(False, device, 132, CIFAR10, 10_000)),
            ("decoding", "", lambda device: cases.decoding(False, device)),
            ("single", "untuned", one()),
            ("resnet8 tail", "eager", instances(6, "bfloat16")),
            ("single", "M = 32", one(m=4 * m)),
            ("multi", "eager", lambda device: cases.multi_step(False, device)),
            ("resnet8", "tf32", instances(many, "tf32")),
        ]
    return found


def time_all(device: torch.device, tiny: bool, deadline: float) -> Iterator[dict[str, Any]]:
    """Yield the time, floor and memory of each step, until the deadline."""
    side = 256 if tiny else 8192
    square = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    rate = 2 * side**3 / time_of(lambda: square @ square, device)
    yield {"what": f"product of {side}x{side} in bfloat16", "tflops": rate / 1e12}
    for name, variant, build in timed_cases(tiny):
        if time.monotonic() > deadline:
            yield {"what": name, "variant": variant, "error": "no time left"}
            continue
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        began = time.monotonic()
        try:
            with (
                setting(layers, GPU_CHANNELS=1 if variant.startswith("channels") else layers.GPU_CHANNELS),
                setting(prep_autoencoder, GPU_PRODUCTS=variant != "convs"),
                setting(graphs, RECORDS=variant != "eager"),
                setting(torch.backends.cudnn, benchmark=variant != "untuned"),
            ):
                torch.manual_seed(0)
                step = build(device)
                seconds = time_of(step, device)
                with FlopCounterMode(display=False) as counter, setting(graphs, RECORDS=False):
                    step()
        except Exception as error:  # the others are still worth knowing
            yield {"what": name, "variant": variant, "error": f"{type(error).__name__}: {str(error)[:300]}"}
            continue
        floor = counter.get_total_flops() / rate
        yield {
            "what": name,
            "variant": variant,
            "ms": 1e3 * seconds,
            "floor_ms": 1e3 * floor,
            "gigabytes": torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None,
            "whole_seconds": time.monotonic() - began,
        }


def check_syncs(device: torch.device, tiny: bool) -> str:
    """Return what makes a single step wait for the device, or "none"."""
    step = timed_cases(tiny)[0][2](device)
    step()
    if device.type != "cuda":
        return "not measured"
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
        return "none"
    except RuntimeError as error:
        return str(error)[:300]
    finally:
        torch.cuda.set_sync_debug_mode("default")


def profile(name: str, step: Step, device: torch.device, out: Path) -> str:
    """Write a profile of 3 steps, and return its longest kernels."""
    for _ in range(WARM_UP):
        step()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    with torch.profiler.profile(activities=kinds) as found:
        for _ in range(3):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    table = found.key_averages().table(sort_by=key, row_limit=40, max_name_column_width=90)
    (out / f"profile-{name}.txt").write_text(table)
    spent = sorted(found.key_averages(), key=lambda each: -each.self_device_time_total)[:14]
    return "\n".join(
        f"{each.self_device_time_total / 3e3:8.3f} ms {each.count // 3:5d} {each.key[:110]}" for each in spent
    )


def paths(device: torch.device, out: Path, tiny: bool, seconds: float) -> None:
    """Check and time every fast path."""
    deadline, results = time.monotonic() + seconds, {"machine": machine(device), "checks": [], "times": []}

    def keep(kind: str, found: dict[str, Any]) -> None:
        results[kind].append(found)
        write_json(out / "paths.json", results)
        short = {key: round(value, 6) if isinstance(value, float) else value for key, value in found.items()}
        print(json.dumps(short), flush=True)

    for found in time_all(device, tiny, deadline):
        keep("times", found)
    for found in check_all(device):
        keep("checks", found)
    keep("checks", {"path": "optimizer's state moved to the CPU and back", "good": check_moves(device)})
    keep("checks", {"path": "waits in a single step", "found": check_syncs(device, tiny)})
    wanted = {"single", "resnet8"} if tiny else {"single", "resnet8", "multi", "siren"}
    for name, variant, build in timed_cases(tiny):
        if not variant and name in wanted and time.monotonic() < deadline + 30:
            with setting(graphs, RECORDS=False):
                print(f"{name}, eager:\n{profile(name, build(device), device, out)}", flush=True)


# CIFAR-10


def cifar10(device: torch.device, out: Path, tiny: bool, seconds: float, data_dir: Path) -> None:
    """Train 132 ResNet8 of 22 lengths and their NetSpace for the time there is; rate and orders are chosen on validation instances."""
    end = time.monotonic() + seconds
    folders = Folders(lists_dir=out / "input_lists", runs_dir=out, data_dir=data_dir)
    nets = create_nets_dataset_single.PRESETS["photos" if tiny else "cifar10"]
    lengths = (5, 9) if tiny else tuple(round(30 * (5000 / 30) ** (i / 21)) for i in range(22))
    counts = {"num_train": 6, "num_val": 2, "num_test": 4} if tiny else {}
    create_nets_dataset_single.main(
        replace(
            nets,
            lengths=lengths,
            lengths_in="steps",
            learning_rate=2e-3,
            classifier_start="zero",
            folders=folders,
            **counts,
        )
    )
    print(f"{seconds - (end - time.monotonic()):.0f} s: instances are made", flush=True)
    torch.backends.cudnn.benchmark = True
    base = train_single_arch.PRESETS["photos" if tiny else "cifar10"]
    start = replace(base.start, affine_start="instance", affine_quantile=0.8)
    optim = replace(base.optim, schedule="one-cycle", clip_norm=1.0)
    base = replace(base, start=start, folders=folders)

    def train(rate: float, reorder: bool, steps: int, runs_dir: Path) -> float:
        began = time.monotonic()
        each = replace(
            base,
            optim=replace(optim, num_steps=steps, learning_rate=rate, validate_every=max(steps // 8, 1)),
            views=replace(base.views, prep_noise=0.3, reorder_channels=reorder),
            folders=replace(folders, runs_dir=runs_dir),  # the instances are read through their lists, which name them
        )
        train_single_arch.main(each)
        return (time.monotonic() - began) / steps

    steps, trials = (4, [(1e-3, True)]) if tiny else (1000, [(1e-3, True), (3e-3, True), (1e-3, False)])
    errors = {}
    for trial in trials:
        runs_dir = out / "trials" / f"{trial[0]:g}-{trial[1]}"
        per_step = train(*trial, steps, runs_dir)
        errors[trial] = torch.load(next(runs_dir.rglob("best.pt")), weights_only=True)["best_score"]
        print(f"{trial}: {errors[trial]:.2f} points after {steps} steps, {1e3 * per_step:.2f} ms each", flush=True)
    chosen = min(errors, key=errors.__getitem__)
    left = end - time.monotonic() - (2 if tiny else 25)  # the rest evaluates
    steps = 4 if tiny else max(int(left / per_step), 1000)
    per_step = train(*chosen, steps, out)
    print(
        f"{seconds - (end - time.monotonic()):.0f} s: {steps} steps, {chosen}, {1e3 * per_step:.2f} ms each", flush=True
    )
    for script in (eval_single, interpolate_single_arch, visualize_prep):
        script.main(replace(script.PRESETS["photos" if tiny else "cifar10"], folders=folders))
    facts = {"machine": machine(device), "lengths": lengths, "chosen": chosen, "steps": steps}
    facts["validation_errors"] = [[*trial, error] for trial, error in errors.items()]
    write_json(out / "cifar10.json", {**facts, "seconds_a_step": per_step})
    print(f"{seconds - (end - time.monotonic()):.0f} s: done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["paths", "cifar10"])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the results")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder with cifar10.npz")
    parser.add_argument("--seconds", type=float, default=300, help="time for it all")
    parser.add_argument(
        "--without", nargs="*", default=[], choices=["products", "channels", "tuning"], help="fast paths"
    )
    parser.add_argument("--tiny", action="store_true", help="in miniature, as on a CPU")
    arguments = parser.parse_args()
    prepare_process()
    if "products" in arguments.without:
        prep_autoencoder.GPU_PRODUCTS = False
    if "channels" in arguments.without:
        layers.GPU_CHANNELS = 1
    torch.backends.cudnn.benchmark = "tuning" not in arguments.without
    device = pick_device()
    tiny = arguments.tiny or device.type != "cuda"
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(machine(device), flush=True)
    if arguments.part == "paths":
        paths(device, arguments.out, tiny, arguments.seconds)
    else:
        cifar10(device, arguments.out, tiny, arguments.seconds, arguments.data_dir)


if __name__ == "__main__":
    main()
