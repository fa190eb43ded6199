"""CUDA graphs: on a GPU, a loss and its gradients are recorded once and replayed as one launch.

A step of NetSpace is several hundred kernels, and starting them one by one takes Python longer than a GPU needs to compute them.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from models.instances import TargetNets
from models.prep_autoencoder import PrepAutoencoder
from training.runtime import MixedPrecision

RECORDS = True  # whether graphs are recorded


@contextlib.contextmanager
def without_graphs() -> Iterator[None]:
    """Let functions be called on a GPU too within this context: to count, profile or debug what they do."""
    global RECORDS
    before, RECORDS = RECORDS, False
    try:
        yield
    finally:
        RECORDS = before


class Graphed:
    """A function of tensors that uses `module`'s parameters. On a GPU, it is replayed as a CUDA graph; elsewhere, it is called.

    A graph is recorded for every combination of shapes, so these should be few. The function must not read values back from
    the device, and must not draw random numbers. What it returns is overwritten by the next call with the same shapes:
    `backward` must be called before. `kept` returns tensors that the function updates in place, such as running statistics:
    recording runs the function several times, and leaves them as they were. Parameters must stay the same tensors.

    `context` is entered around the function (training.runtime.mixed_precision). If `tuned`, cuDNN times its algorithms for
    every conv while it is recorded, which takes seconds: for shapes that stay (docs/performance.md).
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        module: nn.Module | None = None,
        context: MixedPrecision | None = None,
        kept: Callable[[], Iterable[Tensor]] = tuple,
        tuned: bool = True,
    ):
        self.function, self.module, self.context, self.kept, self.tuned = function, module, context, kept, tuned
        self.graphs: dict[tuple[object, ...], Callable[..., Tensor]] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        if not RECORDS or not inputs[0].is_cuda or not torch.is_grad_enabled():
            return self._run(*inputs)
        key = tuple((each.shape, each.dtype, each.requires_grad) for each in inputs)
        if key not in self.graphs:
            self.graphs[key] = self._record(inputs)
        return self.graphs[key](*inputs)

    def _run(self, *inputs: Tensor) -> Tensor:
        if self.context is None:
            return self.function(*inputs)
        with self.context:
            return self.function(*inputs)

    def _record(self, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        before = [each.clone() for each in self.kept()]
        # The graph reads its inputs from these copies, which every call fills.
        copies = tuple(each.detach().clone().requires_grad_(each.requires_grad) for each in inputs)
        as_module = _Module(self._run, self.module)
        cudnn = torch.backends.cudnn
        tuned, cudnn.benchmark = cudnn.benchmark, self.tuned
        try:
            graphed = torch.cuda.make_graphed_callables(as_module, copies, allow_unused_input=True)
        finally:
            cudnn.benchmark = tuned
        for each, value in zip(self.kept(), before):
            each.copy_(value)
        return graphed


class _Module(nn.Module):
    """A function as a module, from which its parameters can be read."""

    def __init__(self, function: Callable[..., Tensor], module: nn.Module | None):
        super().__init__()
        self.function, self.module = function, module

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class Graphs:
    """The parts of NetSpace on several architectures, each replayed as CUDA graphs: what is between them differs by step."""

    def __init__(self, model: PrepAutoencoder, nets: TargetNets, precision: MixedPrecision):
        self.nets = nets
        self.encode = Graphed(model.encode, model.encoder, precision)
        self.decode = Graphed(model.decode, model.decoder, precision)
        self.classify = Graphed(model.classifier, model.classifier, precision)
        self.instances = {net.name: Graphed(net.run, None, precision, tuned=False) for net in self.nets}

    def run(self, rows: Tensor, class_ids: list[int], x: Tensor) -> Tensor:
        """Return logits (M, B, classes) of instances of several architectures."""
        return self.nets.run(rows, class_ids, x, lambda net, rows, x: self.instances[net.name](rows, x))
