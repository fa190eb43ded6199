"""What is measured of a space on the nets of a seed: what it decodes, lines, embeddings, insides, reordered copies."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.nets import NetsDataset
from data.streams import stream
from data.zoos import last_checkpoints, strongest
from evaluation.comparison import reordered_copies, shuffled
from evaluation.inside import Kind, measure_kind
from evaluation.lines import latent_lines, line_facts, pairs_of_ends, weight_lines
from evaluation.metrics import correlation, percentage, predicted_classes
from evaluation.probes import finite, fit_ridge, properties_of, r2, weight_statistics
from evaluation.spaces import Space
from evaluation.systems import Nets
from models.rebasin import align
from training.losses import parameter_scales

NUM_INSIDE, NUM_STITCHED = 12, 2000  # test nets that are measured inside, training images that stitches are fitted on
NUM_TRAIN = 80  # training instances that are measured, too
NUM_ENDS = 5  # weakest and strongest nets that lines run between, all pairs
NUM_GAMMAS = 7
NUM_COPIES = 4  # reordered, of each of NUM_INSIDE test nets
PROPERTIES = ("test_accuracy", "log_steps", "generalization_gap")


def one_of_each(nets: NetsDataset) -> NetsDataset:
    """Return one checkpoint of every net, of the first net the first, of the next the next, over and over."""
    by_net: dict[str, list[int]] = {}
    for i, name in enumerate(nets.column("net")):
        by_net.setdefault(name, []).append(i)
    return nets[[members[place % len(members)] for place, members in enumerate(by_net.values())]]


@dataclass(frozen=True)
class Known:
    """Instances, their classes (N, images) on test images and their accuracies (N,), percent."""

    nets: NetsDataset
    classes: Tensor
    accuracies: Tensor

    @classmethod
    def of(cls, nets: NetsDataset, images: Any) -> "Known":
        """Run instances on images."""
        classes = predicted_classes(nets.nets[0], nets.rows, images)
        return cls(nets, classes, percentage(classes == images.labels))


class Measures:
    """Measures of spaces on the nets of a seed. What is the same for all spaces is computed once."""

    def __init__(self, nets: Nets):
        self.nets = nets

    @cached_property
    def test(self) -> Known:
        """The test instances."""
        return Known.of(self.nets.test, self.nets.images.test)

    @cached_property
    def train(self) -> Known:
        """Some of the training instances."""
        train = self.nets.train
        order = stream("training instances that are measured", self.nets.seed).permutation(len(train))
        return Known.of(train[np.sort(order[:NUM_TRAIN])], self.nets.images.test)

    @cached_property
    def scales(self) -> Tensor:
        """The units of weight errors, (P,)."""
        return parameter_scales(self.nets.net.layout, self.nets.train.rows)

    # Decoded instances

    def decoded(self, predicted: Tensor, known: Known) -> dict[str, Any]:
        """Return how rows (N, >= P) predicted for instances behave beside them, and R^2 of their weights."""
        images = self.nets.images.test
        classes = predicted_classes(self.nets.net, predicted, images)
        accuracies, target = percentage(classes == images.labels), known.accuracies
        rows, size = known.nets.rows, len(self.scales)
        error = ((predicted[:, :size] - rows) / self.scales).square().sum()
        variance = ((rows - rows.mean(0)) / self.scales).square().sum()
        return {
            "agreement": percentage(classes == known.classes).mean().item(),
            "accuracy_error": (accuracies - target).abs().mean().item(),
            "accuracy_correlation": correlation(accuracies.tolist(), target.tolist()),
            "accuracy": accuracies.mean().item(),
            "target_accuracy": target.mean().item(),
            "weight_r2": finite(1 - (error / variance).item()),
        }

    def of_size(self, space: Space, nets: Nets) -> dict[str, Any]:
        """Return what is measured of a space that was trained on some of the training nets."""
        train = Known.of(one_of_each(nets.train), self.nets.images.test)
        return {**self.decoded(space.predict(self.test.nets.rows), self.test), **self.training(space, train)}

    def training(self, space: Space, known: Known) -> dict[str, Any]:
        """Return agreement and error on training instances."""
        found = self.decoded(space.predict(known.nets.rows), known)
        return {f"train_{name}": found[name] for name in ("agreement", "accuracy_error", "weight_r2")}

    def of_space(self, space: Space, nets: Nets) -> dict[str, Any]:
        """Return everything that is measured of a space."""
        embeddings = {name: space.encode(each.rows) for name, each in nets.splits.items()}
        predicted = space.decode(embeddings["test"])
        return {
            **self.decoded(predicted, self.test),
            **self.training(space, self.train),
            **self.lines(space),
            "property_r2": self.properties({name: each.double().cpu().numpy() for name, each in embeddings.items()}),
            **self.inside(space),
        }

    def baseline(self, row: Tensor) -> dict[str, Any]:
        """Return what is measured if one row (P,) is predicted for every instance."""
        return self.decoded(row.expand_as(self.test.nets.rows), self.test)

    def baselines(self) -> dict[str, Any]:
        """Return what is measured of the strongest training net and of the mean one for all, and of probes of weights."""
        train, layout = self.nets.train.rows, self.nets.net.layout
        features = {name: weight_statistics(layout, each.rows) for name, each in self.nets.splits.items()}
        rows = {name: each.rows.double().cpu().numpy() for name, each in self.nets.splits.items()}
        return {
            "strongest": self.baseline(train[strongest(self.nets.train)]),
            "mean": self.baseline(train.mean(0)),
            "weight_statistics": {"property_r2": self.properties(features)},
            "weights": {"property_r2": self.properties(rows)},
        }

    # Lines

    @cached_property
    def gamma(self) -> Tensor:
        """The positions on lines, (K,)."""
        return torch.linspace(0, 1, NUM_GAMMAS, device=self.nets.train.rows.device)

    @cached_property
    def line_nets(self) -> Known:
        """Test instances that lines run between, one of each net."""
        return Known.of(one_of_each(self.nets.test), self.nets.images.test)

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """Indices of the weakest with the strongest of them."""
        ranked = self.line_nets.accuracies.argsort().tolist()
        return pairs_of_ends(ranked, max(1, min(NUM_ENDS, len(ranked) // 3)))

    @cached_property
    def averaged(self) -> np.ndarray:
        """Accuracies of averaged weights, (pairs, K)."""
        rows = self.line_nets.nets.rows
        return weight_lines(self.nets.net, rows, self.pairs, self.gamma, self.nets.images.test)

    def rebased(self) -> np.ndarray:
        """Return the same, the stronger net of each pair aligned to the weaker one: weight interpolation after re-basin."""
        net, rows = self.nets.net, self.line_nets.nets.rows
        ends = [(rows[[j]].gather(1, align(net.layout, net.hidden_channels(), rows[[j]], rows[i]).to(rows.device)), i)
                for i, j in self.pairs]  # fmt: skip
        both = torch.cat([torch.cat([rows[[i]], end]) for end, i in ends])
        pairs = [(2 * k, 2 * k + 1) for k in range(len(ends))]
        return weight_lines(net, both, pairs, self.gamma, self.nets.images.test)

    def lines(self, space: Space) -> dict[str, Any]:
        """Return what is measured along latent lines."""
        embeddings = space.encode(self.line_nets.nets.rows)
        latent = latent_lines(space, embeddings, self.pairs, self.gamma, self.nets.images.test)
        strong = self.line_nets.accuracies.numpy()[[j for _, j in self.pairs]]
        found = line_facts(latent, self.averaged, self.gamma, strong)
        return {
            "line_rank_correlation": found["rank_correlation_mean"],
            "line_above_weights": found["latent_above_weights_mean"],
            "line_accuracy": found["latent_accuracy_mean"],
        }

    # Embeddings

    def properties(self, features: dict[str, np.ndarray]) -> dict[str, float | None]:
        """Return R^2 on test instances of ridge regression from features (N, F) of all splits to each property."""
        known = {name: properties_of(each) for name, each in self.nets.splits.items()}
        found: dict[str, float | None] = {}
        for name in (each for each in PROPERTIES if all(each in split for split in known.values())):
            y = {split: values[name] for split, values in known.items()}
            predict = fit_ridge(features["train"], y["train"], features["val"], y["val"])
            found[name] = finite(r2(y["test"], predict(features["test"]))[0])
        return found

    # Insides

    def inside(self, space: Space) -> dict[str, Any]:
        """Return CKA and stitched accuracy of decoded nets and their targets: means over nets, at each point and over points."""
        test = last_checkpoints(self.nets.test)[:NUM_INSIDE]
        images = self.nets.images
        train = shuffled(images.train, NUM_STITCHED, stream("images of stitches", self.nets.seed))
        kind = Kind("", space.predict(test.rows), test.rows)
        found = measure_kind(self.nets.net, kind, replace(images, train=train), ("cka_unbiased",))
        facts: dict[str, Any] = {}
        for name, called in (("cka_unbiased", "cka"), ("least_squares", "stitched")):
            points = [finite(each) for each in found[name].nanmean(1).tolist()]
            facts |= {f"{called}_points": points, called: finite(found[name].nanmean().item())}
        return facts

    # Symmetry

    def symmetry(self, space: Space, aligned: bool) -> dict[str, Any]:
        """Return how embeddings and decoded nets of reordered copies of test nets differ; `aligned`: these are aligned first.

        `embedding_spread` is the mean distance of copies from their net's embedding, relative to that between two nets;
        `accuracy_spread` the standard deviation of decoded accuracy over a net and its copies, points, mean over nets;
        `agreement` of decoded copies with the decoded net is in percent.
        """
        test, images, net = last_checkpoints(self.nets.test)[:NUM_INSIDE], self.nets.images.test, self.nets.net
        sets = [test.rows]
        for copy in range(NUM_COPIES):
            rows = reordered_copies(net, test.rows, 1000 * self.nets.seed + copy)
            sets.append(self.nets.align(rows) if aligned else rows)
        embeddings = torch.stack([space.encode(rows) for rows in sets])  # (1 + copies, N, E)
        apart = torch.pdist(embeddings[0].double().cpu()).mean()
        spread = (embeddings[1:] - embeddings[0]).double().norm(dim=2).mean().cpu()
        classes = torch.stack([predicted_classes(net, space.decode(each), images) for each in embeddings])
        accuracies = torch.stack([percentage(each == images.labels) for each in classes])
        return {
            "embedding_spread": finite((spread / apart).item()),
            "accuracy_spread": accuracies.std(0, correction=0).mean().item(),
            "agreement": 100 * (classes[1:] == classes[0]).double().mean().item(),
        }
