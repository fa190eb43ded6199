"""NetSpace as a library: nets to embeddings, and embeddings to nets that behave like them.

    from netspace import NetSpace

    space = NetSpace.load("runs/photos/single")
    e = space.encode(net)  # an nn.Module, a state dict or a file, or a list of them
    net = space.decode(e)  # an nn.Module, ready to use

What goes wrong raises InputError (models/errors.py), one line that says what to do. docs/library.md has examples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.exports import save_net
from data.images import ImageSet, endless_batches
from data.instance_files import find_nets, fused_row, plain_state, read_instance, siren_row
from evaluation.accuracy import accuracy_of_embeddings, where_right
from evaluation.interpolation import interpolate
from models.architecture_pool import ArchitecturePool
from models.errors import InputError
from models.instances import ArchitectureOnImages
from models.prep import pack, unpack
from models.registry import ARCHITECTURES
from training.latent_search import LatentSearch
from training.losses import class_id_losses, teacher_losses
from training.runtime import pick_device
from training.spaces import Space, load_space, save_space

Net = nn.Module | dict[str, Tensor] | str | Path
Ends = Tensor | Net | Sequence[Net]


class NetSpace:
    """A trained space. Where a method takes one net or embedding, it takes a list, or a batch (N, E), as well."""

    def __init__(self, space: Space, device: torch.device | None = None):
        self.space, self.autoencoder = space, space.autoencoder.to(device).eval().requires_grad_(False)
        self.nets = space.nets()  # by ClassId

    @classmethod
    def load(cls, path: str | Path, original: str | None = None, device: torch.device | None = None) -> "NetSpace":
        """From a run's folder (its best checkpoint), a checkpoint file, or a folder that `save` wrote.

        Checkpoints of the original release do not say what they decode: `original` does, "cifar10/single" say. On the GPU,
        where there is one, unless a device is given. Raises InputError if there is none or it is broken.
        """
        return cls(load_space(Path(path), original), device or pick_device())

    def save(self, folder: str | Path) -> None:
        """One folder, `netspace.safetensors` and `config.json`, that `load` reads on another machine."""
        save_space(self.space, Path(folder))

    @property
    def device(self) -> torch.device:
        return next(self.autoencoder.parameters()).device

    @property
    def architectures(self) -> list[str]:
        """Names, by ClassId."""
        return self.space.decodes.get("architectures", ["siren"])

    def encode(self, net: Net | Sequence[Net]) -> Tensor:
        """The embedding (E,) of a net, or (N, E) of a list. Batch norm is fused into convs first.

        A file is a state dict, `.pt` or `.safetensors`. Raises InputError for a net that this space does not hold.
        """
        several = isinstance(net, (list, tuple))
        prep_shape = self.autoencoder.sizes.prep_shape
        preps = [pack(self._row(each)[None], prep_shape) for each in (net if several else [net])]
        if not preps:
            raise InputError("no nets to encode; give at least one")
        embeddings = self.autoencoder.encode(torch.cat(preps).to(self.device))
        return embeddings if several else embeddings[0]

    def decode(self, embedding: Tensor) -> nn.Module | list[nn.Module]:
        """The net of an embedding (E,), or a list of those of (N, E), in eval mode; batch norm stays fused.

        Image nets take images (B, C, S, S), normalized with the `mean` and `std` of `space.decodes`, and give logits (B,
        classes); with several architectures, the net has the one that the classifier predicts. SIRENs take points (B, 3).
        """
        batch = self._batch(embedding)
        preps = self.autoencoder.decode(batch)
        modules = []
        for prep, class_id in zip(preps, self.autoencoder.class_ids(batch)):
            nets = self.nets[class_id]
            modules.append(nets.module(unpack(prep[None], nets.num_parameters)[0]))
        return modules if embedding.dim() == 2 else modules[0]

    def class_ids(self, embedding: Tensor) -> list[int]:
        """Predicted ClassIds of embeddings (E,) or (N, E), positions in `architectures`."""
        return self.autoencoder.class_ids(self._batch(embedding))

    def interpolate(self, a: Ends, b: Ends, gammas: Sequence[float] | Tensor) -> Tensor:
        """Embeddings (K, E) on the line from a to b, each a net or an embedding: (1 - gamma)*a + gamma*b.

        Of lists or batches of N ends each, (N, K, E). Raises InputError if they are not as many.
        """
        ends = [each.to(self.device) if isinstance(each, Tensor) else self.encode(each) for each in (a, b)]
        if ends[0].shape != ends[1].shape:
            raise InputError(f"ends of shapes {tuple(ends[0].shape)} and {tuple(ends[1].shape)}; give as many of each")
        return interpolate(*ends, torch.as_tensor(gammas, dtype=ends[0].dtype, device=self.device))

    def optimize(
        self,
        embedding: Tensor,
        images: ImageSet,
        teacher: Net | Callable[[Tensor], Tensor],
        temperature: float = 4.0,
        alpha: float | None = None,
        learning_rate: float = 0.01,
        image_batch: int = 128,
        validate_every: int = 100,
        patience: int = 10,
        min_delta: float = 0.0,
        seed: int = 0,
    ) -> Tensor:
        """Latent space optimization (paper Sec. IV): embeddings (E,) or (N, E) moved, each alone, towards a better net.

        Adam on L_kd towards `teacher`, and on L_class of the ClassId that each embedding begins with, decoder frozen. The
        teacher gives logits (B, classes) for images (B, C, S, S); or it is the file or state dict of any architecture.
        `alpha` weighs it against labels (eq. 5): by default 1 for one architecture, 0.9 for several. Looks at validation
        accuracy every so many steps, stops when `patience` looks in a row gain no more than `min_delta` points, and
        returns what was best by it.
        Raises InputError for a space of SIRENs, images of another shape, and a loss that turns NaN.
        """
        pool = self.nets
        if not isinstance(pool, ArchitecturePool):
            raise InputError("SIRENs classify nothing; latent space optimization is for nets of images")
        if images.image_shape != pool[0].image_shape or images.num_classes != pool[0].num_classes:
            raise InputError(
                f"images {images.image_shape} of {images.num_classes} classes, this space holds nets for {pool[0].image_shape} "
                f"and {pool[0].num_classes}; load the images that it was trained with"
            )
        images = images.to(self.device)
        if not callable(teacher):
            teacher = self._module(teacher)
        if alpha is None:
            alpha = 1.0 if len(pool) == 1 else 0.9
        search = LatentSearch(self._batch(embedding), learning_rate, patience, min_delta)
        moving = search.embeddings
        wished = self.autoencoder.class_ids(moving)
        for step, (x, labels) in enumerate(endless_batches(images.train, (seed,), image_batch, 0)):
            if step % validate_every == 0:
                class_ids, accuracy = accuracy_of_embeddings(self.autoencoder, pool, moving.detach(), images.val)
                search.keep(where_right(accuracy, class_ids, wished))
                if search.stopped:
                    break
            with torch.no_grad():
                teacher_logits = teacher(x)
            predicted = pool.run(self.autoencoder.decoder(moving), self.autoencoder.class_ids(moving), x)
            losses = teacher_losses(predicted, teacher_logits, labels, temperature, alpha)
            if self.autoencoder.classifier is not None:
                losses = losses + class_id_losses(self.autoencoder.classifier(moving), wished)
            search.descend(losses)
        return search.best if embedding.dim() == 2 else search.best[0]

    def export(self, embedding: Tensor, path: str | Path, facts: dict[str, Any] | None = None) -> None:
        """Writes the decoded net of an embedding (E,): `.safetensors`, `.pt` (a state dict) or `.onnx`, by the suffix.

        The first holds `facts` and what the net is in its header, the last as metadata. Raises InputError for another one.
        """
        net, class_id = self.decode(embedding), self.class_ids(embedding)[0]
        assert isinstance(net, nn.Module)
        what = {name: value for name, value in self.space.decodes.items() if name != "architectures"}
        shape = self.space.decodes.get("image_shape", [3])
        save_net(
            net,
            Path(path),
            torch.zeros(2, *shape),
            {"architecture": self.architectures[class_id], **what, **(facts or {})},
        )

    def _batch(self, embedding: Tensor) -> Tensor:
        """Embeddings (E,) or (N, E) as (N, E), on the device. Raises InputError for another shape."""
        size = self.autoencoder.sizes.emb_size
        if embedding.dim() not in (1, 2) or embedding.shape[-1] != size:
            raise InputError(
                f"an embedding of shape {tuple(embedding.shape)}; this space's are ({size},) or (N, {size})"
            )
        return embedding.detach().to(self.device).view(-1, size)

    def _module(self, net: Net) -> nn.Module:
        """A net of any registered architecture, for images like this space's."""
        state, where = read_state(net)
        pool = self.nets[0]
        known = [ArchitectureOnImages(each, pool.image_shape, pool.num_classes) for each in ARCHITECTURES.values()]
        nets = find_nets(known, state, where)
        return nets.module(fused_row(nets, state, where).to(self.device))

    def _row(self, net: Net) -> Tensor:
        """The fused parameters (P,) of a net."""
        state, where = read_state(net)
        if isinstance(self.nets, ArchitecturePool):
            return fused_row(find_nets(self.nets.nets, state, where), state, where)
        return siren_row(self.nets[0], {name: value for name, value in state.items() if name != "sdf"}, where)


def read_state(net: Net) -> tuple[dict[str, Tensor], str]:
    """A net's state dict on the CPU, and what to call it in a message."""
    if isinstance(net, (str, Path)):
        return read_instance(Path(net))[0], str(net)
    where = "the net" if isinstance(net, nn.Module) else "the state dict"
    state = plain_state(net.state_dict() if isinstance(net, nn.Module) else net, where)
    return {name: value.detach().cpu() for name, value in state.items()}, where
