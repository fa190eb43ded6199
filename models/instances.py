"""Many instances of one architecture: start them, run them, fuse them."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.batch_norm_fusion import fuse_batch_norm
from models.errors import InputError
from models.layers import check_layers, fold_instances
from models.prep import Layout
from models.registry import Architecture
from models.symmetries import Channels

# On the CPU, instances are computed together on images of up to so many pixels. On larger ones each by itself is work enough.
SMALL_IMAGE = 16 * 16
# From so many on they follow one another in the batch, fewer are folded into channels (docs/performance.md).
IN_BATCH_FROM = 8


def run_instances(module: nn.Module, state: dict[str, Tensor], images: Tensor, form: str | None = None) -> Tensor:
    """Logits (M, B, classes) of M instances of `module`.

    `state` holds parameters (and, with batch norm, running statistics, which training mode updates in place) of shape
    (M, *shape); it replaces the module's own. `images` are (B, C, S, S), seen by all, or (M, B, C, S, S), each
    instance's own. `form` says where instances lie: "channels", "batch" (see models/layers.py), or "alone", one after
    the other; by default the fastest.
    """
    m = next(iter(state.values())).shape[0]
    own_images = images.dim() == 5
    if form is None:
        form = "channels" if images.is_cuda else fastest_on_cpu(m, images.shape[-1] * images.shape[-2])
    if form == "alone":
        each = [
            functional_call(
                module, {name: value[i] for name, value in state.items()}, (images[i] if own_images else images,)
            )
            for i in range(m)
        ]
        return torch.stack(each)
    if form == "batch":
        x = (images if own_images else images.expand(m, *images.shape)).flatten(0, 1)
        state = {name: value[:, None] for name, value in state.items()}
        return functional_call(module, state, (x,)).view(m, len(x) // m, -1)
    x = fold_instances(images) if own_images else images.contiguous(memory_format=torch.channels_last)
    logits = functional_call(module, state, (x,))  # (B, M*classes)
    return logits.view(logits.shape[0], m, -1).transpose(0, 1)


def fastest_on_cpu(m: int, pixels: int) -> str:
    if m == 1 or pixels > SMALL_IMAGE:
        return "alone"
    return "batch" if m >= IN_BATCH_FROM else "channels"


def start_instances(build: Callable[[], nn.Module], seeds: list[int]) -> dict[str, Tensor]:
    """Freshly initialized states of len(seeds) nets that `build` makes, entries (M, *shape), each from its own seed."""
    states = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            states.append(build().state_dict())
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def module_of(net: nn.Module, layout: Layout, row: Tensor) -> nn.Module:
    """A copy of `net` with the parameters of a row (P,), in eval mode, on the row's device."""
    module = deepcopy(net)
    with torch.no_grad():
        for name, (value,) in layout.unflatten(row[None]).items():
            module.get_parameter(name).copy_(value)
    return module.to(row.device).eval()


class ArchitectureOnImages:
    """An architecture for images of one shape: its nets, and where their parameters lie in a row.

    `trained` is the form with batch norm and `fused` the form in PReps; without batch norm they are alike. Raises InputError
    if its layers cannot compute M instances at once, or if `fused` is not what fusion makes of `trained`.
    """

    def __init__(self, architecture: Architecture, image_shape: tuple[int, int, int], num_classes: int):
        self.architecture = architecture
        self.image_shape, self.num_classes = image_shape, num_classes
        with torch.random.fork_rng(devices=[]):  # building a net draws numbers; whoever asks here wants only shapes
            self.trained = architecture.build(image_shape, num_classes)
            self.fused = architecture.build(image_shape, num_classes, fused=True).eval()
        self.trained_layout = Layout.of(self.trained)
        self.layout = Layout.of(self.fused)
        check_layers(self.trained, architecture.name)
        found = {name: value.shape for name, value in self.fused.state_dict().items()}
        alone = {name: value[None] for name, value in self.trained.state_dict().items()}
        fused = {name: value.shape[1:] for name, value in fuse_batch_norm(self.trained, alone).items()}
        for name in sorted({*found, *fused}):
            if found.get(name) != fused.get(name):
                raise InputError(
                    f"{architecture.name}: '{name}' differs between fused=True and the fused net; "
                    "there, convs before a batch norm have a bias, and batch norm is nn.Identity"
                )

    @property
    def num_parameters(self) -> int:
        """P, of the fused form."""
        return self.layout.num_parameters

    def hidden_channels(self) -> list[Channels]:
        """What may be reordered (models/symmetries.py). Raises InputError if the net does not say it."""
        find = getattr(self.fused, "hidden_channels", None)
        if find is None:
            raise InputError(
                f"{self.architecture.name} has no hidden_channels(); add it as in models/vanilla_cnn.py, or give --no-reorder-channels"
            )
        return find()

    def start(self, seeds: list[int]) -> dict[str, Tensor]:
        """Freshly initialized states of len(seeds) instances, entries (M, *shape), each from its own seed."""
        return start_instances(lambda: self.architecture.build(self.image_shape, self.num_classes), seeds)

    def fuse(self, state: dict[str, Tensor]) -> Tensor:
        """States of M trained instances to rows (M, P) of their fused form."""
        return self.layout.flatten(fuse_batch_norm(self.trained, state))

    def run(self, rows: Tensor, images: Tensor) -> Tensor:
        """Logits (M, B, classes) of M instances given as rows (M, P) of fused parameters. See run_instances."""
        return run_instances(self.fused, self.layout.unflatten(rows), images)

    def module(self, row: Tensor) -> nn.Module:
        """The instance of a row (P,) as a module of its own. See module_of."""
        return module_of(self.fused, self.layout, row)
