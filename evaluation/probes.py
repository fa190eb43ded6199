"""Probes: how well properties of unseen nets are predicted from what represents the nets (SANE Sec. 5.1).

A representation is a vector for each instance. A probe, linear (ridge regression) or boosted trees, is fitted on training
nets, its strength chosen on validation nets, and measured on test nets.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from data.images import ImageSet
from data.nets import NetsDataset
from data.streams import stream, torch_seed
from evaluation.spaces import Space
from models.errors import InputError
from models.rows import Layout
from models.token_autoencoder import TokenAutoencoder

LAMBDAS = tuple(digit * 10.0**power for power in range(3, -6, -1) for digit in (3, 1) if digit * 10.0**power <= 1e3)
QUANTILES = (0, 0.25, 0.5, 0.75, 1)
TREES = {"max_iter": 300, "learning_rate": 0.05, "max_leaf_nodes": 16}
PROPERTIES = ("test_accuracy", "log_steps", "generalization_gap", "recall")
INTERVAL = (2.5, 97.5)  # percent
INSTANCES_AT_ONCE = 32

Features = dict[str, np.ndarray]  # representations by name, each (N, F) float64
Targets = dict[str, np.ndarray]  # properties by name, each (N, K) float64
Predict = Callable[[np.ndarray], np.ndarray]  # features (N, F) to predictions (N, K)


# Properties


def properties_of(nets: NetsDataset) -> Targets:
    """Return what is known of all instances: properties (N, 1), and `recall` (N, classes)."""
    names = sorted({name for facts in nets.facts for name in facts if name.startswith("recall_")}, key=natural)
    columns = {name: numbers(nets.column(name)) for name in ("test_accuracy", "generalization_gap", *names)}
    columns["log_steps"] = np.log1p(numbers(nets.column("step")))  # of 1 + steps: some zoos have step 0
    columns["recall"] = np.concatenate([columns[name] for name in names], 1) if names else numbers([None])
    return {name: columns[name] for name in (*PROPERTIES, *names) if np.isfinite(columns[name]).all()}


def natural(name: str) -> tuple[int, str]:
    """Return a key that sorts recall_2 before recall_10."""
    return len(name), name


def numbers(values: Sequence[Any]) -> np.ndarray:
    """Return values as a column (N, 1) float64, NaN for what is no number."""
    return np.array([[value if isinstance(value, (int, float)) else np.nan] for value in values], dtype=float)


# Representations


def statistics(values: np.ndarray) -> np.ndarray:
    """Return mean, standard deviation, minimum, quartiles and maximum of each row of (N, n): (N, 7)."""
    quantiles = np.quantile(values, QUANTILES, axis=1)
    return np.column_stack([values.mean(1), values.std(1), *quantiles])


def mean_and_std(latents: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation over tokens of latents (N, T, z): (N, 2z)."""
    return np.concatenate([latents.mean(1), latents.std(1)], axis=1)


def weight_statistics(layout: Layout, rows: Tensor) -> np.ndarray:
    """Return s(W) of rows (N, P): statistics of every weight and every bias, apart and as they are (Unterthiner et al.)."""
    parts = rows[:, : layout.num_parameters].double().cpu().split(layout.sizes, dim=1)
    return np.column_stack([statistics(part.numpy()) for part in parts])


def logit_statistics(logits: Tensor) -> np.ndarray:
    """Return statistics over images of what logits (N, B, classes) say of confidence, without labels: (N, 21).

    They are of the highest probability, the entropy, and the margin of the highest over the second logit, which nets of any
    architecture and for any classes have.
    """
    log_probabilities = logits.double().log_softmax(-1).cpu()
    probabilities = log_probabilities.exp()
    highest = logits.double().cpu().topk(2, dim=-1).values
    found = probabilities.amax(-1), -(probabilities * log_probabilities).sum(-1), highest[..., 0] - highest[..., 1]
    return np.column_stack([statistics(each.numpy()) for each in found])


@torch.no_grad()
def by_parts(run: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Return what `run` makes of rows (N, P), a few at a time, on the CPU."""
    return torch.cat([run(part).cpu() for part in rows.split(INSTANCES_AT_ONCE)])


def fixed_images(images: ImageSet, number: int, seed: int) -> Tensor:
    """Return validation images (B, C, S, S) that are the same for all instances."""
    chosen = stream("images that represent", seed).permutation(len(images.val))[:number]
    return images.val.normalize(images.val.pixels[torch.from_numpy(np.sort(chosen)).to(images.val.pixels.device)])


@dataclass(frozen=True)
class Representations:
    """What represents instances of one architecture. Those of `without` are left out."""

    sane: TokenAutoencoder
    netspace: Space | None  # for the same nets
    images: Tensor  # (B, C, S, S), for logits
    pca: PCA  # of aligned rows
    without: tuple[str, ...] = ()

    @classmethod
    def fit(cls, sane: TokenAutoencoder, netspace: Space | None, images: Tensor, train: NetsDataset, seed: int):
        """Return representations whose principal components are the training instances', as many as SANE's mean has numbers."""
        weights = by_parts(sane.aligned, train.rows).double().numpy()
        pca = PCA(min(sane.sizes.latent_size, *weights.shape), random_state=torch_seed("principal components", seed))
        return cls(sane, netspace, images, pca.fit(weights))

    def elsewhere(self, train: NetsDataset, images: Tensor) -> "Representations":
        """Return what of these another zoo has, whose training instances are `train`.

        Nets of the same layout have all but logits on other images. Those of another architecture have the statistics of all
        latents and of logits, and logits: SANE is the same transformer, with that zoo's own reference, its strongest instance
        on validation, and own statistics. Raise InputError if SANE's tables of positions are too small.
        """
        net, sane, without = train.nets[0], self.sane, ()
        if images.shape != self.images.shape or not torch.equal(images, self.images):
            without += ("logits",)
        if net.layout != sane.layout:
            without += ("weight_statistics", "weights", "pca", "netspace", "sane_layers", "sane_sequence")
            sane = sane.for_layout(net.layout, net.hidden_channels())
            strongest = int(np.nan_to_num(numbers(train.column("val_accuracy")), nan=-1).argmax())
            sane.fit(train.rows.cpu(), train.rows[strongest].cpu())
        return replace(self, sane=sane, images=images, without=without)

    def of(self, nets: NetsDataset) -> Features:
        """Return the representations of instances by name, those of weights first."""
        net, rows, sane = nets.nets[0], nets.rows, self.sane
        aligned = by_parts(sane.aligned, rows)
        latents = sane.as_tokens(by_parts(sane.encode_aligned, aligned.to(rows.device)).double())
        layers = latents.split(sane.tokens.layer.bincount().tolist(), dim=1)
        logits = by_parts(lambda part: net.run(part, self.images), rows).double()
        weights, netspace = aligned.double().numpy(), self.netspace
        makers: dict[str, Callable[[], np.ndarray]] = {
            "weight_statistics": lambda: weight_statistics(net.layout, rows),
            "weights": lambda: weights,
            "pca": lambda: self.pca.transform(weights),
            **({"netspace": lambda: by_parts(netspace.encode, rows).double().numpy()} if netspace else {}),
            "sane_mean": lambda: latents.mean(1).numpy(),
            "sane_statistics": lambda: mean_and_std(latents.numpy()),
            "sane_layers": lambda: np.column_stack([mean_and_std(each.numpy()) for each in layers]),
            "sane_sequence": lambda: latents.flatten(1).numpy(),
            "logit_statistics": lambda: logit_statistics(logits),
            "logits": lambda: logits.flatten(1).numpy(),
        }
        return {name: make() for name, make in makers.items() if name not in self.without}


# Probes


def r2(target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return 1 - squared error / variance of (N, K) in each column: (K,), NaN where the target has no variance."""
    return weighted_r2(target, predicted, np.ones((1, len(target))))[0]


def weighted_r2(target: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return R^2 of (N, K) where instances count `counts` (R, N) times: (R, K)."""
    centred = target - target.mean(0)
    error, total = counts @ (target - predicted) ** 2, counts.sum(1)[:, None]
    variance = counts @ centred**2 - (counts @ centred) ** 2 / total
    known = variance > 1e-12 * total * np.abs(target).max(initial=0) ** 2  # what rounding leaves of no variance
    return np.where(known, 1 - error / np.where(known, variance, 1), np.nan)


def fit_ridge(x: np.ndarray, y: np.ndarray, val_x: np.ndarray, val_y: np.ndarray) -> Predict:
    """Return ridge regression from features (N, F) to properties (N, K), of the lambda with the highest R^2 on validation.

    It minimizes squared error + lambda * |w|^2 of features standardized on training instances, each column of y with its own
    lambda; the intercept is not penalized. Where R^2 is not defined, the largest lambda is taken.
    """
    scaler = StandardScaler().fit(x)
    x, val_x = scaler.transform(x), scaler.transform(val_x)
    probes = [Ridge(each).fit(x, y) for each in LAMBDAS]
    scores = np.stack([r2(val_y, each.predict(val_x).reshape(val_y.shape)) for each in probes])
    best = np.nan_to_num(scores, nan=-np.inf).argmax(0)  # (K,)
    weights = np.stack([np.reshape(probes[i].coef_, (-1, x.shape[1]))[k] for k, i in enumerate(best)], axis=1)
    intercepts = np.array([np.reshape(probes[i].intercept_, -1)[k] for k, i in enumerate(best)])
    return lambda features: scaler.transform(features) @ weights + intercepts


def fit_trees(seed: int) -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], Predict]:
    """Return what `fit_ridge` is, for gradient boosted trees; their number has the highest R^2 on validation."""

    def fit(x: np.ndarray, y: np.ndarray, val_x: np.ndarray, val_y: np.ndarray) -> Predict:
        random_state = torch_seed("boosted trees", seed)
        probes = [HistGradientBoostingRegressor(**TREES, random_state=random_state).fit(x, each) for each in y.T]
        stages = [
            np.nan_to_num([r2(val_y[:, [k]], each[:, None])[0] for each in probe.staged_predict(val_x)], nan=-np.inf)
            for k, probe in enumerate(probes)
        ]
        best = [int(np.argmax(each)) for each in stages]

        def predict(features: np.ndarray) -> np.ndarray:
            return np.column_stack(
                [
                    next(each for i, each in enumerate(probe.staged_predict(features)) if i == stage)
                    for probe, stage in zip(probes, best)
                ]
            )

        return predict

    return fit


# Scores


@dataclass(frozen=True)
class Score:
    """How well a property of n instances is predicted; None is what is not defined, as R^2 of a property without variance.

    The interval is of 95 %, over resampled nets.
    """

    r2: float | None
    r2_interval: list[float] | None
    kendall_tau: float | None
    n: int


def resampled_nets(nets: Sequence[Any], number: int, seed: int) -> np.ndarray:
    """Return how often each instance is drawn if nets are drawn with replacement, `number` times: (number, N) int64.

    `nets` says which net each instance is a checkpoint of: they stay together, as they are alike.
    """
    names, member = np.unique([str(each) for each in nets], return_inverse=True)
    drawn = stream("resamples of nets", seed).integers(len(names), size=(number, len(names)))
    return np.stack([np.bincount(each, minlength=len(names)) for each in drawn])[:, member]


def score(target: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> Score:
    """Return the score of predictions (N, K), the mean over columns, with resamples `counts` (R, N)."""
    resampled = weighted_r2(target, predicted, counts).mean(1)
    resampled = resampled[np.isfinite(resampled)]
    several = (counts != counts[0]).any() and len(resampled)  # nets
    interval = np.percentile(resampled, INTERVAL).tolist() if several else None
    tau = float(np.mean([kendalltau(*pair).statistic for pair in zip(target.T, predicted.T)]))
    return Score(finite(r2(target, predicted).mean()), interval, finite(tau), len(target))


def finite(value: float) -> float | None:
    """Return a float, None for NaN."""
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True)
class Split:
    """Instances as probes see them: representations, properties, and which net each is a checkpoint of."""

    features: Features
    properties: Targets
    nets: list[Any]

    @classmethod
    def of(cls, nets: NetsDataset, represent: Representations) -> "Split":
        """Represent instances."""
        return cls(represent.of(nets), properties_of(nets), nets.column("net"))


class Probes:
    """Probes of every property from every representation, fitted on `train` and chosen on `val`.

    Representations in `with_trees` have boosted trees too, as NAME_trees. Raise InputError if a split has no instances.
    """

    def __init__(self, train: Split, val: Split, with_trees: Sequence[str], seed: int):
        if not train.nets or not val.nets:
            raise InputError("too few nets to fit probes and to choose them; make a larger zoo")
        self.seed = seed
        self.names = [name for name in train.properties if name in val.properties]
        self.fitted: dict[str, tuple[str, Predict]] = {}  # by probe: what it is of, and how it predicts
        ys = [side_by_side(each.properties, self.names) for each in (train, val)]
        for name, x in train.features.items():
            fits = {name: fit_ridge} | ({f"{name}_trees": fit_trees(seed)} if name in with_trees else {})
            for probe, fit in fits.items():
                self.fitted[probe] = name, fit(x, ys[0], val.features[name], ys[1])

    def measure(self, test: Split, resamples: int, names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return {property: {representation: score as a dict}} of test instances.

        Properties are those in `names`, by default all; representations are those that the test instances have.
        """
        counts = resampled_nets(test.nets, resamples, self.seed)
        chosen = [each for each in (names or self.names) if each in self.names and each in test.properties]
        found: dict[str, dict[str, Any]] = {name: {} for name in chosen}
        single = [name for name in self.names if name != "recall"]
        classes = [name for name in single if name.startswith("recall_")]
        for probe, (features, predict) in self.fitted.items():
            if features in test.features:
                predicted = predict(test.features[features])
                for name in chosen:
                    columns = [single.index(each) for each in (classes if name == "recall" else [name])]
                    found[name][probe] = asdict(score(test.properties[name], predicted[:, columns], counts))
        return found


def side_by_side(properties: Targets, names: Sequence[str]) -> np.ndarray:
    """Return properties side by side, (N, K), without `recall`, whose columns are there one by one."""
    return np.column_stack([properties[name] for name in names if name != "recall"])


def probes_table(properties: dict[str, dict[str, Any]]) -> str:
    """Return scores as a Markdown table, a line for each representation: R^2, its interval, and Kendall's tau."""
    shown = [name for name in PROPERTIES if name in properties]
    heads = [f"{name} (n = {next(iter(properties[name].values()))['n']})" for name in shown if properties[name]]
    lines = [f"| R² [95 %], Kendall's τ | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for representation in next(iter(properties.values()), {}):
        cells = [cell(properties[name][representation]) for name in shown]
        lines.append(f"| {representation} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(found: dict[str, Any]) -> str:
    """Return a score as text, with dashes for what is not defined."""
    r2, tau = ("–" if found[name] is None else f"{found[name]:.3f}" for name in ("r2", "kendall_tau"))
    low, high = ("–" if found["r2_interval"] is None else f"{each:.3f}" for each in found["r2_interval"] or (0, 0))
    return f"{r2} [{low}, {high}], {tau}"
