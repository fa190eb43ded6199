"""NetSpace as a library: nets to embeddings, and embeddings to nets that behave like them.

    space = netspace.NetSpace.load("runs/photos/single")
    e = space.encode(net)  # an nn.Module, a state dict or a file, or a list of them
    net = space.decode(e)  # an nn.Module, ready to use

Errors are InputError (models/errors.py), one line that says what to do. docs/library.md has examples."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.images import ImageSet
from data.instance_files import Net, export_net
from evaluation import arguments
from evaluation.spaces import Space
from models.errors import InputError

Ends = arguments.Numbers | Net | Iterable[Net]


class NetSpace:
    """A trained space. A method that takes one net or embedding takes a list, or a batch (N, E), as well."""

    def __init__(self, space: Space, device: torch.device | None = None):
        self.space = space.to(space.device if device is None else arguments.as_device(device))
        self.space.model.requires_grad_(False)

    @classmethod
    @arguments.in_plain_torch
    def load(
        cls, path: str | Path, original: str | None = None, device: str | torch.device | None = None
    ) -> "NetSpace":
        """Load a run's folder (its best checkpoint), a checkpoint file, or a folder that `save` wrote.

        A checkpoint of the original release does not say which nets it is for: `original` does, as in "cifar10/single". The
        device is the GPU if there is one, unless given. Raise InputError if there is no space or it is broken.
        """
        return cls(Space.load(arguments.as_path(path), original), arguments.as_device(device))

    @arguments.in_plain_torch
    def save(self, folder: str | Path) -> None:
        """Write one folder, `netspace.safetensors` and `config.json`, that `load` reads on another machine."""
        self.space.save(arguments.as_path(folder))

    @property
    def device(self) -> torch.device:
        """The device of the space and of its embeddings."""
        return self.space.device

    @property
    def architectures(self) -> list[str]:
        """Names of the architectures, by ClassId."""
        return self.space.nets.names

    @arguments.in_plain_torch
    def encode(self, net: Net | Iterable[Net]) -> Tensor:
        """Return the embedding (E,) of a net, or (N, E) of an iterable. Batch norm is fused into convs first.

        A file is a state dict, `.pt` or `.safetensors`. Raise InputError for a net that this space is not for.
        """
        rows, several = arguments.as_rows(net, self.space.nets, self.space.model.width)
        embeddings = self.space.encode(rows.to(self.device))
        arguments.finite(embeddings, "an embedding", "the net's parameters are")
        return embeddings if several else embeddings[0]

    @arguments.in_plain_torch
    def decode(self, embedding: arguments.Numbers) -> nn.Module | list[nn.Module]:
        """Return the net of an embedding (E,), or a list of those of (N, E), in eval mode; batch norm stays fused.

        A net of images maps images (B, C, S, S), normalized with the `mean` and `std` of `space.about`, to logits (B,
        classes). With several architectures it has the one that the classifier predicts. A SIREN maps points (B, 3) to
        distances (B,).
        """
        batch, several = self.space.as_batch(embedding)
        rows = arguments.finite(self.space.decode(batch), "a decoded net", "its embedding is")
        modules = [self.space.nets[class_id].module(row) for row, class_id in zip(rows, self.space.class_ids(batch))]
        return modules if several else modules[0]

    @arguments.in_plain_torch
    def class_ids(self, embedding: arguments.Numbers) -> list[int]:
        """Return the predicted ClassIds of embeddings (E,) or (N, E), which are indices into `architectures`."""
        return self.space.class_ids(self.space.as_batch(embedding)[0])

    @arguments.in_plain_torch
    def interpolate(self, a: Ends, b: Ends, gammas: float | arguments.Numbers) -> Tensor:
        """Return embeddings (K, E) on the line from a to b, each a net or an embedding: (1 - gamma)*a + gamma*b.

        One gamma gives (1, E); lists or batches of N ends each, (N, K, E). Raise InputError if they differ in number.
        """
        ends = [self._end(end) for end in (a, b)]
        if ends[0].shape != ends[1].shape:
            raise InputError(f"ends of shapes {tuple(ends[0].shape)} and {tuple(ends[1].shape)}; give as many of each")
        return self.space.interpolate(*ends, arguments.as_gammas(gammas).to(self.device))

    def _end(self, end: Ends) -> Tensor:
        value, is_embedding = arguments.as_end(end)
        batch, several = self.space.as_batch(value) if is_embedding else (self.encode(value), True)
        return batch if several else batch[0]

    @arguments.in_plain_torch
    def optimize(
        self,
        embedding: arguments.Numbers,
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
        precision: str | None = None,
    ) -> Tensor:
        """Move embeddings (E,) or (N, E), each alone, towards a better net: latent space optimization (paper Sec. IV).

        Adam descends L_kd towards `teacher`, and L_class of the ClassId that each embedding begins with; the decoder is
        frozen. The teacher maps images (B, C, S, S) to logits (B, classes), or is a file or state dict of any architecture.
        A module is asked in eval mode, on its device, and comes back as it was. `alpha` is the teacher's weight against the
        labels (eq. 5), by default 1 for one architecture and 0.9 for several. Validation accuracy is measured every
        `validate_every` steps. If `patience` measurements in a row gain no more than `min_delta` points, the search stops and
        the best embeddings are returned. `precision` is that of the descent, "float32", "tf32" or "bfloat16", by default
        bfloat16 on a GPU; accuracy is measured in float32. Raise InputError for SIRENs, images of another shape, and a loss that is NaN.
        """
        arguments.check_images(images, self.space.nets)
        alpha = (1.0 if len(self.space.nets) == 1 else 0.9) if alpha is None else alpha
        values = (temperature, alpha, image_batch, learning_rate, validate_every, patience, min_delta, seed)
        asked = arguments.as_teacher(teacher, self.space.nets[0], self.device)
        batch, several = self.space.as_batch(embedding)
        best = self.space.optimize(batch, images, asked, arguments.as_search(*values, precision=precision))
        return best if several else best[0]

    @arguments.in_plain_torch
    def export(self, embedding: arguments.Numbers, path: str | Path, facts: Mapping[str, Any] | None = None) -> None:
        """Write the decoded net of one embedding: `.safetensors`, `.pt` (a state dict) or `.onnx`, by the suffix.

        The first has `facts` and what the net is in its header, the last as metadata. Raise InputError for another suffix.
        """
        batch, _ = self.space.as_batch(embedding)
        if len(batch) != 1:
            raise InputError(f"{len(batch)} embeddings; a file holds one net, give ({batch.shape[1]},)")
        (net,), (class_id,) = self.decode(batch), self.class_ids(batch)
        about = {name: value for name, value in self.space.about.items() if name != "architectures"}
        all_facts = {"architecture": self.architectures[class_id], **about, **arguments.as_facts(facts)}
        export_net(net, arguments.as_path(path), torch.zeros(2, *self.space.nets[class_id].input_shape), all_facts)
