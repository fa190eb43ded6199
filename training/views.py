"""What an autoencoder starts from, and how targets are shown to it in training: as PReps, or as windows of tokens."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data.streams import stream, torch_seed
from models.instances import TargetNet
from models.prep import pack
from models.prep_autoencoder import PrepAutoencoder
from models.rows import Channels, Layout, num_channels, reordering, reorderings
from models.token_autoencoder import TokenAutoencoder
from training.constants import Start, TokenViews, Views


def start_at_instances(model: PrepAutoencoder, start: Start, rows: Tensor, scores: Tensor) -> None:
    """Start a model, on the CPU, as `start` says, from training instances (N, P) and their scores (N,)."""
    rows = rows.cpu()
    if start.encoder_start == "scaled":
        model.encoder.start_at(rows.square().mean().sqrt().item())
    if start.affine_start == "instance":
        chosen = scores.argsort()[int(start.affine_quantile * (len(rows) - 1))].item()
        model.decoder.scalelayer.start_at(pack(rows[[chosen]], model.prep_shape)[0, 0], start.affine_scale)


def reorder(rows: Tensor, net: TargetNet, views: Views, seed: int, step: int) -> Tensor:
    """Return rows (M, P) with their hidden channels in the step's random order, if `views` asks for it."""
    if not views.reorder_channels:
        return rows
    rng = stream("order of channels", seed, step)
    if not rows.is_cuda:
        return rows[:, reordering(net.layout, net.hidden_channels(), rng)]
    # A GPU would wait for an index from the CPU.
    generator = torch.Generator(rows.device).manual_seed(int(rng.integers(2**31)))
    return rows[:, random_orders(net.layout, net.hidden_channels(), 1, generator)[0]]


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
