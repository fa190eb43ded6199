"""Scalars of a run, for people (TensorBoard) and for programs (JSON lines)."""

import json
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from data.files import write_text


class ScalarLog:
    """`scalars.jsonl`, one object a line with its `step`, and TensorBoard events in the same folder.

    What is there of `before_step` and later, from a run that was stopped after its last checkpoint, is dropped: both
    read as if the run had never stopped.
    """

    def __init__(self, folder: Path, before_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "scalars.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] < before_step]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=before_step)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            self.tensorboard.add_scalar(name, value, step)
        self.tensorboard.flush()
