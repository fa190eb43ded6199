"""What the fast paths buy, as ratios measured in one run: python -m benchmarks.speed [--paper]

Each row times a plain way and the project's way in turn, on the same inputs, and gives the median ratio and its range.
--paper adds the CIFAR-10 sizes of the paper (about 1 minute on 2 CPU cores)."""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from models.encoder import Encoder
from models.instances import ArchitectureOnImages, run_instances
from models.netspace import NetSpace, Sizes
from models.prep import pack, unpack
from models.registry import ARCHITECTURES
from training.losses import distillation_loss
from training.runtime import pick_device, prepare_process


def seconds(call: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(
    name: str, plain: Callable[[], object], ours: Callable[[], object], device: torch.device, repeats: int
) -> None:
    for call in (plain, ours):
        call()
    pairs = [(seconds(plain, device), seconds(ours, device)) for _ in range(repeats)]
    ratios = [a / b for a, b in pairs]
    times = [1e3 * statistics.median(column) for column in zip(*pairs)]
    print(
        f"{name:<58} plain {times[0]:9.1f} ms   ours {times[1]:9.1f} ms   {statistics.median(ratios):5.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def instances_case(
    m: int, batch: int, image_shape: tuple[int, int, int], device: torch.device
) -> tuple[Callable, Callable]:
    """A training step's forward and backward pass of m instances: one after the other, and as the project runs them."""
    nets = ArchitectureOnImages(ARCHITECTURES["resnet8"], image_shape, 10)
    state = {name: value.to(device) for name, value in nets.start(list(range(m))).items() if value.is_floating_point()}
    rows = nets.trained_layout.flatten(state).requires_grad_()
    running = {name: value for name, value in state.items() if "running" in name}
    images, labels = torch.randn(m, batch, *image_shape, device=device), torch.randint(10, (m, batch), device=device)

    def step(fold: bool | None) -> None:
        logits = run_instances(nets.trained.train(), {**nets.trained_layout.unflatten(rows), **running}, images, fold)
        F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()

    return lambda: step(False), lambda: step(None)


def encoder_case(emb_size: int, prep_shape: tuple[int, int], m: int, device: torch.device) -> tuple[Callable, Callable]:
    """The encoder's row features, forward and backward, as drawn in the paper and by windows."""
    encoder, preps = Encoder(emb_size).to(device), torch.randn(m, 1, *prep_shape, device=device)
    return (
        lambda: encoder.row_features_plainly(preps).sum().backward(),
        lambda: encoder.row_features_by_windows(preps).sum().backward(),
    )


def step_case(m: int, batch: int, device: torch.device) -> tuple[Callable, Callable]:
    """NetSpace's training step at the paper's CIFAR-10 sizes: plain instances, encoder and memory layout, and ours."""
    nets = ArchitectureOnImages(ARCHITECTURES["resnet8"], (3, 32, 32), 10)
    rows = nets.fuse(nets.start(list(range(m)))).to(device)
    net_space, images = NetSpace(Sizes((8, 10_000))).to(device), torch.randn(batch, 3, 32, 32, device=device)
    preps, encoder = pack(rows, (8, 10_000)), net_space.encoder

    def step(run: Callable[[torch.Tensor], torch.Tensor], encode: Callable[[torch.Tensor], torch.Tensor]) -> None:
        with torch.no_grad():
            target = run(rows)
        distillation_loss(run(unpack(net_space.decoder(encode(preps)), nets.num_parameters)), target, 4.0).backward()

    def plainly(x: torch.Tensor) -> torch.Tensor:
        return encoder.conv4(encoder.conv3(encoder.row_features_plainly(x))).amax(dim=2).flatten(1)

    def one_by_one(rows: torch.Tensor) -> torch.Tensor:
        return run_instances(nets.fused, nets.layout.unflatten(rows), images, fold=False)

    return lambda: step(one_by_one, plainly), lambda: step(lambda rows: nets.run(rows, images), encoder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", help="the paper's CIFAR-10 sizes too")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    prepare_process()
    device = pick_device()
    print(
        f"torch {torch.__version__} on {torch.cuda.get_device_name() if device.type == 'cuda' else f'{torch.get_num_threads()} CPU threads'}"
    )
    compare(
        "132 ResNet8 on 64 patches of 8x8: one by one",
        *instances_case(132, 64, (1, 8, 8), device),
        device,
        options.repeats,
    )
    compare(
        "8 ResNet8 on 128 patches of 8x8: one by one",
        *instances_case(8, 128, (1, 8, 8), device),
        device,
        options.repeats,
    )
    for prep_shape in ((8, 640), (32, 160)):
        name = f"row features, 8 PReps {prep_shape[0]}x{prep_shape[1]}, E 1024"
        compare(name, *encoder_case(1024, prep_shape, 8, device), device, options.repeats)
    if options.paper:
        compare(
            "8 ResNet8 on 128 images of 32x32: one by one",
            *instances_case(8, 128, (3, 32, 32), device),
            device,
            options.repeats,
        )
        compare(
            "row features, 8 PReps 8x10,000, E 4096",
            *encoder_case(4096, (8, 10_000), 8, device),
            device,
            options.repeats,
        )
        compare("NetSpace's training step at CIFAR-10 sizes", *step_case(8, 128, device), device, options.repeats)


if __name__ == "__main__":
    main()
