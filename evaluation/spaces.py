"""A trained space: what encodes rows and decodes embeddings, the nets in it, how it is loaded and saved."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from data.files import check_regular, fingerprint, fingerprint_of_file, write_safetensors
from data.folders import Folders, command
from data.images import IMAGENET_MEAN, IMAGENET_STD, Batches, Images, ImageSet
from data.instance_files import check_numbers
from data.load import load_images
from data.nets import NetsDataset, load_nets
from data.tensor_files import read_tensors
from data.texts import read_json, write_json
from evaluation.arguments import as_numbers, ask_teacher, in_eval_mode
from evaluation.metrics import interpolate, mixed_accuracy, where_right
from models.errors import InputError, brief
from models.instances import TargetNets
from models.prep_autoencoder import PrepAutoencoder
from models.target_nets import ARCHITECTURES, architectures_by_class_id, get_architecture
from models.token_autoencoder import TokenAutoencoder
from training.checkpoints import check_shapes, load_checkpoint, model_of_sizes, restore_model
from training.constants import Flat, Search
from training.latent_search import LatentSearch
from training.losses import class_id_losses, teacher_losses
from training.runtime import as_json, mixed_precision, pick_device

AT_ONCE = 8  # instances; at the paper's 88x10,000 the encoder needs half a gigabyte for each
WEIGHTS, CONFIG = "netspace.safetensors", "config.json"
FORMAT = 1  # of a saved space
MOST = 256  # image channels and pixels a side, in a file that says for which nets a space is
ORIGINAL_IMAGES = {"cifar10": (32, 10), "tiny-imagenet-200": (64, 200)}  # side, classes
ORIGINAL_ARCHITECTURES = ["lenetlike", "vanilla_cnn", "resnet8", "resnet32"]  # by ClassId
ORIGINALS = (*(f"{dataset}/{setting}" for dataset in ORIGINAL_IMAGES for setting in ("single", "multi")), "mlps")


class Space:
    """An autoencoder of rows, in eval mode, and the nets that it is for, by ClassId.

    `about` says which nets these are, as JSON: `siren_widths`, or `architectures` by ClassId with `image_shape`,
    `class_names` and the `mean` and `std` that images are normalized with. `trained` says how the space was trained. Raise
    InputError if its PReps are too small for one of the nets.
    """

    def __init__(
        self,
        model: PrepAutoencoder | TokenAutoencoder,
        nets: TargetNets,
        about: dict[str, Any],
        trained: dict[str, Any],
    ):
        model.check_nets(nets.num_parameters)
        self.model, self.nets, self.about, self.trained = model.eval(), nets, about, trained

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the model's parameters."""
        return fingerprint(*self.model.state_dict().values())

    @torch.no_grad()
    def encode(self, rows: Tensor) -> Tensor:
        """Map rows (N, P) to embeddings (N, E), without gradient."""
        return torch.cat([self.model.encode(part) for part in rows.split(AT_ONCE)])

    @torch.no_grad()
    def decode(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (N, E) to rows (N, H*W) of predicted instances, without gradient."""
        if not len(embeddings):
            return embeddings.new_zeros(0, self.model.prep_shape[0] * self.model.prep_shape[1])
        return torch.cat([self.model.decode(part) for part in embeddings.split(AT_ONCE)])

    @torch.no_grad()
    def class_ids(self, embeddings: Tensor) -> list[int]:
        """Return the predicted ClassIds of embeddings (N, E); 0 for all if there is one architecture."""
        if self.model.classifier is None or not len(embeddings):
            return [0] * len(embeddings)
        return self.model.classifier(embeddings).argmax(1).tolist()

    def predict(self, rows: Tensor) -> Tensor:
        """Map rows (N, P) of target instances to rows (N, H*W) of predicted instances."""
        return self.decode(self.encode(rows))

    def accuracy(self, embeddings: Tensor, images: Images) -> tuple[list[int], Tensor]:
        """Decode embeddings (N, E): return their predicted ClassIds and their accuracy (N,), percent of the images."""
        class_ids = self.class_ids(embeddings)
        return class_ids, mixed_accuracy(self.nets, self.decode(embeddings), class_ids, images)

    def interpolate(self, start: Tensor, end: Tensor, gamma: Tensor) -> Tensor:
        """Return embeddings on the line from start to end (E,), (K, E); of batches (N, E), (N, K, E)."""
        return interpolate(start, end, gamma)

    def search_losses(
        self, embeddings: Tensor, desired: list[int], x: Tensor, labels: Tensor, teacher: Tensor, search: Search
    ) -> Tensor:
        """Return the losses (N,) of latent space optimization: L_kd, and L_class of the desired ClassIds if there are several.

        They are those of decoded instances on images (B, C, S, S), with the teacher's logits (B, classes).
        """
        class_ids = self.class_ids(embeddings)
        with mixed_precision(self.device, search.precision):
            predicted = self.nets.run(self.model.decode(embeddings), class_ids, x)
            losses = teacher_losses(predicted, teacher, labels, search.temperature, search.alpha)
            if self.model.classifier is None:
                return losses
            return losses + class_id_losses(self.model.classifier(embeddings), desired)

    def as_batch(self, embedding: Any) -> tuple[Tensor, bool]:
        """Return embeddings (E,) or (N, E), of any type that holds numbers, as (N, E) float32 on the device.

        Also return whether there were several. Raise InputError for another shape, and for NaN or infinity.
        """
        size, found = self.model.emb_size, as_numbers(embedding, "the embedding")
        if found.dim() not in (1, 2) or found.shape[-1] != size:
            raise InputError(f"an embedding of shape {tuple(found.shape)}; this space's are ({size},) or (N, {size})")
        return found.to(self.device).reshape(-1, size), found.dim() == 2

    def optimize(
        self, embeddings: Tensor, images: ImageSet, teacher: Callable[[Tensor], Tensor], config: Search
    ) -> Tensor:
        """Move embeddings (N, E), each alone, towards a better net; return those of the highest validation accuracy.

        `teacher` maps images (B, C, S, S) to logits (B, classes); a module is asked in eval mode and comes back as it was.
        Raise InputError if a loss is NaN or infinite.
        """
        if not len(embeddings):
            return embeddings.clone()
        if config.image_batch > len(images.train):
            raise InputError(
                f"image_batch {config.image_batch}: there are {len(images.train)} training images, give fewer"
            )
        devices = [self.device] if self.device.type == "cuda" else []
        # A teacher may draw random numbers, too.
        with in_eval_mode(teacher), torch.enable_grad(), torch.random.fork_rng(devices):
            return self._search(embeddings.detach(), images.to(self.device), teacher, config)

    def _search(
        self, embeddings: Tensor, images: ImageSet, teacher: Callable[[Tensor], Tensor], config: Search
    ) -> Tensor:
        search = LatentSearch(embeddings, config.patience, config.min_delta)
        optimizer = torch.optim.Adam([search.embeddings], config.learning_rate)
        desired = self.class_ids(embeddings)
        batches, step = Batches(images.train, [(config.seed,)], config.image_batch), 0
        while True:
            if step % config.validate_every == 0:
                if not search.embeddings.isfinite().all():
                    raise InputError(f"the loss turned NaN or infinite before step {step}; lower the learning rate")
                class_ids, accuracy = self.accuracy(search.embeddings.detach(), images.val)
                search.update(where_right(accuracy, class_ids, desired))
                if search.stopped:
                    return search.best
            x, labels = batches.shared(step)
            logits = ask_teacher(teacher, x, images.num_classes)
            optimizer.zero_grad()
            self.search_losses(search.embeddings, desired, x, labels, logits, config).sum().backward()
            optimizer.step()
            step += 1

    def to(self, device: torch.device) -> "Space":
        """Move the model to a device."""
        self.model.to(device)
        return self

    @classmethod
    def of_checkpoint(cls, path: Path, made_by: str, nets: TargetNets, about: dict[str, Any]) -> "Space":
        """Return the space of a checkpoint, ours or the original release's, for known nets, on the CPU.

        Raise InputError if it is missing (`made_by` is the command that makes it), broken or for other nets.
        """
        saved = load_checkpoint(path, made_by)
        model = restore_model(saved, path, made_by, len(nets) if len(nets) > 1 else None, nets[0])
        return cls(model, nets, about, trained_of(saved))

    @classmethod
    def load(cls, path: Path, original: str | None = None) -> "Space":
        """Return the space in a run's folder (its best checkpoint), a checkpoint file, or a folder that `save` wrote.

        A checkpoint of the original release does not say which nets it is for: `original` does, one of ORIGINALS. Raise
        InputError if there is no space, it is broken or does not say what it is for.
        """
        if path.name in (CONFIG, WEIGHTS) and (path.parent / CONFIG).is_file():
            path = path.parent  # one of the two files that `save` wrote
        if (path / CONFIG).is_file():
            return load_saved(path)
        checkpoint = path if path.suffix and not path.is_dir() else path / "best.pt"
        made_by = "python train_single_arch.py, train_multi_arch.py or train_mlps.py, whichever made this folder"
        saved = load_checkpoint(checkpoint, made_by)
        about = about_original(original) if original else saved.get("nets", saved.get("decodes"))
        if about is None:
            raise InputError(
                f"{checkpoint} does not say which nets it is for; if it is of the original release, give original=, "
                f"one of {', '.join(ORIGINALS)}"
            )
        check_about(about, checkpoint)
        num, width = num_architectures(about), most_to_run(saved.get("sizes"), saved.get("model"))
        nets = None if width is None else nets_about(about, width, checkpoint)
        model = restore_model(saved, checkpoint, made_by, num if num > 1 else None, nets and nets[0])
        return cls(model, nets or nets_about(about, model.width, checkpoint), about, trained_of(saved))

    def save(self, folder: Path) -> None:
        """Write `netspace.safetensors` and `config.json`, all that another machine needs. Raise InputError on failure."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        write_safetensors(folder / WEIGHTS, state)
        sizes, trained = asdict(self.model.sizes), as_json(self.trained)
        # The fingerprint shows if one of the two files was written by another save.
        weights = fingerprint_of_file(folder / WEIGHTS)
        config = {"format": FORMAT, "weights": weights, "sizes": sizes, "nets": self.about, "trained": trained}
        write_json(folder / CONFIG, config)


def trained_of(saved: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says of its training."""
    return {name: saved[name] for name in ("constants", "versions", "step", "best_score") if name in saved}


# Which nets a space is for


def about_images(nets: TargetNets, images: ImageSet) -> dict[str, Any]:
    """Return what `Space.about` holds for nets of images."""
    return {"architectures": nets.names, **images.facts()}


def about_sirens(widths: Sequence[int]) -> dict[str, Any]:
    """Return what `Space.about` holds for SIRENs."""
    return {"siren_widths": list(widths)}


def about_original(name: str) -> dict[str, Any]:
    """Return what `Space.about` holds for a checkpoint of the original release, one of ORIGINALS."""
    if name not in ORIGINALS:
        raise InputError(f"original '{name}': choose {', '.join(ORIGINALS)}")
    if name == "mlps":
        return about_sirens([3, 256, 256, 1])
    dataset, setting = name.split("/")
    side, classes = ORIGINAL_IMAGES[dataset]
    architectures = ["resnet8"] if setting == "single" else ORIGINAL_ARCHITECTURES
    normalization = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
    images = {"dataset": dataset, "image_shape": [3, side, side], "class_names": [str(i) for i in range(classes)]}
    return {"architectures": architectures, **images, **normalization}


def num_architectures(about: dict[str, Any]) -> int:
    """Return how many architectures `about` describes."""
    return 1 if "siren_widths" in about else len(about["architectures"])


def most_to_run(sizes: Any, state: Any) -> int | None:
    """Return the most parameters of the net that a model is built with: SANE's P, H*W of a NetSpace with probes.

    None for a model that is built without. `sizes` and the state dict are as a file has them, unchecked.
    """
    if isinstance(sizes, dict) and sizes.get("encoder") == "probes":
        shape = sizes.get("prep_shape")
        whole = isinstance(shape, (list, tuple)) and all(type(each) is int and 0 < each < 2**31 for each in shape)
        return math.prod(shape) if whole else None
    reference = state.get("reference") if isinstance(state, dict) else None
    return len(reference) if isinstance(reference, Tensor) and reference.dim() == 1 else None


def nets_about(about: dict[str, Any], largest: int, path: Path) -> TargetNets:
    """Return the nets that `about` describes.

    Raise InputError, naming the file, if one has more than `largest` parameters, before it is built.
    """
    if "siren_widths" in about:
        widths = tuple(about["siren_widths"])
        check_number(sum((a + 1) * b for a, b in zip(widths, widths[1:])), largest, f"{path}: SIREN {brief(widths)}")
        try:
            return TargetNets.sirens(widths)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    chosen = [get_architecture(name) for name in about["architectures"]]
    channels, side, _ = about["image_shape"]
    shape, num_classes = (channels, side, side), len(about["class_names"])
    for architecture in chosen:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            outline = architecture.build(shape, num_classes, fused=True)
        number = sum(parameter.numel() for parameter in outline.parameters())
        check_number(number, largest, f"{path}: {architecture.name}")
    return TargetNets.on_images(chosen, shape, num_classes)


def check_number(number: int, largest: int, what: str) -> None:
    """Raise InputError if a net has more parameters than a PRep holds."""
    if number > largest:
        raise InputError(f"{what} has {number:,} parameters, more than the {largest:,} of the PReps beside it")


def check_about(about: Any, path: Path) -> None:
    """Raise InputError, naming the file, unless `about` has the entries that `Space` documents."""
    if isinstance(about, dict) and "siren_widths" in about:
        widths = about["siren_widths"]
        if isinstance(widths, list) and len(widths) < 1000 and all(type(n) is int and 0 < n < 2**16 for n in widths):
            return
        raise InputError(f"{path}: siren_widths {brief(widths)} are not widths, as in [3, 256, 256, 1]")
    names, shape, classes = (
        about.get(name) if isinstance(about, dict) else None for name in ("architectures", "image_shape", "class_names")
    )
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n in ARCHITECTURES for n in names):
        raise InputError(
            f"{path}: architectures {brief(names)}, known are {', '.join(ARCHITECTURES)}; add it to models/target_nets"
        )
    if len(set(names)) < len(names):
        raise InputError(f"{path}: architectures {brief(names)} name one twice")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and 0 < n <= MOST for n in shape):
        raise InputError(f"{path}: image_shape {brief(shape)} is not [channels, side, side]")
    if not isinstance(classes, list) or not classes:
        raise InputError(f"{path}: class_names {brief(classes)} are not a list of names")


def load_saved(folder: Path) -> Space:
    """Return the space in a folder that `Space.save` wrote. Raise InputError if its files are broken or do not match."""
    config = read_json(folder / CONFIG, "save the space again")
    if config.get("format") != FORMAT:
        found = brief(config.get("format"))
        raise InputError(f"{folder / CONFIG} has format {found}, this version reads {FORMAT}; save the space again")
    about, trained = config.get("nets", config.get("decodes")), config.get("trained", {})
    check_about(about, folder / CONFIG)
    num = num_architectures(about)
    classes = num if num > 1 else None
    check_regular(folder / WEIGHTS)
    if fingerprint_of_file(folder / WEIGHTS) != config.get("weights"):
        raise InputError(f"{folder / WEIGHTS} is not the space of {CONFIG} beside it; save or copy both again")
    state, _ = read_tensors(folder / WEIGHTS)
    width = most_to_run(config.get("sizes"), state)
    nets = None if width is None else nets_about(about, width, folder / CONFIG)
    build, outline = model_of_sizes(config.get("sizes"), classes, f"{folder / CONFIG}: sizes", nets and nets[0])
    check_shapes({"all": state}, {"all": outline.state_dict()}, folder / WEIGHTS)
    for name, value in state.items():
        check_numbers(value, f"{folder / WEIGHTS}: '{name}'")
    with torch.random.fork_rng(devices=[]):  # its initial parameters are replaced
        model = build()
    model.load_state_dict(state)
    nets = nets or nets_about(about, model.width, folder / CONFIG)
    return Space(model, nets, about, trained if isinstance(trained, dict) else {})


# What the scripts that evaluate a space on images have in common


@dataclass(frozen=True)
class SingleConfig:
    dataset: str  # the preset's, or the folder that the instances were made with
    architecture: str = "resnet8"  # of the instances
    checkpoint: Path | None = None  # default: runs/<dataset>/single/best.pt; the original release's are read too
    folders: Flat[Folders] = field(default_factory=Folders)

    @property
    def setting(self) -> str:
        return "single"

    @property
    def run_dir(self) -> Path:
        return self.folders.run(self.dataset, self.setting)


@dataclass(frozen=True)
class MultiConfig:
    dataset: str  # the preset's, or the folder that the instances were made with
    setting: Literal["multi", "missing"] = "multi"  # all architectures, or only the lowest and the highest ClassId
    checkpoint: Path | None = None  # default: runs/<dataset>/<setting>/best.pt; the original release's are read too
    folders: Flat[Folders] = field(default_factory=Folders)

    @property
    def run_dir(self) -> Path:
        return self.folders.run(self.dataset, self.setting)


def load_experiment(config: SingleConfig | MultiConfig) -> tuple[ImageSet, Space, NetsDataset]:
    """Return the images, the trained space and its test instances, which it has never seen, on this rank's device.

    Raise InputError if something is missing, with the command that makes it.
    """
    device = pick_device()
    images = load_images(config.dataset, config.folders.data_dir, device)
    if isinstance(config, SingleConfig):
        chosen, script, flags = [get_architecture(config.architecture)], "train_single_arch.py", ""
    else:
        chosen, script, flags = architectures_by_class_id(), "train_multi_arch.py", f"--setting {config.setting}"
    nets = TargetNets.on_images(chosen, images.image_shape, images.num_classes)
    test = load_nets(config.folders, images, config.setting, "test", nets)
    checkpoint = config.checkpoint or config.run_dir / "best.pt"
    made_by = command(script, config.dataset, flags)
    space = Space.of_checkpoint(checkpoint, made_by, nets, about_images(nets, images))
    return images, space.to(device), test
