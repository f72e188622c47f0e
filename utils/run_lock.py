"""One run a folder: ``run.lock`` names the process that writes there.

The file is made by a hard link, which only one process can make, on shared disks too, and never is half written. Its
owner renews its time while it lives. Clocks of machines differ, so others look whether that time changes.
"""

import json
import logging
import math
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from utils.distributed import broadcast, is_main, is_restarted
from utils.files import errors_naming, write_text
from utils.run_folder import launch_id

logger = logging.getLogger(__name__)

LOCK = "run.lock"
HEARTBEAT_S = 20  # between renewals
STALE_S = 180  # another machine's lock that is not renewed for so long is left behind
LONG_AGO_S = 3600  # more than clocks should differ: two looks are enough for such a lock
DYING_S = 5  # that a killed process may take to be gone
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Owner:
    """A process of some machine; what the lock file holds."""

    host: str = UNKNOWN
    pid: int = 0
    machine: str = UNKNOWN  # where process numbers have one meaning: a boot of a kernel, a container
    started: str = ""  # when the process did, as its kernel counts: a number that is used again is another process
    launch: str = ""
    since: str = UNKNOWN
    token: str = UNKNOWN

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is created; the main process does for all.

    Raises:
        OSError: on all processes: another run lives there, or the lock cannot be written.
    """
    lock, refusal = RunLock(folder), ""
    if is_main():
        try:
            lock.acquire()
        except OSError as error:
            refusal = str(error)
    if refusal := broadcast(refusal):
        raise OSError(refusal)
    try:
        yield
    finally:
        if is_main():
            lock.release()


class RunLock:
    """The lock of one run folder, held by this process between ``acquire`` and ``release``."""

    def __init__(self, folder: Path):
        self.path = folder / LOCK
        self.owner = _this_process()
        self._ended = threading.Event()
        self._heartbeat = threading.Thread(target=self._renew, name="run lock", daemon=True)
        self._created: list[Path] = []  # folders, to be removed where the run leaves them empty

    def acquire(self) -> None:
        """Take the lock, or take over one that was left behind.

        Raises:
            OSError: another run lives; nothing in the folder was touched.
        """
        folder = self.path.parent
        self._created = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"the run folder {folder} (data.output_path): cannot be made, {error.strerror}") from error
        while not self._try():
            time.sleep(0.05)
        self._heartbeat.start()

    def release(self) -> None:
        """Remove the lock, if it still is this process's."""
        self._ended.set()
        self._heartbeat.join(DYING_S)  # it may wait for a disk that is gone
        try:
            if _read(self.path) == self.owner:
                self.path.unlink()
            for folder in self._created:
                folder.rmdir()
        except OSError:  # not empty, or the disk is gone: the lock is stale once this process has ended
            pass

    def _try(self) -> bool:
        owner = _read(self.path)
        return self._create(self.path) if owner is None else self._take_over(self.path, owner)

    def _take_over(self, path: Path, owner: Owner) -> bool:
        """Put this process in the place of one that is gone; False: things have changed meanwhile.

        Of several that try at once the one that makes a file named by the lock's token goes on. It looks again, since
        all may have happened already; then nobody else can change the lock.
        """
        if _is_alive(owner, self.owner, path):
            raise OSError(
                f"{self.path.parent} is in use by another run: {owner}; wait for its end, stop it, or give this run "
                "another --log_time"
            )
        claim = self.path.with_name(f".{LOCK}.{owner.token}")
        other = _read(claim)
        is_mine = self._create(claim) if other is None else self._take_over(claim, other)
        if is_mine:
            is_mine = _read(path) == owner
            if is_mine:
                os.replace(self._write_part(), path)
                if path == self.path:
                    logger.warning("took over the lock of a run that is gone: %s", owner)
            claim.unlink(missing_ok=True)
        return is_mine

    def _create(self, path: Path) -> bool:
        """Make a lock file with this process as owner; False: there is one."""
        part = self._write_part()
        try:
            os.link(part, path)
        except FileExistsError:
            return part.stat().st_nlink == 2  # a server may do it, lose the answer, and be asked again
        except OSError:  # no links on this file system
            return _create_without_link(path, part.read_text())
        finally:
            part.unlink()
        return True

    def _write_part(self) -> Path:
        part = self.path.with_name(f".{LOCK}.{uuid.uuid4().hex}.part")
        with errors_naming(self.path):
            write_text(part, json.dumps(asdict(self.owner)))
        return part

    def _renew(self) -> None:
        """Set the lock's time now and then. What is wrong with the file is a warning: a run may be days old."""
        was_warned = False
        while not self._ended.wait(HEARTBEAT_S):
            try:
                owner = _read(self.path)
                if owner is None:
                    logger.warning("%s is gone; written again, so that no second run begins here", self.path)
                    self._create(self.path)
                elif owner not in (self.owner, Owner()):
                    self._give_way(owner)
                else:
                    os.utime(self.path)
            except OSError as error:
                if not was_warned:
                    logger.warning("the run's lock cannot be renewed (%s); the run goes on", error)
                was_warned = True

    def _give_way(self, owner: Owner) -> None:
        # As if killed: the folder is another's, so nothing is written there any more.
        sys.stderr.write(f"error: {self.path.parent} was taken over by another run: {owner}; this one ends\n")
        sys.stderr.flush()
        os._exit(2)


def _create_without_link(path: Path, text: str) -> bool:
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> Owner | None:
    """Who owns a lock file: nobody known, where it cannot be understood; None: there is no such file."""
    try:
        owner = Owner(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Owner()
    is_sound = all(isinstance(value, type(getattr(Owner(), name))) for name, value in asdict(owner).items())
    return owner if is_sound and 0 < owner.pid < 2**31 and owner.token.isalnum() else Owner()


def _is_alive(owner: Owner, own: Owner, path: Path) -> bool:
    """Whether the owner of the lock ``path`` lives."""
    if owner.machine == own.machine:
        deadline = time.monotonic() + DYING_S
        while _runs_here(owner):
            if time.monotonic() > deadline:
                return True
            time.sleep(0.1)
        return False
    if is_restarted() and owner.launch == own.launch not in ("", "none"):
        return False  # torchrun has ended all processes, of all machines, before it starts them anew
    return _is_renewed(owner, path)


def _is_renewed(owner: Owner, path: Path) -> bool:
    """Whether the lock of another machine's process changes while one looks on."""
    first = _changed_s(path)
    looks = 2 if time.time() - first > LONG_AGO_S else math.ceil(STALE_S / HEARTBEAT_S)
    logger.info("%s: looking whether another run lives (%s), for up to %d s", path, owner, looks * HEARTBEAT_S)
    for _ in range(looks):  # counted, since a file server that hangs stops both
        time.sleep(HEARTBEAT_S)
        if _changed_s(path) != first:
            return _read(path) == owner
    return False


def _changed_s(path: Path) -> float:
    try:
        with path.open() as file:  # opening asks a file server anew
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return 0.0


def _runs_here(owner: Owner) -> bool:
    """Whether the process with the owner's number on this machine is the owner, and not dead."""
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    state, started = _process(owner.pid)
    return state not in ("Z", "X") and started in ("", owner.started)


def _process(pid: int) -> tuple[str, str]:
    """State and start of a process, in clock ticks of its kernel; empty where the system does not tell."""
    try:
        # The name, in brackets, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def _this_process() -> Owner:
    try:
        machine = f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        machine = platform.node()
    return Owner(
        host=platform.node(),
        pid=os.getpid(),
        machine=machine,
        started=_process(os.getpid())[1],
        launch=launch_id(),
        since=datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        token=uuid.uuid4().hex,
    )
