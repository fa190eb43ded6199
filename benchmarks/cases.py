"""What benchmarks/speed.py times: each case builds one step, the plain way (benchmarks/plain.py) and the project's."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import plain
from models.architecture_pool import ArchitecturePool
from models.instances import ArchitectureOnImages
from models.prep import pack, unpack
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.registry import ARCHITECTURES
from models.siren import SirenNets
from training.ensembles import Ensemble, SirenEnsemble
from training.losses import (
    boundary_pairs,
    class_id_losses,
    distillation_loss,
    interpolate_boundaries,
    sdf_loss,
    teacher_losses,
)
from training.runtime import mixed_precision

Step = Callable[[], object]
PHOTOS, CIFAR10 = (1, 8, 8), (3, 32, 32)
PLAIN_AT_MOST = 8  # instances one by one cost the same each; so many are timed


@dataclass(frozen=True)
class Case:
    """`build(plainly, device)` gives the step; it handles `items` things (`plain_items` the plain way), and times are per item."""

    title: str
    build: Callable[[bool, torch.device], Step]
    items: int = 1
    plain_items: int = 1
    item: str = "step"


def optimize(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Step:
    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def adam(net_space: PrepAutoencoder, plainly: bool) -> torch.optim.Adam:
    return torch.optim.Adam(net_space.parameters(), 1e-4, **({} if plainly else {"fused": True}))


def single_step(
    plainly: bool,
    device: torch.device,
    sizes: Sizes = Sizes((8, 10_000)),  # noqa: B008 (frozen)
    image_shape: tuple[int, int, int] = CIFAR10,
    m: int = 8,
    batch: int = 128,
) -> Step:
    """A step of train_single_arch.py: M ResNet8 on B images."""
    nets = ArchitectureOnImages(ARCHITECTURES["resnet8"], image_shape, 10)
    rows = nets.fuse(nets.start(list(range(m)))).to(device)
    net_space, x = PrepAutoencoder(sizes).to(device), torch.randn(batch, *image_shape, device=device)

    def plain_loss() -> Tensor:
        return plain.single_loss(net_space, nets, rows, pack(rows, sizes.prep_shape), x, 4.0)

    def loss() -> Tensor:
        with mixed_precision(device, None):
            with torch.no_grad():
                target = nets.run(rows, x)
            predicted = nets.run(unpack(net_space(pack(rows, sizes.prep_shape)), nets.num_parameters), x)
        return distillation_loss(predicted, target, 4.0)

    return optimize(adam(net_space, plainly), plain_loss if plainly else loss)


def multi_step(plainly: bool, device: torch.device, batch: int = 128) -> Step:
    """A step of train_multi_arch.py on LeNetLike and ResNet32, with the two interpolated instances between them."""
    pool = ArchitecturePool(CIFAR10, 10, (88, 10_000))
    class_ids = [0, len(pool) - 1]
    preps = torch.cat([pack(pool[i].fuse(pool[i].start([0])), pool.prep_shape) for i in class_ids]).to(device)
    teacher = ArchitectureOnImages(ARCHITECTURES["resnet56"], CIFAR10, 10)
    teacher_row = teacher.fuse(teacher.start([0])).to(device)
    net_space = PrepAutoencoder(Sizes(pool.prep_shape), len(pool)).to(device)
    x, labels = torch.randn(batch, *CIFAR10, device=device), torch.randint(10, (batch,), device=device)

    def plain_loss() -> Tensor:
        return plain.multi_loss(net_space, pool, (teacher, teacher_row[0]), preps, class_ids, x, labels, 4.0, 0.9)

    def loss() -> Tensor:
        with mixed_precision(device, None):
            with torch.no_grad():
                teacher_logits = teacher.run(teacher_row, x)[0]
            embeddings = net_space.encoder(preps)
            between, between_ids = interpolate_boundaries(embeddings, boundary_pairs(class_ids, len(pool)), len(pool))
            embeddings, wished = torch.cat([embeddings, between]), class_ids + between_ids
            class_logits = net_space.classifier(embeddings)
            class_logits.argmax(1).tolist()  # what a step reads back; untrained, it would choose any architecture
            predicted = pool.run(net_space.decoder(embeddings), wished, x)
        return (
            teacher_losses(predicted, teacher_logits, labels, 4.0, 0.9).sum()
            + class_id_losses(class_logits, wished).sum()
        )

    return optimize(adam(net_space, plainly), plain_loss if plainly else loss)


def sdf_step(plainly: bool, device: torch.device, points: int) -> Step:
    """A step of train_mlps.py: 4 SIRENs of the paper's size."""
    nets, prep_shape = SirenNets(), (8, 10_000)
    rows = nets.layout.flatten(nets.start(list(range(4)))).to(device)
    net_space, x = PrepAutoencoder(Sizes(prep_shape)).to(device), torch.rand(4, points, 3, device=device) * 2 - 1
    with torch.no_grad():
        target = nets.run(rows, x)  # at all samples, before training

    def plain_loss() -> Tensor:
        return plain.sdf_loss(net_space, nets, rows, pack(rows, prep_shape), x)

    def loss() -> Tensor:
        return sdf_loss(nets.run(unpack(net_space(pack(rows, prep_shape)), nets.num_parameters), x), target)

    return optimize(adam(net_space, plainly), plain_loss if plainly else loss)


def instance_training(
    plainly: bool, device: torch.device, name: str, image_shape: tuple[int, int, int], m: int, batch: int = 128
) -> Step:
    """A step of M instances in training, each on its own images: side by side, or one by one."""
    nets = ArchitectureOnImages(ARCHITECTURES[name], image_shape, 10)
    m = min(m, PLAIN_AT_MOST) if plainly else m
    state = {key: value.to(device) for key, value in nets.start(list(range(m))).items()}
    x, y = torch.randn(m, batch, *image_shape, device=device), torch.randint(10, (m, batch), device=device)
    if not plainly:
        return partial(Ensemble(nets, state, lambda rows: torch.optim.Adam(rows, 1e-3, fused=True)).step, x, y)
    states = [{key: value[i] for key, value in state.items()} for i in range(m)]
    one_by_one = plain.OneByOne(partial(plain.run_net, name), nets.trained_layout, states, 1e-3)
    return partial(one_by_one.step, x, y, F.cross_entropy)


def siren_fitting(plainly: bool, device: torch.device, m: int, points: int) -> Step:
    """A step of M SIRENs of the paper's size, each at its own points."""
    nets = SirenNets()
    state = {key: value.to(device) for key, value in nets.start(list(range(m))).items()}
    x, y = torch.rand(m, points, 3, device=device) * 2 - 1, torch.rand(m, points, device=device)
    if not plainly:
        return partial(SirenEnsemble(nets, state, lambda rows: torch.optim.Adam(rows, 1e-4, fused=True)).step, x, y)
    states = [{key: value[i] for key, value in state.items()} for i in range(m)]
    return partial(plain.OneByOne(plain.run_siren, nets.layout, states, 1e-4).step, x, y, F.mse_loss)


def evaluation(plainly: bool, device: torch.device, m: int, image_shape: tuple[int, int, int], images: int) -> Step:
    """Accuracies of M ResNet8. The plain way takes batches of 128 images, as in training."""
    from data.images import make_images
    from evaluation.accuracy import accuracy

    nets = ArchitectureOnImages(ARCHITECTURES["resnet8"], image_shape, 10)
    rows = nets.fuse(nets.start(list(range(m)))).to(device)
    channels, side, _ = image_shape
    pixels = torch.randint(256, (images, side, side, channels), dtype=torch.uint8).numpy()
    split = make_images(pixels, torch.randint(10, (images,)).numpy(), (0.5,) * channels, (0.25,) * channels, 1)
    split = split.to(device)
    if not plainly:
        return partial(accuracy, nets, rows, split)
    rows = rows[:PLAIN_AT_MOST]
    return lambda: plain.accuracies(nets, rows, split.plain(0, images), split.labels, 128)


def decoding(plainly: bool, device: torch.device) -> Step:
    """One embedding to its PRep at the paper's size, without gradient."""
    decoder, embedding = PrepAutoencoder(Sizes((8, 10_000))).decoder.to(device), torch.randn(1, 4096, device=device)
    return torch.no_grad()(partial(plain.decode, decoder, embedding) if plainly else partial(decoder, embedding))


def small_step(plainly: bool, device: torch.device, m: int = 8, batch: int = 64, width: int = 1280) -> Step:
    """A step at sizes from which M, B and H*W are varied."""
    sizes = Sizes((8, width), emb_size=1024, grid=32, row_length=128, row_channels=64)
    return single_step(plainly, device, sizes, PHOTOS, m, batch)


def growth_cases() -> dict[str, dict[int, Case]]:
    """By what grows; M, B, or the numbers in a PRep, H*W."""
    varied = {
        "meta-batch M": [(m, {"m": m}) for m in (1, 2, 4, 8, 16, 32)],
        "image batch B": [(b, {"batch": b}) for b in (16, 32, 64, 128, 256, 512)],
        "PRep size H·W": [(8 * w, {"width": w}) for w in (640, 1280, 2560, 5120, 10_240)],
    }
    return {
        name: {size: Case(f"{name} {size}", partial(small_step, **change)) for size, change in sizes}
        for name, sizes in varied.items()
    }


def cases(on_gpu: bool) -> dict[str, Case]:
    """Paper sizes where a GPU is; on the CPU instances are those of `photos`, and SIRENs see fewer points."""
    image_shape, images = (CIFAR10, 10_000) if on_gpu else (PHOTOS, 2000)
    points, fitted = (50_000, 16) if on_gpu else (5000, 4)
    size, p = "x".join(map(str, image_shape)), f"{points:,}"
    found = {
        "single": Case("NetSpace, single: 8 ResNet8, 128 images 3x32x32, PRep 8x10,000", single_step),
        "photos": Case(
            "NetSpace, single, photos: 8 ResNet8, 64 images 1x8x8, PRep 32x160",
            partial(
                single_step,
                sizes=Sizes((32, 160), emb_size=1024, grid=32, row_length=256, row_channels=32),
                image_shape=PHOTOS,
                batch=64,
            ),
        ),
        "multi": Case(
            "NetSpace, multi: LeNetLike, ResNet32 and 2 between, 128 images 3x32x32, PRep 88x10,000", multi_step
        ),
        "sdf": Case(f"NetSpace, SDF: 4 SIRENs 256 wide, {p} points, PRep 8x10,000", partial(sdf_step, points=points)),
    }
    sides = [(name, m) for name in ARCHITECTURES for m in (1, 4, 16, 64, 256) if (name, m) != ("resnet56", 256)]
    for name, m in [*sides, ("resnet8", 132)]:
        found[f"{name}-{m}"] = Case(
            f"training {m} {name}, batches of 128 images {size}",
            partial(instance_training, name=name, image_shape=image_shape, m=m),
            m,
            min(m, PLAIN_AT_MOST),
            "net-step",
        )
    found["siren"] = Case(
        f"fitting {fitted} SIRENs 256 wide, 20,000 points each",
        partial(siren_fitting, m=fitted, points=20_000),
        fitted,
        fitted,
        "net-step",
    )
    found["evaluation"] = Case(
        f"accuracy of 132 ResNet8 on {images:,} images {size}",
        partial(evaluation, m=132, image_shape=image_shape, images=images),
        132,
        PLAIN_AT_MOST,
        "net",
    )
    found["decoding"] = Case("decoding one embedding, PRep 8x10,000", decoding)
    return found
