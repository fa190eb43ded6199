"""TensorBoard's events of a run, written at once: its own writer has a thread, whose errors would reach nobody."""

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from data.files import appending
from models.errors import InputError


class EventFile:
    """A new file of events in `folder`. Events of `purge_step` and later in others there are no longer shown.

    Raise InputError, here and when writing, if it cannot be written.
    """

    def __init__(self, folder: Path, purge_step: int):
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        first = Event(wall_time=time.time(), file_version="brain.Event:2")
        again = Event(wall_time=time.time(), step=purge_step, session_log=SessionLog(status=SessionLog.START))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made ({error.strerror}); move away what is there") from None
        self._append(first, again)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Append the scalars of a step."""
        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in scalars.items()]
        self._append(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _append(self, *events: Event) -> None:
        with appending(self.path) as file:
            for event in events:
                RecordWriter(file).write(event.SerializeToString())
