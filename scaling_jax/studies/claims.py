"""Who makes which run: claims on a file system that several machines share.

A claim is a file NAME.N in the claims folder. It says host, process and start, and its time of change is
renewed every few seconds by the process that holds it. N counts how often the run was claimed: whoever finds
claim N without a living holder makes the run by claim N + 1, which the file system lets one process alone
create. Numbers only grow, so that nobody can take what another has just taken.

A holder is dead
- on the same machine, as soon as the kernel has released the file's lock, however it died;
- on another one, where locks are not to be trusted, once its file was not renewed for `stale` seconds.
A holder that finds a claim after its own has been taken for dead (it was stopped for so long) and ends.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError

STALE_SECONDS = 300.0
_FREE = b"free"


class Claims:
    """The claims of one process in a folder.

    Args:
        folder: shared by all who make the runs.
        stale: seconds without a sign after which a holder on another machine is taken for dead.
        on_loss: called with a claim's name where this process was taken for dead; ends the process.
        host: of this machine, and its boot, for tests.
    """

    def __init__(
        self,
        folder: Path,
        stale: float = STALE_SECONDS,
        on_loss: Callable[[str], None] | None = None,
        host: str | None = None,
    ):
        if stale <= 0:
            raise InputError(f"stale claims after {stale} seconds: above 0 is needed")
        self._folder, self._stale = Path(folder), stale
        self._on_loss = on_loss or _end
        self._host = host or this_host()
        self._held: dict[str, tuple[int, Any]] = {}
        self._seen: dict[str, int] = {}
        self._changing = threading.Lock()
        self._renewing: threading.Thread | None = None

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Holds a claim while the block runs; True where nobody living had it."""
        taken = self.take(name)
        try:
            yield taken
        finally:
            if taken:
                self.release(name)

    @contextlib.contextmanager
    def held_in_turn(self, name: str, say: Callable[[str], None]) -> Iterator[None]:
        """Holds a claim while the block runs, after those who had it before; says for whom it waits."""
        waiting = False
        while not self.take(name):
            if not waiting:
                waiting = True
                holder = self.holder(name)
                say(f"waiting for {holder.get('host', '?').split()[0]}, process {holder.get('pid', '?')}")
            time.sleep(0.5)
        try:
            yield
        finally:
            self.release(name)

    def take(self, name: str) -> bool:
        """Claims, if nobody living holds it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        last = self._last(name)
        if last and not self._is_free(self._path(name, last)):
            return False
        file = self._created(self._path(name, last + 1))
        if file is None:
            return False
        with self._changing:
            self._held[name] = (last + 1, file)
        self._start_renewing()
        return True

    def release(self, name: str) -> None:
        """Gives a claim back."""
        with self._changing:
            number, file = self._held.pop(name)
        with contextlib.suppress(OSError):
            self._path(name, number).write_bytes(_FREE)
        file.close()

    def renew(self) -> None:
        """Says that this process lives; done every few seconds in a thread."""
        with self._changing:
            held = list(self._held.items())
        for name, (number, file) in held:
            lost = self._path(name, number + 1).exists()
            with contextlib.suppress(OSError):
                os.utime(file.fileno())
            if lost and name in self._held:
                self._on_loss(name)

    def holder(self, name: str) -> dict[str, Any]:
        """{"host", "pid", "started"} of who has claimed it last; {} where nobody has."""
        last = self._last(name)
        return _read(self._path(name, last)) if last else {}

    def _path(self, name: str, number: int) -> Path:
        return self._folder / f"{name}.{number}"

    def _last(self, name: str) -> int:
        number = self._seen.get(name, 0)
        while self._path(name, number + 1).exists():
            number += 1
        self._seen[name] = number
        return number

    def _is_free(self, path: Path) -> bool:
        about = _read(path)
        if about.get("free"):
            return True
        if about.get("host") == self._host and about.get("locked"):
            return _unlocked(path)
        try:
            return self._now() - path.stat().st_mtime > self._stale
        except OSError:
            return False

    def _now(self) -> float:
        """The time by the clock of the file system, whatever those of the machines say."""
        with _temporary(self._folder) as (path, file):
            file.close()
            return path.stat().st_mtime

    def _created(self, path: Path) -> Any:
        """The open file of a claim that is ours now; None where somebody was faster.

        It is locked and whole before it has its name.
        """
        about = {
            "host": self._host,
            "pid": os.getpid(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "locked": True,
        }
        with _temporary(self._folder) as (temporary, file):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # no locks there: signs of life alone
                about["locked"] = False
            file.write(json.dumps(about).encode())
            file.flush()
            try:
                os.link(temporary, path)
            except FileExistsError:
                file.close()
                return None
            except OSError:  # no links there
                return _created_without_link(path, about, file)
            return file

    def _start_renewing(self) -> None:
        if self._renewing is None:
            self._renewing = threading.Thread(target=self._renew_for_ever, daemon=True)
            self._renewing.start()

    def _renew_for_ever(self) -> None:
        while True:
            time.sleep(min(self._stale / 10, 30.0))
            self.renew()


def this_host() -> str:
    """This machine since it was started, so that no other and no later one is taken for it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}".strip()


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, Any]]:
    """(path, open file) of a new file that loses this name at the end; who keeps the file closes it."""
    path = folder / f".{secrets.token_hex(8)}"
    file = open(path, "wb")
    try:
        yield path, file
    finally:
        path.unlink(missing_ok=True)


def _created_without_link(path: Path, about: dict[str, Any], file: Any) -> Any:
    file.close()
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return None
    made = os.fdopen(descriptor, "wb")
    made.write(json.dumps(about | {"locked": False}).encode())
    made.flush()
    return made


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        return {"free": True} if content == _FREE else json.loads(content)
    except (OSError, ValueError):  # just being written
        return {}


def _unlocked(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _end(name: str) -> None:
    """What becomes of a process that was taken for dead: another one makes its run by now."""
    print(
        f"claim {name} was taken over: this process gave no sign for too long, and ends",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
