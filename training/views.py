"""What an autoencoder starts from, and how targets are shown to it in training."""

import torch
import torch.nn.functional as F
from torch import Tensor

from data.streams import stream
from models.instances import TargetNet
from models.prep import pack
from models.prep_autoencoder import PrepAutoencoder
from models.rows import reordering
from training.constants import Start, Views


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
    index = reordering(net.layout, net.hidden_channels(), stream("order of channels", seed, step))
    return rows[:, index.to(rows.device)]


def add_noise(rows: Tensor, width: int, views: Views, seed: int, step: int) -> Tensor:
    """Return rows (M, P) with the step's noise, if `views` asks for it; padded to `width`, for PReps have noise everywhere.

    Noise keeps the encoder from recognizing instances by single weights. Its unit is the mean absolute value of a PRep.
    """
    if not views.prep_noise:
        return rows
    rows = F.pad(rows, (0, width - rows.shape[1]))
    noise = stream("noise", seed, step).standard_normal(rows.shape, dtype="float32")
    return rows + views.prep_noise * rows.abs().mean(1, keepdim=True) * torch.from_numpy(noise).to(rows.device)
