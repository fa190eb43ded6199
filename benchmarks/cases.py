"""What benchmarks/speed.py times: each case builds one step, the plain way (benchmarks/plain.py) and the project's."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import plain
from data.images import Images, make_images
from evaluation.metrics import accuracy
from models.instances import TargetNet, TargetNets
from models.matching import Moments, sum_activations
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.stitching import StitchedNets, Transform
from models.target_nets import architectures_by_class_id, get_architecture, siren
from models.token_autoencoder import TokenAutoencoder, TokenSizes
from training.constants import TokenViews
from training.ensembles import Ensemble, squared_errors
from training.graphs import COMPILED_PREP, Graphed, Graphs, read_later
from training.losses import (
    boundary_pairs,
    class_id_losses,
    contrastive_losses,
    distillation_losses,
    interpolate_boundaries,
    reconstruction_losses,
    sdf_losses,
    teacher_losses,
)
from training.runtime import Precision, mixed_precision
from training.stitches import Stitches, StitchTraining, Views
from training.views import draw_windows

Step = Callable[[], object]
PHOTOS, CIFAR10 = (1, 8, 8), (3, 32, 32)
PAPER = ("lenetlike", "vanilla_cnn", "resnet8", "resnet32", "resnet56")
PLAIN_AT_MOST = 8  # instances one by one cost the same each; so many are timed


@dataclass(frozen=True)
class Case:
    """A step to be timed: `build(plainly, device)` returns it.

    It computes `items` things, the plain way `plain_items`, and times are for one.
    """

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


def adam(model: PrepAutoencoder, plainly: bool) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), 1e-4, **({} if plainly else {"fused": True}))


def target_net(name: str, image_shape: tuple[int, int, int]) -> TargetNet:
    return TargetNet(get_architecture(name), image_shape, 10)


def single_step(
    plainly: bool,
    device: torch.device,
    sizes: Sizes = Sizes((8, 10_000)),  # noqa: B008 (frozen)
    image_shape: tuple[int, int, int] = CIFAR10,
    m: int = 8,
    batch: int = 128,
    precision: Precision | None = None,
) -> Step:
    """Return a step of train_single_arch.py: M ResNet8 on B images."""
    net = target_net("resnet8", image_shape)
    rows = net.fuse(net.start(range(m))).to(device)
    model, x = PrepAutoencoder(sizes).to(device), torch.randn(batch, *image_shape, device=device)

    def plain_loss() -> Tensor:
        return plain.single_loss(model, net, rows, x, 4.0)

    def loss(rows: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = net.run(rows, x)
        return distillation_losses(net.run(model(rows), x), target, 4.0).mean()

    graphed = Graphed(loss, model, mixed_precision(device, precision), compiled=model.width >= COMPILED_PREP)
    return optimize(adam(model, plainly), plain_loss if plainly else partial(graphed, rows, x))


def multi_step(plainly: bool, device: torch.device, batch: int = 128) -> Step:
    """Return a step of train_multi_arch.py on LeNetLike and ResNet32, with two instances between them."""
    nets, prep_shape = TargetNets.on_images(architectures_by_class_id(), CIFAR10, 10), (88, 10_000)
    class_ids = [0, len(nets) - 1]
    width = max(nets.num_parameters.values())
    rows = [nets[i].fuse(nets[i].start([0]))[0] for i in class_ids]
    rows = torch.stack([F.pad(row, (0, width - len(row))) for row in rows]).to(device)
    teacher = target_net("resnet56", CIFAR10)
    teacher_row = teacher.fuse(teacher.start([0])).to(device)
    model = PrepAutoencoder(Sizes(prep_shape), len(nets)).to(device)
    x, labels = torch.randn(batch, *CIFAR10, device=device), torch.randint(10, (batch,), device=device)

    def plain_loss() -> Tensor:
        return plain.multi_loss(model, nets, (teacher, teacher_row[0]), rows, class_ids, x, labels, 4.0, 0.9)

    mixed = mixed_precision(device, None)
    graphs = Graphs(model, nets, mixed)
    graphed_teacher = Graphed(lambda x: teacher.run(teacher_row, x)[0], None, mixed)

    def loss() -> Tensor:
        with torch.no_grad():
            teacher_logits = graphed_teacher(x)
        embeddings = graphs.encode(rows)
        between, between_ids = interpolate_boundaries(embeddings, boundary_pairs(class_ids, len(nets)), len(nets))
        embeddings, desired = torch.cat([embeddings, between]), class_ids + between_ids
        class_logits = graphs.classify(embeddings)
        read = read_later(class_logits.argmax(1))
        decoded = graphs.decode(embeddings)
        read()  # what a step reads back; untrained, it would choose any architecture
        predicted = graphs.run(decoded, desired, x)
        kd = teacher_losses(predicted, teacher_logits, labels, 4.0, 0.9).sum()
        return kd + class_id_losses(class_logits, desired).sum()

    return optimize(adam(model, plainly), plain_loss if plainly else loss)


def sdf_step(plainly: bool, device: torch.device, points: int) -> Step:
    """Return a step of train_mlps.py: 4 SIRENs of the paper's size."""
    net = TargetNet(siren())
    rows = net.fuse(net.start(range(4))).to(device)
    model, x = PrepAutoencoder(Sizes((8, 10_000))).to(device), torch.rand(4, points, 3, device=device) * 2 - 1
    with torch.no_grad():
        target = net.run(rows, x)  # at all samples, before training

    def plain_loss() -> Tensor:
        return plain.sdf_loss(model, net, rows, x)

    def loss(rows: Tensor, x: Tensor, target: Tensor) -> Tensor:
        return sdf_losses(net.run(model(rows), x), target).mean()

    graphed = Graphed(loss, model, mixed_precision(device, None), compiled=model.width >= COMPILED_PREP)
    return optimize(adam(model, plainly), plain_loss if plainly else partial(graphed, rows, x, target))


def instance_training(
    plainly: bool,
    device: torch.device,
    name: str,
    image_shape: tuple[int, int, int],
    m: int,
    batch: int = 128,
    precision: Precision | None = None,
) -> Step:
    """Return a step of M instances in training, each on its own images: side by side, or one by one."""
    net = target_net(name, image_shape)
    m = min(m, PLAIN_AT_MOST) if plainly else m
    state = {key: value.to(device) for key, value in net.start(range(m)).items()}
    x, y = torch.randn(m, batch, *image_shape, device=device), torch.randint(10, (m, batch), device=device)
    if not plainly:
        adam, mixed = partial(torch.optim.Adam, lr=1e-3, fused=True), mixed_precision(device, precision)
        return partial(Ensemble(net, state, adam, precision=mixed).step, x, y)
    states = [{key: value[i] for key, value in state.items()} for i in range(m)]
    return partial(plain.OneByOne(name, net.trained_layout, states, 1e-3).step, x, y, F.cross_entropy)


def siren_fitting(plainly: bool, device: torch.device, m: int, points: int, precision: Precision = "tf32") -> Step:
    """Return a step of M SIRENs of the paper's size, each at its own points."""
    net = TargetNet(siren())
    state = {key: value.to(device) for key, value in net.start(range(m)).items()}
    x, y = torch.rand(m, points, 3, device=device) * 2 - 1, torch.rand(m, points, device=device)
    if not plainly:
        adam, mixed = partial(torch.optim.Adam, lr=1e-4, fused=True), mixed_precision(device, precision)
        return partial(Ensemble(net, state, adam, squared_errors, mixed, compiled=True).step, x, y)
    states = [{key: value[i] for key, value in state.items()} for i in range(m)]
    return partial(plain.OneByOne("siren", net.layout, states, 1e-4).step, x, y, F.mse_loss)


def evaluation(plainly: bool, device: torch.device, m: int, image_shape: tuple[int, int, int], images: int) -> Step:
    """Return the accuracies of M ResNet8. The plain way takes batches of 128 images, as in training."""
    net = target_net("resnet8", image_shape)
    rows = net.fuse(net.start(range(m))).to(device)
    channels, side, _ = image_shape
    pixels = torch.randint(256, (images, side, side, channels), dtype=torch.uint8).numpy()
    split = make_images(pixels, torch.randint(10, (images,)).numpy(), (0.5,) * channels, (0.25,) * channels, 1)
    split = split.to(device)
    if not plainly:
        return partial(accuracy, net, rows, split)
    rows = rows[:PLAIN_AT_MOST]
    return lambda: plain.accuracies(net, rows, split.plain(0, images), split.labels, 128)


def decoding(plainly: bool, device: torch.device) -> Step:
    """Return the decoding of one embedding at the paper's size, without gradient."""
    decoder, embedding = PrepAutoencoder(Sizes((8, 10_000))).decoder.to(device), torch.randn(1, 4096, device=device)
    return torch.no_grad()(partial(plain.decode, decoder, embedding) if plainly else partial(decoder, embedding))


def small_step(plainly: bool, device: torch.device, m: int = 8, batch: int = 64, width: int = 1280) -> Step:
    """Return a step at sizes from which M, B and H*W are varied."""
    sizes = Sizes((8, width), emb_size=1024, grid=32, row_length=128, row_channels=64)
    return single_step(plainly, device, sizes, PHOTOS, m, batch)


SANE = TokenSizes(37, 36, 128, 2, 4, 48, 8, (256, 16, 32))


def sane_step(
    plainly: bool, device: torch.device, windows: int = 16, views: bool = True, model_part: bool = True
) -> Step:
    """Return a step of train_sane.py on ResNet8, without behaviour: the views of so many windows, and the model on them."""
    net = target_net("resnet8", PHOTOS)
    rows = net.fuse(net.start(range(windows)))
    model = TokenAutoencoder(SANE, net.layout, net.hidden_channels())
    rows = model.fit(rows, rows[0]).to(device)
    model.to(device)
    transformer, chosen, rng, step = model.transformer, TokenViews(), np.random.default_rng(0), count()

    def draw() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if plainly:
            starts = rng.integers(model.num_tokens - SANE.window + 1, size=windows).tolist()
            return plain.sane_views(model, rows, starts, chosen, rng)
        seen = draw_windows(model, rows, chosen, 0, next(step))
        return seen.shown, seen.target, seen.mask, seen.positions

    fixed = draw()

    def loss() -> Tensor:
        shown, target, mask, positions = draw() if views else fixed
        latents = transformer.encode(shown, positions)
        structure = reconstruction_losses(transformer.decode(latents, positions), target, mask).mean()
        return 0.95 * structure + 0.05 * contrastive_losses(transformer.project(latents)).mean()

    fused = {} if plainly else {"fused": True}
    return optimize(torch.optim.Adam(model.parameters(), 1e-3, **fused), loss) if model_part else draw


STITCHED = StitchTraining(num_epochs=10, init="identity", target="end")  # as many epochs as on photos


def stitching(plainly: bool, device: torch.device, m: int, plain_m: int) -> Step:
    """Return the training of M transforms between ResNet8 and ResNet8 at each point, for 10 epochs of 512 images."""
    net, images = target_net("resnet8", PHOTOS), few_images(512).to(device)
    rows = net.fuse(net.start(range(m + 1))).to(device)
    pairs = [(i, i + 1) for i in range(plain_m if plainly else m)]
    train = plain.train_transforms if plainly else trained_transforms
    return lambda: [train(net, rows, pairs, point, images, STITCHED) for point in net.points]


def trained_transforms(
    net: TargetNet, rows: Tensor, pairs: list[tuple[int, int]], point: str, images: Images, training: StitchTraining
) -> Transform:
    """Return the transforms of pairs, trained side by side as stitch_nets.py does."""
    nets, m, c = StitchedNets(net, rows, net, rows, (point, point), pairs), len(pairs), net.point_shape(point)[0]
    none = torch.zeros(m, c + 1, c + 1, device=rows.device, dtype=rows.dtype)  # an identity needs no sums
    stitches = Stitches(nets, training, Moments(none, none, none), [(0, i) for i in range(m)])
    views = Views(nets, training, images, (0,))
    steps = training.num_epochs * views.per_pass
    for step in range(steps):
        stitches.set_learning_rate(training.rate(step, steps))
        stitches.step(*views.batch(step))
    return stitches.transform()


def few_images(number: int) -> Images:
    """Return random images like those of photos: mirrored, not shifted."""
    pixels = np.random.default_rng(0).integers(256, size=(number, 8, 8, 1), dtype=np.uint8)
    return make_images(pixels, np.random.default_rng(1).integers(10, size=number), (0.5,), (0.25,), 0)


def least_squares(plainly: bool, device: torch.device, m: int = 16) -> Step:
    """Return the least-squares transforms of all pairs of M ResNet8 at all points, on 2,000 images."""
    net, images = target_net("resnet8", PHOTOS), few_images(2000).to(device)
    rows = net.fuse(net.start(range(m))).to(device)
    pairs = [(i, j) for i in range(m) for j in range(m)]
    if plainly:
        return partial(plain.least_squares, net, rows, pairs[:PLAIN_AT_MOST], net.points, images.plain(0, 2000))
    return partial(fitted_transforms, net, rows, pairs, [images.plain(i, i + 500) for i in range(0, 2000, 500)])


def fitted_transforms(
    net: TargetNet, rows: Tensor, pairs: list[tuple[int, int]], batches: list[Tensor]
) -> list[Transform]:
    """Return the transforms of pairs at all points, fitted from one pass as stitch_nets.py does."""
    sums = sum_activations(net, rows, net, rows, [(point, point) for point in net.points], batches)
    fronts, ends = zip(*pairs)
    return [each.of(fronts, ends).least_squares() for each in sums.values()]


def growth_cases() -> dict[str, dict[int, Case]]:
    """Return cases by what grows, M, B, or the size H*W of a PRep, and by how much."""
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
    """Return cases by name: the paper's sizes on a GPU; on the CPU instances of `photos` and fewer points."""
    image_shape, images = (CIFAR10, 10_000) if on_gpu else (PHOTOS, 2000)
    points, fitted = (50_000, 64) if on_gpu else (5000, 4)
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
    if not on_gpu:
        title = f"{found['single'].title}, ours in bfloat16"
        found["single-bfloat16"] = Case(title, partial(single_step, precision="bfloat16"))
    sides = [(name, m) for name in PAPER for m in (1, 4, 16, 64, 256) if (name, m) != ("resnet56", 256)]
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
    size = "16 windows of 48 tokens, two views"
    found["sane"] = Case(f"SANE: {size}, one of them permuted", sane_step)
    found["sane-views"] = Case(f"SANE's views alone: {size}", partial(sane_step, model_part=False))
    found["sane-model"] = Case(f"SANE's model alone: {size}", partial(sane_step, views=False))
    m, alone = 16, 2
    title = f"stitching {m} pairs of ResNet8 at all points: 10 epochs of 512 images 1x8x8"
    found["stitching"] = Case(title, partial(stitching, m=m, plain_m=alone), 5 * m, 5 * alone, "transform")
    title = "least squares of 16 x 16 pairs of ResNet8 at all points, 2,000 images 1x8x8"
    found["least-squares"] = Case(title, least_squares, 256, PLAIN_AT_MOST, "pair")
    found["decoding"] = Case("decoding one embedding, PRep 8x10,000", decoding)
    return found
