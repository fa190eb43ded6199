"""What autoencoders of rows minimize at a step: NetSpace's loss, and SANE's with behaviour, for the scripts that train them.

for step in run.steps(num_steps):
    found = objective.at(step)
    run.descend(found.loss, [paths[i] for i in found.chosen], **found.terms)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from data.images import Batches
from data.nets import meta_batch
from data.streams import stream
from models.instances import TargetNet
from models.prep_autoencoder import PrepAutoencoder
from models.rows import index_on
from models.token_autoencoder import TokenAutoencoder
from training.distributed import rank_slice
from training.graphs import COMPILED_PREP, Graphed
from training.losses import (
    OBJECTIVES,
    Given,
    behaviour,
    contrastive_losses,
    logit_behaviour,
    parameter_scales,
    reconstruction_losses,
)
from training.runtime import MixedPrecision, mixed_precision
from training.views import add_noise, draw_windows, reorder

# eq. 1 of NetSpace at T = 1, or the squared difference of logits
BehaviourLoss = Literal["distillation", "logits"]
# windows: with contrast of two views, as SANE; nets: whole ones
Structure = Literal["windows", "nets"]
BEHAVIOURS = {"distillation": behaviour, "logits": logit_behaviour}


@dataclass(frozen=True)
class Found:
    """What a step shows: the indices of its instances, this rank's part of the loss (None if it has no instance), its terms."""

    chosen: list[int]
    loss: Tensor | None
    terms: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class PrepObjective:
    """NetSpace's loss on training instances, rows (N, P) of one net; `config` is that of train_single_arch.py."""

    config: Any
    model: PrepAutoencoder
    net: TargetNet
    rows: Tensor
    batches: Batches

    @cached_property
    def scales(self) -> Tensor:
        """The units of weight errors, (P,)."""
        return parameter_scales(self.net.layout, self.rows)

    @cached_property
    def graphed(self) -> Graphed:
        """The loss of targets (M, P) on images (B, C, S, S), from how they are shown: eq. 1, or another of OBJECTIVES."""
        config, objective, scales = self.config, OBJECTIVES[self.config.objective], self.scales

        def loss_of(shown: Tensor, rows: Tensor, x: Tensor) -> Tensor:
            given = Given(self.net, x, config.temperature, scales)
            return objective(self.model(shown), rows, given).sum() / config.meta_batch

        precision = mixed_precision(self.rows.device, config.optim.precision)
        return Graphed(loss_of, self.model, precision, compiled=self.model.width >= COMPILED_PREP)

    def at(self, step: int) -> Found:
        """Return the loss of a step, mean over M targets."""
        config, seed = self.config, self.config.seed
        x, _ = self.batches.shared(step)  # (B, C, S, S)
        chosen = meta_batch(len(self.rows), config.meta_batch, seed, step)
        rows = self.rows[index_on(self.rows.device, chosen)]
        rows = reorder(rows, self.net, config.views, seed, step)  # (M, P)
        shown = add_noise(rows, self.model.width, config.views, seed, step)
        rows, shown = rows[rank_slice()], shown[rank_slice()]
        return Found(chosen, self.graphed(shown, rows, x) if len(rows) else None)


@dataclass(frozen=True)
class TokenObjective:
    """SANE's loss with behaviour on training instances, rows (N, P) of one net, aligned; `config` is that of train_sane.py.

    It is g L_c + (1 - g) ((1 - b) L_rec + b L_B): `contrast` g, `behaviour` b. Terms without weight are not computed; without
    `batches` of images there is no behaviour.
    """

    config: Any
    model: TokenAutoencoder
    net: TargetNet
    rows: Tensor
    batches: Batches | None = None

    @cached_property
    def precision(self) -> MixedPrecision:
        """The context that the loss is computed in."""
        return mixed_precision(self.rows.device, self.config.optim.precision)

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the terms."""
        others, b = 1 - self.config.contrast, self.config.behaviour
        return {"contrast": self.config.contrast, "reconstruction": others * (1 - b), "behaviour": others * b}

    def at(self, step: int) -> Found:
        """Return the loss of a step and its terms: means over windows, and over M whole nets."""
        config, weights = self.config, self.weights
        windows = meta_batch(len(self.rows), config.windows, config.seed, step)
        nets = meta_batch(len(self.rows), config.meta_batch, config.seed + 1, step)
        by_windows = config.structure == "windows" and bool(weights["contrast"] or weights["reconstruction"])
        terms: dict[str, Tensor] = {}
        with self.precision:
            if by_windows:
                terms |= self.of_windows(windows, step)
            if self.batches or config.structure == "nets":
                terms |= self.of_nets(nets, step)
            loss = sum(weights[name] * term for name, term in terms.items())
        return Found(windows if by_windows else nets, loss, terms)

    def of_windows(self, chosen: list[int], step: int) -> dict[str, Tensor]:
        """Return this rank's part of the mean losses of windows. Windows of other ranks are not contrasted with its own."""
        config, model = self.config, self.model
        seen = draw_windows(model, self.rows[chosen], config.views, config.seed, step).part(rank_slice())
        views, transformer = 2 * config.windows, model.transformer
        latents = transformer.encode(seen.shown, seen.positions)
        decoded = model.finished(transformer.decode(latents, seen.positions), seen.positions[..., 0])
        structure = reconstruction_losses(decoded, seen.target, seen.mask, config.recon).sum() / views
        contrast = contrastive_losses(transformer.project(latents), config.contrast_temperature).sum() / views
        return {"reconstruction": structure, "contrast": contrast}

    def of_nets(self, chosen: list[int], step: int) -> dict[str, Tensor]:
        """Return this rank's part of the mean losses of whole decoded nets: behaviour, and reconstruction if it is of nets."""
        config, model, terms = self.config, self.model, {}
        rows = self.rows[chosen][rank_slice()]
        x = self.batches.shared(step)[0] if self.batches else None
        if not len(rows):
            return {"behaviour": rows.new_zeros(())} if self.batches else {}
        decoded = model.decode(model.encode_aligned(rows))
        if config.structure == "nets":
            tokens = [model.standardized(each) for each in (decoded, rows)]
            mask = model.mask.expand(len(rows), -1, -1)
            terms["reconstruction"] = reconstruction_losses(*tokens, mask, config.recon).sum() / config.meta_batch
        if x is not None:
            decoded = self.with_targets(decoded, rows, step) if config.decoded == "windows" else decoded
            given = Given(self.net, x, 1.0, rows.new_ones(()))
            terms["behaviour"] = BEHAVIOURS[config.behaviour_loss](decoded, rows, given).sum() / config.meta_batch
        return terms

    def with_targets(self, decoded: Tensor, rows: Tensor, step: int) -> Tensor:
        """Return targets (M, P) with one window of tokens decoded, the same of all."""
        model = self.model
        window = min(model.sizes.window, model.num_tokens)
        start = int(stream("decoded windows", self.config.seed, step).integers(model.num_tokens - window + 1))
        token = model.tokens.index.to(rows.device) // model.sizes.token_size
        return torch.where((token >= start) & (token < start + window), decoded, rows)
