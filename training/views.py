"""What an autoencoder starts from, and how targets are shown to it in training: as PReps, or as windows of tokens."""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data.streams import stream, torch_seed
from models.errors import InputError
from models.instances import TargetNet
from models.linear_encoders import LinearEncoder, ProbeEncoder
from models.prep import pack
from models.prep_autoencoder import PrepAutoencoder
from models.rows import Channels, Layout, num_channels, reordering, reorderings
from models.siren_rows import of_moved_points, with_flipped_units
from models.token_autoencoder import TokenAutoencoder
from training.constants import SirenViews, Start, TokenStart, TokenViews, Views

ORDERS_AT_ONCE = 16  # steps whose orders of channels a GPU draws at once


def start_at_instances(
    model: PrepAutoencoder, start: Start, rows: Tensor, scores: Tensor, samples: Tensor | None = None
) -> None:
    """Start a model, on the CPU, as `start` says, from training instances (N, P) and their scores (N,).

    An encoder of probes takes these from SIRENs' `samples` (N, S, 4).

    Raise InputError if an affine head should start somewhere and there is none.
    """
    rows, head = rows.cpu(), model.decoder.scalelayer
    if isinstance(model.encoder, LinearEncoder):
        model.encoder.start_at(pack(rows, model.prep_shape))
    elif isinstance(model.encoder, ProbeEncoder):
        assert samples is not None
        model.encoder.start_at(pack(rows, model.prep_shape), probes(samples, model.sizes.num_probes))
    elif start.encoder_start == "scaled":
        model.encoder.start_at(rows.square().mean().sqrt().item())
    if start.affine_start == "paper":
        return
    if head is None:
        raise InputError(f"--affine-start {start.affine_start}: there is no affine head; add --affine-start paper")
    chosen = scores.argsort()[int(start.affine_quantile * (len(rows) - 1))].item()
    places = {"instance": rows[[chosen]], "mean": rows.mean(0, keepdim=True)}
    row = places.get(start.affine_start, torch.zeros_like(rows[[chosen]]))
    head.start_at(pack(row, model.prep_shape)[0, 0], start.affine_scale)
    if start.affine_start == "mean":
        head.rescale(pack(rows.std(0, correction=0)[None], model.prep_shape)[0, 0])


def probes(samples: Tensor, num: int) -> Tensor:
    """Return points (num, 3) on the CPU, drawn from the samples (N, S, 4) of all instances."""
    points = samples[..., :3].flatten(0, 1)
    return points[torch.from_numpy(stream("probes", num).integers(len(points), size=num))].cpu()


def start_tokens(model: TokenAutoencoder, start: TokenStart, rows: Tensor, strongest: int) -> Tensor:
    """Fit a model, on the CPU, to training instances (N, P) on any device, and start it as `start` says.

    The instance of the index `strongest` is the reference that all are aligned to, and where an affine head may start. Return the
    rows aligned, on the CPU.
    """
    rows = model.fit(rows.cpu(), rows[strongest].cpu())
    if start.linear_start == "pytorch":
        model.transformer.start_large()
    elif start.linear_start == "components":
        model.transformer.start_at(model.standardized(rows))
    if model.affine is not None and start.affine_start != "paper":
        tokens = model.standardized(rows[[strongest]])[0]
        model.affine.start_at(
            tokens if start.affine_start == "instance" else torch.zeros_like(tokens), start.affine_scale
        )
    return rows


def reorder(rows: Tensor, net: TargetNet, views: Views, seed: int, step: int) -> Tensor:
    """Return rows (M, P) with their hidden channels in the step's random order, if `views` asks for it."""
    if not views.reorder_channels:
        return rows
    if not rows.is_cuda:
        rng = stream("order of channels", seed, step)
        return rows[:, reordering(net.layout, net.hidden_channels(), rng)]
    block, i = divmod(step, ORDERS_AT_ONCE)
    return rows[:, orders_on(rows.device, net, seed, block)[i]]


@functools.lru_cache(maxsize=1)
def orders_on(device: torch.device, net: TargetNet, seed: int, block: int) -> Tensor:
    """Return the orders of channels for ORDERS_AT_ONCE steps, an index (ORDERS_AT_ONCE, P) int64.

    A GPU would wait for an index from the CPU, and one that it draws itself takes a hundred small kernels.
    """
    generator = torch.Generator(device).manual_seed(torch_seed("orders of channels", seed, block))
    return random_orders(net.layout, net.hidden_channels(), ORDERS_AT_ONCE, generator)


def add_noise(rows: Tensor, width: int, views: Views, seed: int, step: int) -> Tensor:
    """Return rows (M, P) with the step's noise, if `views` asks for it; padded to `width`, for PReps have noise everywhere.

    Noise keeps the encoder from recognizing instances by single weights. Its unit is the mean absolute value of a PRep.
    """
    if not views.prep_noise:
        return rows
    rows = F.pad(rows, (0, width - rows.shape[1]))
    rng = stream("noise", seed, step)
    if rows.is_cuda:  # which would wait for numbers from the CPU
        generator = torch.Generator(rows.device).manual_seed(int(rng.integers(2**31)))
        noise = torch.randn(rows.shape, generator=generator, device=rows.device)
    else:
        noise = torch.from_numpy(rng.standard_normal(rows.shape, dtype="float32"))
    return rows + views.prep_noise * rows.abs().mean(1, keepdim=True) * noise


@dataclass(frozen=True)
class Windows:
    """Two views of the same windows of instances: what the encoder sees, and what it should reconstruct."""

    shown: Tensor  # (2B, W, D), the first view of every window, then the second
    target: Tensor  # (2B, W, D), without noise
    mask: Tensor  # (2B, W, D) bool, true on parameters
    positions: Tensor  # (2B, W, 3)

    def part(self, chosen: slice) -> "Windows":
        """Return some of the B windows, in both views."""
        return Windows(
            *(
                each.unflatten(0, (2, -1))[:, chosen].flatten(0, 1)
                for each in (self.shown, self.target, self.mask, self.positions)
            )
        )


def draw_windows(model: TokenAutoencoder, rows: Tensor, views: TokenViews, seed: int, step: int) -> Windows:
    """Draw a window of each of the rows (B, P), aligned and of the same architecture, in two views (SANE Sec. 2).

    The first view is canonical (aligned), or permuted too; the second has its hidden channels in random order, as `views`
    asks. Everything is drawn on the device, and depends on seed and step alone.
    """
    generator = torch.Generator(rows.device).manual_seed(torch_seed("windows", seed, step))
    total, window = model.num_tokens, min(model.sizes.window, model.num_tokens)
    start = torch.randint(total - window + 1, (len(rows), 1), generator=generator, device=rows.device)
    both = [rows, rows]
    for i, permuted in enumerate(views.permuted):
        if permuted and model.hidden:
            both[i] = rows.gather(1, random_orders(model.layout, model.hidden, len(rows), generator))
    tokens = model.standardized(torch.cat(both))  # (2B, T, D)
    at = (start + torch.arange(window, device=rows.device)).repeat(2, 1)  # (2B, W)
    target = tokens.gather(1, at[..., None].expand(-1, -1, tokens.shape[2]))
    noise = torch.randn(target.shape, generator=generator, device=rows.device)
    shown = target * (1 + views.token_noise * noise)
    return Windows(shown, shown if views.target == "noised" else target, model.mask[at], model.positions[at])


def random_orders(layout: Layout, hidden: list[Channels], number: int, generator: torch.Generator) -> Tensor:
    """Draw orders of all hidden channels, on the generator's device, for each of so many rows: an index (number, P) int64."""
    sizes, device = [num_channels(layout, channels) for channels in hidden], generator.device
    orders = [torch.rand(number, size, generator=generator, device=device).argsort(1) for size in sizes]
    return reorderings(layout, hidden, orders)


def move_shapes(
    rows: Tensor, points: Tensor, net: TargetNet, views: SirenViews, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Return other SIRENs, rows (M, P), and the points (M, S, 3) at which their outputs are those of the given ones.

    Shapes are mirrored, stretched and shifted, as `views` says; hidden units may get the other sign.
    """
    m, rng = len(rows), stream("views of SIRENs", seed, step)
    factors = 1 + views.stretch * rng.uniform(-1, 1, (m, 3))
    shifts = views.shift * rng.uniform(-1, 1, (m, 3))
    if views.mirror:
        factors[:, 0] *= rng.choice((-1, 1), m)
    if views.mirror or views.stretch or views.shift:
        lengths, offsets = (torch.from_numpy(each).to(rows) for each in (factors, shifts))
        # f(x / lengths - offsets) has at lengths * (x + offsets) what f has at x.
        rows = of_moved_points(net.layout, rows, torch.diag_embed(1 / lengths), -offsets)
        points = lengths[:, None] * (points + offsets[:, None])
    if views.flip_units:
        widths = [shape[0] for shape in net.layout.shapes[:-2:2]]
        signs = [torch.from_numpy(rng.choice((-1.0, 1.0), (m, width))).to(rows) for width in widths]
        rows = with_flipped_units(net.layout, rows, signs)
    return rows, points
