"""Scalars of a run, for people (TensorBoard) and for programs (JSON lines)."""

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from data.files import read_text, write_text
from models.errors import InputError


def read_scalars(path: Path) -> list[dict[str, Any]]:
    """The lines of `scalars.jsonl`, without one that was being written when the run was killed; none without the file.

    Raises InputError for lines that are no such scalars.
    """
    lines = read_text(path).splitlines() if path.is_file() else []
    if lines and not lines[-1].endswith("}"):
        lines.pop()
    try:
        found = [json.loads(line) for line in lines]
        assert all(isinstance(each["step"], int) for each in found)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise InputError(f"{path} holds lines that are no scalars of a run; move it away") from None
    return found


class ScalarLog:
    """`scalars.jsonl`, one object a line with its `step`, and TensorBoard events in the same folder.

    What is there of `before_step` and later, from a run that was stopped after its last checkpoint, is dropped: both
    read as if the run had never stopped.
    """

    def __init__(self, folder: Path, before_step: int):
        self.path = folder / "scalars.jsonl"
        kept = [scalars for scalars in read_scalars(self.path) if scalars["step"] < before_step]
        write_text(self.path, "".join(json.dumps(scalars) + "\n" for scalars in kept))
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=before_step)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            self.tensorboard.add_scalar(name, value, step)
        self.tensorboard.flush()
