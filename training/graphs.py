"""CUDA graphs: on a GPU, a loss and its gradients are recorded once and replayed as one launch.

A step of NetSpace is several hundred kernels, and starting them one by one takes Python longer than a GPU needs to compute them.
"""

import contextlib
import functools
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import brief
from models.instances import TargetNets
from models.prep_autoencoder import PrepAutoencoder
from training.runtime import MixedPrecision

RECORDS = True  # whether graphs are recorded
# Numbers in a PRep from which on a step is compiled: on smaller ones, training takes no longer than compiling.
COMPILED_PREP = 2**15
WARM_UP = 3  # calls before a graph is recorded


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
    every conv while it is recorded, which takes seconds: for shapes that stay (docs/performance.md). If `compiled`,
    torch.compile joins its kernels first, which takes a minute.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        module: nn.Module | None = None,
        context: MixedPrecision | None = None,
        kept: Callable[[], Iterable[Tensor]] = tuple,
        tuned: bool = True,
        compiled: bool = False,
    ):
        self.function, self.module, self.context, self.kept = function, module, context, kept
        self.tuned, self.compiled = tuned, compiled
        self.graphs: dict[tuple[object, ...], Callable[..., Tensor]] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        if not RECORDS or not inputs[0].is_cuda:
            return self._run(*inputs)
        key = (torch.is_grad_enabled(), *((each.shape, each.dtype, each.requires_grad) for each in inputs))
        if key not in self.graphs:
            self.graphs[key] = self._record(inputs)
        return self.graphs[key](*inputs)

    def _run(self, *inputs: Tensor) -> Tensor:
        with self.context or contextlib.nullcontext():
            return self.function(*inputs)

    def _run_compiled(self, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        """Return `_run` with the function compiled, if it should be and can be; it is called once with these inputs."""
        if not self.compiled or not can_compile():
            return self._run
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")  # float32 was asked for
        function = torch.compile(self.function, fullgraph=True, dynamic=False)

        def run(*inputs: Tensor) -> Tensor:
            with self.context or contextlib.nullcontext():
                return function(*inputs)

        try:
            run(*inputs)
        except Exception as error:  # of a kind that depends on the compiler's part; the function itself may do without
            print(f"the training step cannot be compiled, and takes longer: {brief(' '.join(str(error).split()))}")
            return self._run
        return run

    def _record(self, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        before = [each.clone() for each in self.kept()]
        # The graph reads its inputs from these copies, which every call fills.
        copies = tuple(each.detach().clone().requires_grad_(each.requires_grad) for each in inputs)
        # Gradients of a replay come from the stream that it was recorded on; autograd waits for it, and would warn of it.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        cudnn = torch.backends.cudnn
        tuned, cudnn.benchmark = cudnn.benchmark, self.tuned
        try:
            run = self._run_compiled(copies)
            if torch.is_grad_enabled():
                module = _Module(run, self.module)
                graphed = torch.cuda.make_graphed_callables(module, copies, allow_unused_input=True)
            else:
                graphed = _record_forward(run, copies)
        finally:
            cudnn.benchmark = tuned
        for each, value in zip(self.kept(), before):
            each.copy_(value)
        return graphed


def _record_forward(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """Return the function without gradients, as the replay of a graph that reads from `inputs`."""
    graph, stream, current = torch.cuda.CUDAGraph(), torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            function(*inputs)
    current.wait_stream(stream)
    with torch.cuda.graph(graph):
        out = function(*inputs)

    def replay(*given: Tensor) -> Tensor:
        for mine, each in zip(inputs, given):
            mine.copy_(each)
        graph.replay()
        return out

    return replay


def read_later(values: Tensor) -> Callable[[], list[Any]]:
    """Begin to read values back from the device. Return what waits for them, but not for what the device is given since."""
    if not RECORDS or not values.is_cuda:
        return values.tolist
    copy, arrived = values.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record()

    def read() -> list[Any]:
        arrived.synchronize()
        return copy.tolist()

    return read


@functools.cache
def can_compile() -> bool:
    """Return whether torch.compile can make kernels for a GPU, and say what it lacks if not."""
    lacking = [] if importlib.util.find_spec("triton") else ["Triton"]
    if not any(map(shutil.which, filter(None, [os.environ.get("CC"), "gcc", "clang"]))):
        lacking.append("a C compiler")
    if lacking:
        print(f"without {' and '.join(lacking)}, steps are not compiled, and take longer")
    elif os.environ.get("TORCH_COMPILE_DISABLE") != "1":
        print("compiling the training step, which takes about a minute (TORCH_COMPILE_DISABLE=1: not)", flush=True)
    return not lacking


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
