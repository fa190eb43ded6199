"""Target nets: many instances of one architecture, or of several, started, run and fused at once."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import cache, cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from models.errors import InputError
from models.layers import channels_last, fold_instances, foreign_layer, on_tensor_cores, unfold_instances
from models.rows import Channels, Layout, fuse_batch_norm, index_on
from models.target_nets import Architecture, siren
from models.target_nets.parts import PartedNet, find_point, points_of

# On the CPU, instances are computed together on images of up to so many pixels. On larger ones each by itself is work enough,
# and faster in channels-last memory.
SMALL_IMAGE = 16 * 16

# How instances are computed: on images folded into channels, on points as batched matrix products (models/layers.py), or by
# themselves, by vmap or in a loop.
Form = Literal["channels", "points", "vmap", "alone"]


def run_instances(
    module: nn.Module, state: dict[str, Tensor], inputs: Tensor, own_inputs: bool, form: Form, **cut: Any
) -> Any:
    """Return outputs (M, B, ...) of M instances of `module`.

    `state` holds their parameters, and with batch norm their running statistics, of shape (M, *shape); it replaces the
    module's own. In training mode the running statistics are updated in place. Inputs are (B, ...) for all instances, or
    with `own_inputs` (M, B, ...). `cut` are arguments of the forward of a PartedNet: with `after`, inputs are activations;
    with `until`, outputs are, (M, B, *point_shape), or a list of them.
    """
    m = len(next(iter(state.values())))
    if form == "alone":
        states = [{name: value[i] for name, value in state.items()} for i in range(m)]
        every = list(inputs) if own_inputs else [inputs]
        if every[0].dim() == 4 and every[0].shape[2] * every[0].shape[3] > SMALL_IMAGE:
            every = [channels_last(x) for x in every]  # convs are a third faster (docs/performance.md)
        outputs = [functional_call(module, each, (x,), cut) for each, x in zip(states, every * (m // len(every)))]
        return [_stack(each) for each in zip(*outputs)] if isinstance(outputs[0], list) else _stack(outputs)
    if form == "vmap":
        run = vmap(
            lambda state, x: functional_call(module, state, (x,), cut),
            (0, 0 if own_inputs else None),
            randomness="different",
        )
        # Images are channels-last, which some layers cannot handle within vmap. Of one channel, `contiguous` leaves strides.
        return run(state, inputs.contiguous().flatten().view(inputs.shape))
    if form == "points":
        return functional_call(module, state, (inputs if own_inputs else inputs.expand(m, *inputs.shape),), cut)
    if cut.get("after") is not None and not own_inputs:  # after the first conv, layers expect M*C channels
        inputs, own_inputs = inputs.expand(m, *inputs.shape), True
    x = fold_instances(inputs) if own_inputs else inputs
    x = channels_last(x) if x.dim() == 4 else x
    outputs = functional_call(module, state, (x,), cut)
    return (
        [unfold_instances(each, m) for each in outputs] if isinstance(outputs, list) else unfold_instances(outputs, m)
    )


def _stack(outputs: Sequence[Tensor]) -> Tensor:
    """Return outputs of instances as (M, ...). Maps in channels-last memory stay in it, so that the next conv is the same."""
    if outputs[0].dim() == 4 and outputs[0].is_contiguous(memory_format=torch.channels_last):
        return torch.stack([each.movedim(1, -1) for each in outputs]).movedim(-1, 2)
    return torch.stack(list(outputs))


class TargetNet:
    """An architecture for inputs of one shape: images (C, S, S), or points (3,) for a SIREN.

    `trained` is the form with batch norm, `fused` the form that rows hold; without batch norm they are alike. Raise
    InputError if `fused` is not what fusion makes of `trained`, or if M instances cannot be computed at once.
    """

    def __init__(self, architecture: Architecture, input_shape: tuple[int, ...] = (3,), num_outputs: int = 1):
        self.architecture, self.name = architecture, architecture.name
        self.input_shape, self.num_outputs = input_shape, num_outputs
        with torch.random.fork_rng(devices=[]):  # building a net draws numbers, and only its shapes are needed
            self.trained = architecture.build(input_shape, num_outputs)
            self.fused = architecture.build(input_shape, num_outputs, fused=True).eval()
        self.trained_layout, self.layout = Layout.of(self.trained), Layout.of(self.fused)
        _check_fusion(self)
        self.folds = _folds(architecture, input_shape, num_outputs)

    @property
    def num_parameters(self) -> int:
        """P, of the fused form."""
        return self.layout.num_parameters

    def hidden_channels(self) -> list[Channels]:
        """Return what may be permuted (models/rows.py). Raise InputError if the architecture does not say it."""
        find = getattr(self.fused, "hidden_channels", None)
        if find is None:
            raise InputError(
                f"{self.name} has no hidden_channels(); add it as in models/target_nets/vanilla_cnn.py, "
                "or give --no-reorder-channels"
            )
        return find()

    def start(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Return the initial state of len(seeds) instances, entries (M, *shape), each from its own seed."""
        states = []
        with torch.random.fork_rng(devices=[]):
            for seed in seeds:
                torch.manual_seed(seed)
                states.append(self.architecture.build(self.input_shape, self.num_outputs).state_dict())
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def fuse(self, state: dict[str, Tensor]) -> Tensor:
        """Return rows (M, P) of M trained instances, batch norm fused."""
        return self.layout.flatten(fuse_batch_norm(self.trained, state))

    def run(self, rows: Tensor, inputs: Tensor) -> Tensor:
        """Return outputs of M instances: logits (M, B, classes), or signed distances (M, B).

        Rows (M, P) hold fused parameters; a wider row is padded, and the padding is ignored. Inputs are (B, *input_shape)
        for all instances, or (M, B, *input_shape).
        """
        return self._run(self.fused, self._parameters(rows), inputs, self.input_shape)

    @property
    def points(self) -> list[str]:
        """The names of the stitch points in order; the outputs are none. Raise InputError for a net without parts."""
        return points_of(self._parted.parts())

    def point_shape(self, point: str) -> tuple[int, ...]:
        """Return the shape of activations at a point: (C, H, W) of maps, (F,) of vectors. Raise InputError for no point."""
        return self._point_shapes[find_point(self._parted.parts(), point)]

    def run_front(self, rows: Tensor, inputs: Tensor, point: str, before_activation: bool = False) -> Tensor:
        """Return the activations (M, B, *point_shape) of M instances at a point, after its activation or before it.

        Rows and inputs are as in `run`. Raise InputError for a point that the net does not have.
        """
        return self._run_cut(rows, inputs, self.input_shape, until=point, before_activation=before_activation)

    def run_points(
        self, rows: Tensor, inputs: Tensor, points: Sequence[str], before_activation: bool = False
    ) -> list[Tensor]:
        """Return the activations at several points, each as `run_front` returns them, from one pass."""
        if not points:
            return []
        return self._run_cut(rows, inputs, self.input_shape, until=tuple(points), before_activation=before_activation)

    def run_end(self, rows: Tensor, activations: Tensor, point: str, before_activation: bool = False) -> Tensor:
        """Return outputs as `run` does, from activations at a point, after its activation or before it.

        They are (B, *point_shape) for all instances, or (M, B, *point_shape), and stay as they are. Raise InputError for
        a point that the net does not have, or for activations of another shape.
        """
        shape = self.point_shape(point)
        if activations.shape[-len(shape) :] != shape or activations.dim() - len(shape) not in (1, 2):
            raise InputError(
                f"activations {tuple(activations.shape)} at '{point}' of {self.name}: it takes (..., {shape})"
            )
        return self._run_cut(rows, activations, shape, after=point, before_activation=before_activation)

    def run_in_training(self, state: dict[str, Tensor], inputs: Tensor) -> Tensor:
        """Return outputs of M instances in training mode, from their state (M, *shape); updates running statistics."""
        return self._run(self.trained.train(), state, inputs, self.input_shape)

    def module(self, row: Tensor) -> nn.Module:
        """Return the instance of a row (P,) as a module in eval mode, on the row's device."""
        module = deepcopy(self.fused)
        with torch.no_grad():
            for name, (value,) in self.layout.unflatten(row[None, : self.num_parameters]).items():
                module.get_parameter(name).copy_(value)
        return module.to(row.device).eval()

    @property
    def _parted(self) -> PartedNet:
        if not isinstance(self.fused, PartedNet):
            raise InputError(
                f"{self.name} has no stitch points; make it a PartedNet with parts(), as models/target_nets/vanilla_cnn.py"
            )
        return self.fused

    @cached_property
    def _point_shapes(self) -> list[tuple[int, ...]]:
        parameter = next(self.fused.parameters())
        inputs = torch.zeros(1, *self.input_shape, dtype=parameter.dtype, device=parameter.device)
        with torch.no_grad():
            return [tuple(each.shape[1:]) for each in self._parted(inputs, until=self.points)]

    def _run_cut(self, rows: Tensor, inputs: Tensor, shape: tuple[int, ...], **cut: Any) -> Any:
        return self._run(self._parted, self._parameters(rows), inputs, shape, **cut)

    def _parameters(self, rows: Tensor) -> dict[str, Tensor]:
        """Return parameters (M, *shape) from rows (M, >= P). On a GPU in bfloat16, those of convs are cast at once."""
        rows = rows[:, : self.num_parameters]
        if self.folds and len(self.input_shape) == 3 and on_tensor_cores(rows):
            rows = rows.to(torch.bfloat16)
        return self.layout.unflatten(rows)

    def _run(
        self, module: nn.Module, state: dict[str, Tensor], inputs: Tensor, shape: tuple[int, ...], **cut: Any
    ) -> Any:
        if not self.folds:
            module.to(inputs.device)  # its buffers; rows do not hold them
        own_inputs = inputs.dim() == len(shape) + 2
        m = len(next(iter(state.values())))
        return run_instances(module, state, inputs, own_inputs, self._fastest_form(m, inputs.is_cuda), **cut)

    def _fastest_form(self, m: int, on_gpu: bool) -> Form:
        """Return how M instances are computed fastest (docs/performance.md)."""
        if not self.folds:
            return "vmap"
        if len(self.input_shape) == 1:
            return "points"
        small = self.input_shape[1] * self.input_shape[2] <= SMALL_IMAGE
        return "channels" if on_gpu or small and m > 1 else "alone"


def _check_fusion(net: TargetNet) -> None:
    """Raise InputError unless the fused form has the names and shapes that fusion gives, and all of it is in the row."""
    found = {name: value.shape for name, value in net.fused.state_dict().items()}
    state = {name: value[None] for name, value in net.trained.state_dict().items()}
    expected = {name: value.shape[1:] for name, value in fuse_batch_norm(net.trained, state).items()}
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            raise InputError(
                f"{net.name}: '{name}' differs between fused=True and the fused net; there, convs before a batch norm have "
                "a bias, and batch norm is nn.Identity"
            )
    for name in net.fused.state_dict():
        if name not in net.layout.names:
            raise InputError(
                f"{net.name}: '{name}' is a buffer, which rows do not hold; register it with persistent=False, or use "
                "BatchNorm2d of models/layers.py and a form with fused=True"
            )


@cache
def _folds(architecture: Architecture, input_shape: tuple[int, ...], num_outputs: int) -> bool:
    """Return whether models/layers.py computes M instances at once; if not, vmap does.

    Layers of models/layers.py are not enough: a forward that concatenates channels or averages over them mixes folded
    instances. So two instances are run together and alone, once. Raise InputError if vmap does not compute them either.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        module = architecture.build(input_shape, num_outputs).eval()

    def two(name: str, value: Tensor) -> Tensor:
        """Two values that differ in every element: batch norm's ones and zeros would hide mistakes."""
        if not value.is_floating_point():
            return torch.stack([value, value])
        noise = torch.rand(2, *value.shape, generator=generator)
        return 0.5 + noise if name.endswith("running_var") else value + 0.1 * (noise - 0.5)

    with torch.no_grad():
        state = {name: two(name, value) for name, value in module.state_dict().items()}
        inputs = torch.randn(2, 3, *input_shape, generator=generator)
        own, shared = (inputs, True), (inputs[0], False)
        expected = [run_instances(module, state, *each, "alone") for each in (own, shared)]

        def agrees(form: Form) -> bool:
            for each, alone in zip((own, shared), expected):
                together = run_instances(module, state, *each, form)
                near = 1e-3 * alone.abs().mean().item()  # rounding is far below, a mixture of two instances far above
                if together.shape != alone.shape or not torch.allclose(together, alone, rtol=1e-3, atol=near):
                    return False
            return True

        try:
            if foreign_layer(module) is None and agrees("points" if len(input_shape) == 1 else "channels"):
                return True
        except Exception:  # what a forward raises that is written for unfolded channels depends on it
            pass
        try:
            if agrees("vmap"):
                return False
            reason = "vmap gives other outputs"
        except Exception as error:  # likewise
            reason = " ".join(str(error).split())[:200]
    raise InputError(
        f"{architecture.name}: instances cannot be computed side by side ({reason}); use layers that vmap knows"
    )


class TargetNets:
    """Architectures for inputs of one shape, by ClassId: `nets[class_id]`.

    Rows (N, P) of a mixed batch have the width of the largest architecture, and zeros at the end.
    """

    def __init__(self, nets: Sequence[TargetNet]):
        self.nets = list(nets)

    @classmethod
    def on_images(
        cls, architectures: Sequence[Architecture], image_shape: tuple[int, int, int], num_classes: int
    ) -> "TargetNets":
        """Return these architectures for images (C, S, S), in this order."""
        return cls([TargetNet(each, image_shape, num_classes) for each in architectures])

    @classmethod
    def sirens(cls, widths: Sequence[int]) -> "TargetNets":
        """Return the SIREN of these widths. Raise InputError for widths that are not a SIREN's."""
        return cls([TargetNet(siren(tuple(widths)))])

    def __len__(self) -> int:
        return len(self.nets)

    def __getitem__(self, class_id: int) -> TargetNet:
        return self.nets[class_id]

    def __iter__(self) -> Iterator[TargetNet]:
        return iter(self.nets)

    @property
    def names(self) -> list[str]:
        """Names by ClassId."""
        return [net.name for net in self.nets]

    @property
    def num_parameters(self) -> dict[str, int]:
        """P of each architecture, by name."""
        return {net.name: net.num_parameters for net in self.nets}

    @property
    def takes_images(self) -> bool:
        return len(self.nets[0].input_shape) == 3

    def groups(self, class_ids: Sequence[int]) -> Iterator[tuple[TargetNet, list[int]]]:
        """Yield every architecture among N instances, with their indices."""
        for class_id in sorted(set(class_ids)):
            yield self.nets[class_id], [i for i, each in enumerate(class_ids) if each == class_id]

    def run(
        self,
        rows: Tensor,
        class_ids: Sequence[int],
        inputs: Tensor,
        run_net: Callable[[TargetNet, Tensor, Tensor], Tensor] = TargetNet.run,
    ) -> Tensor:
        """Return outputs (M, B, ...) of instances of several architectures, rows (M, P), on the same inputs (B, ...).

        `run_net` computes those of one architecture.
        """
        order: list[int] = []
        outputs = []
        for net, indices in self.groups(class_ids):
            order += indices
            own = rows if len(indices) == len(rows) else rows[index_on(rows.device, indices)]
            outputs.append(run_net(net, own, inputs))
        return torch.cat(outputs)[index_on(rows.device, sorted(range(len(order)), key=order.__getitem__))]
