"""One run at a time in a folder. The kernel lets a lock go with the process that held it, however that ended."""

import fcntl
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import TextIO

from models.errors import InputError

HELD: dict[Path, TextIO] = {}


def hold(folder: Path) -> None:
    """Makes this process the only one that may write into the folder, until it ends. `.lock` there says which it is.

    Raises InputError, naming the process that holds it. Machines see each other's locks where their file system has locks
    across machines, as NFS does; one without any locks does without.
    """
    path = folder.resolve() / ".lock"
    if path in HELD:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}); choose another folder") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise InputError(
            f"another run is writing into {folder} ({holder}); wait for it, end it, or choose another --runs-dir"
        ) from None
    except OSError:  # a file system without locks
        pass
    file.truncate(0)
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
    file.flush()
    HELD[path] = file
