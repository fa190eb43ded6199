"""Scalars of a run, for people (TensorBoard) and for programs (JSON lines)."""

import json
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from data.files import write_text


class ScalarLog:
    """`scalars.jsonl`, one object a line with its `step`, and TensorBoard events in the same folder.

    A resumed run drops what was written after its checkpoint, so both read as if it had never stopped.
    """

    def __init__(self, folder: Path, resumed_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "scalars.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= resumed_step]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            self.tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        self.tensorboard.close()
