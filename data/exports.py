"""One net in a file that other programs read: safetensors, a PyTorch state dict, ONNX."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from data.files import written_whole
from data.instance_files import save_instance
from models.errors import InputError

FORMATS = (".safetensors", ".pt", ".onnx")


def save_net(net: nn.Module, path: Path, example: Tensor, facts: dict[str, Any]) -> None:
    """Writes the net in the format of the path's suffix. Raises InputError for another one.

    `.safetensors` and `.pt` hold the state dict under the net's own names, the former `facts` too. `.onnx` holds the net on
    float32 batches of any size, like `example` (B, ...), and `facts` as metadata.
    """
    if path.suffix == ".safetensors":
        save_instance(path, net.state_dict(), facts)
    elif path.suffix == ".pt":
        with written_whole(path) as partial:
            torch.save({name: value.detach().cpu().clone() for name, value in net.state_dict().items()}, partial)
    elif path.suffix == ".onnx":
        model = to_onnx(net, example)
        onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
        with written_whole(path) as partial:
            onnx.save(model, partial)
    else:
        raise InputError(f"{path}: a net is written as {', '.join(FORMATS)}; give one of these suffixes")


def to_onnx(net: nn.Module, example: Tensor) -> onnx.ModelProto:
    """Inputs are called `input`, outputs `output`; the first dimension is free. The exporter's own messages are left out."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                net.cpu().eval(),
                (example.cpu(),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["input"],
                output_names=["output"],
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None  # what the old exporter gives
    return program.model_proto
