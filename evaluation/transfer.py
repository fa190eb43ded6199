"""SANE on nets that it was not trained on: another image set, another architecture, or both (SANE Sec. 4)."""

import torch
from torch import Tensor

from data.images import ImageSet
from evaluation.finetuning import FineTuning, key_of
from evaluation.metrics import accuracy
from models.errors import InputError
from models.instances import TargetNet
from models.token_autoencoder import TokenAutoencoder
from training.ensembles import initial_state

ANCHORS = 10**6  # the number of the first net that is trained as an anchor


def anchors_on_target(
    model: TokenAutoencoder, net: TargetNet, images: ImageSet, number: int, epochs: int, tuning: FineTuning, seed: int
) -> tuple[TokenAutoencoder, Tensor]:
    """Train nets for some epochs, and return a model for them and their rows (number, P), aligned to the best, best first.

    Raise InputError if the model's tables of positions are too small for the net.
    """
    model = adapted(model, net).to(images.train.labels.device)
    rows = best_first(net, trained_nets(net, images, number, epochs, tuning, seed), images)
    return model, model.fit(rows, rows[0])


def trained_nets(net: TargetNet, images: ImageSet, number: int, epochs: int, tuning: FineTuning, seed: int) -> Tensor:
    """Train fresh nets on images for some epochs: rows (number, P). They are others than those that are fine-tuned."""
    keys = [key_of(seed, ANCHORS + i) for i in range(number)]
    rows = []
    for start in range(0, number, tuning.side_by_side):
        some = keys[start : start + tuning.side_by_side]
        state = initial_state(net, some, images.train.labels.device)
        (trained,) = tuning.epochs_of(net, state, some, images.train, [epochs])
        rows.append(net.fuse(trained))
    return torch.cat(rows)


def best_first(net: TargetNet, rows: Tensor, images: ImageSet) -> Tensor:
    """Return rows (N, P), the one of the highest validation accuracy first. Raise InputError if there is only one."""
    if len(rows) < 2:
        raise InputError(f"{len(rows)} {net.name} to sample around: at least 2; make a larger zoo")
    return rows[accuracy(net, rows, images.val).argsort(descending=True, stable=True).to(rows.device)]


def adapted(model: TokenAutoencoder, net: TargetNet) -> TokenAutoencoder:
    """Return a model with the same transformer for the tokens of another net; it has to be fitted to nets.

    Raise InputError if the tables of positions are too small for the net.
    """
    with torch.random.fork_rng(devices=[]):  # its initial parameters are replaced
        other = TokenAutoencoder(model.sizes, net.layout, net.hidden_channels())
    other.transformer.load_state_dict(model.transformer.state_dict())
    return other.eval()
