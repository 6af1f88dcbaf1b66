"""The meeting place of everything of ours on one machine: one reader by flock, claims of attempts, published segments.

A folder of the temporary directory, named after the boot id, that every user of the machine may use:

    reader.lock          whoever holds its flock meters the machine
    claims/ID.claim      one file per attempt, owned by the user who runs it
    claims/ID.NODE.held  the GPU slots that a raylet of this machine gave to the attempt (`allocation.py`)
    meters/UID/          the reader's own folder: checkpoint, wake pipe, segments it published

Nothing is written outside folders that the writing user owns, and nothing is read through a link: readers publish,
wrappers copy. Files of other users are read with their size capped and believed only in what concerns their owner.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carbon_sched_runtime.processes import PLACE
from carbon_sched_runtime.wire import IDLE, OWNER, SEGMENT_LIMIT, UNATTRIBUTED, WireError, parse_segment_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import TypeGuard  # for the type checker only; nothing is imported at run time

BASE = "/tmp"  # noqa: S108 - not TMPDIR: jobs with different ones must still meet; made safe in `_shared_folder`
CHECKPOINT_LIMIT = 8 * 1024 * 1024
CLAIM_LIMIT = 8 * 1024
SLOTS = 256
CLAIMS_READ = 1000
HELD_FOR_S = 60.0  # what a raylet gave is believed for so long after it was last heard
SEGMENTS_KEPT = 240


def boot_id() -> str:
    """The kernel's random id of this boot; OSError where there is none (not Linux)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def machine_id() -> str:
    """12 hexadecimal digits that stay the same over boots and do not reveal the machine's own id."""
    import _blake2  # noqa: PLC0415 - hashlib without OpenSSL, which takes longer to load than all the rest

    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            own = file.read().strip()
    except OSError:
        own = ""
    seed = own or os.uname().nodename
    return str(_blake2.blake2b(seed.encode(), digest_size=6, person=b"carbon-sched").hexdigest())


def boot_clock_ns() -> int:
    """Nanoseconds since boot, time asleep included: the same clock for every process of the machine."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def utc_us() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000


class UnsafeFolderError(OSError):
    """A folder of ours belongs to somebody else, is a link, or lets others change what is in it."""


@dataclass(frozen=True)
class Claim:
    """An attempt's word to the reader: who it is, what it was allocated, when it came and went (boot clock).

    `cpus` and `gpus` are in millionths. `visible` is the entrypoint's CUDA_VISIBLE_DEVICES as written. `pid` is the
    wrapper, `started_ticks` its start in clock ticks since boot, so that another process of that number is not taken
    for it.
    """

    attempt: str
    pid: int
    started_ticks: int
    uid: int
    start_ns: int
    end_ns: int | None = None
    cpus: int = 0
    gpus: int = 0
    visible: str | None = None


@dataclass(frozen=True)
class Held:
    """The GPU slots that a raylet gave to an attempt, in millionths of a GPU.

    A slot is an index into the raylet's own CUDA_VISIBLE_DEVICES (`visible`, as written), or into all GPUs without one.
    """

    attempt: str
    visible: str | None
    slots: tuple[tuple[int, int], ...]


class Machine:
    """This machine's meeting place. Made on first use; `shared` is False when others cannot take part in it."""

    def __init__(self, root: str | None = None) -> None:
        self.uid = os.geteuid()
        self.boot = boot_id()
        self.machine = machine_id()
        self.shared = True
        self.root = root or os.environ.get(PLACE) or f"{BASE}/carbon-sched-{self.boot}"
        try:
            _shared_folder(self.root)
        except UnsafeFolderError:
            # Somebody took the name. Meter for this user alone, and say so, rather than trust their folder.
            self.shared = False
            self.root = f"{self.root}-{self.uid}"
            _shared_folder(self.root)
        _shared_folder(f"{self.root}/claims")
        _shared_folder(f"{self.root}/meters")
        self.own = f"{self.root}/meters/{self.uid}"
        _own_folder(self.own)
        _own_folder(f"{self.own}/segments")

    @property
    def owned(self) -> bool:
        """Whether the meeting place is this user's; its owner can rename what others put there."""
        return os.lstat(self.root).st_uid == self.uid

    # the reader's lock ---------------------------------------------------------------------------------------------

    def lock(self, *, wait: bool) -> int | None:
        """Take the reader's lock: a file descriptor to hold, or None when `wait` is False and another holds it."""
        descriptor = _open_shared_file(f"{self.root}/reader.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    # claims --------------------------------------------------------------------------------------------------------

    def write_claim(self, claim: Claim) -> None:
        """Write or replace one's own claim."""
        text = json.dumps({**claim.__dict__, "uid": None}, separators=(",", ":"))
        replace_file(f"{self.root}/claims/{claim.attempt}.claim", text.encode())

    def remove_claim(self, attempt: str) -> None:
        """Take back a claim; no matter if it is gone or another's."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.unlink(f"{self.root}/claims/{attempt}.claim")

    def claims(self) -> list[Claim]:
        """Every readable claim, in order of name; what is not a claim is passed over."""
        names = sorted(n for n in os.listdir(f"{self.root}/claims") if n.endswith(".claim"))[:CLAIMS_READ]
        found = (_read_claim(f"{self.root}/claims/{name}", name[: -len(".claim")]) for name in names)
        return [claim for claim in found if claim is not None]

    def write_held(self, held: Held, node: str) -> None:
        """Say what a raylet gave to an attempt; `node` is the raylet's node id."""
        text = json.dumps({"visible": held.visible, "slots": held.slots}, separators=(",", ":"))
        replace_file(f"{self.root}/claims/{held.attempt}.{node[:12]}.held", text.encode())

    def remove_held(self, attempt: str, node: str) -> None:
        """Take it back; no matter if it is gone or another's."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.unlink(f"{self.root}/claims/{attempt}.{node[:12]}.held")

    def held(self, now_s: float) -> list[Held]:
        """What raylets gave, as far as it was heard within a minute of `now_s` (Unix seconds)."""
        names = sorted(n for n in os.listdir(f"{self.root}/claims") if n.endswith(".held"))[:CLAIMS_READ]
        paths = [f"{self.root}/claims/{name}" for name in names]
        found = [_read_held(path) for path in paths if now_s - _modified(path) / 1e9 <= HELD_FOR_S]
        return [held for held in found if held is not None]

    # checkpoints ---------------------------------------------------------------------------------------------------

    def write_checkpoint(self, data: bytes) -> None:
        """Replace this user's checkpoint. Not synced: it concerns this boot only."""
        replace_file(f"{self.own}/checkpoint", data)

    def checkpoints(self) -> list[tuple[bytes, bool]]:
        """The checkpoints of every user who ever was the reader since boot, and whether each is one's own."""
        found = [
            (read_plain(f"{folder}/checkpoint", CHECKPOINT_LIMIT), folder == self.own) for folder in self._meters()
        ]
        return [(data, own) for data, own in found if data]

    # published segments --------------------------------------------------------------------------------------------

    def publish(self, name: str, data: bytes) -> None:
        """Put a segment where every wrapper of the machine finds it, and drop the oldest beyond 240."""
        replace_file(f"{self.own}/segments/{name}", data)
        names = sorted(os.listdir(f"{self.own}/segments"), key=lambda n: _modified(f"{self.own}/segments/{n}"))
        for old in names[:-SEGMENTS_KEPT]:
            os.unlink(f"{self.own}/segments/{old}")

    def has_published(self, name: str) -> bool:
        """Whether one's own folder has a segment of that name."""
        return os.path.lexists(f"{self.own}/segments/{name}")

    def published(self, newer_than_s: float) -> Iterator[tuple[str, str]]:
        """`(name, path)` of segments published after a moment (Unix seconds), by any user's reader."""
        for folder in self._meters():
            with contextlib.suppress(OSError), os.scandir(f"{folder}/segments") as entries:
                for entry in entries:
                    if _is_segment(entry.name) and entry.stat(follow_symlinks=False).st_mtime >= newer_than_s:
                        yield entry.name, entry.path

    # the wake pipe -------------------------------------------------------------------------------------------------

    def open_pipe(self) -> int:
        """The reading end of the pipe by which others wake the reader; anyone may write to it."""
        path = f"{self.own}/wake"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.mkfifo(path, 0o622)
        os.chmod(path, 0o622)  # noqa: S103 - mkfifo obeys the umask; a byte in the pipe only asks for a row
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)

    def wake_reader(self) -> bool:
        """Ask the reader for a row and a closed segment; False when no reader listens."""
        woken = False
        for folder in self._meters():
            with contextlib.suppress(OSError):
                pipe = os.open(f"{folder}/wake", os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if stat.S_ISFIFO(os.fstat(pipe).st_mode):
                        os.write(pipe, b"!")
                        woken = True
                finally:
                    os.close(pipe)
        return woken

    def _meters(self) -> list[str]:
        """Folders of readers, each owned by the user it is named after and by nobody else writable."""
        folders = []
        for name in sorted(os.listdir(f"{self.root}/meters")):
            path = f"{self.root}/meters/{name}"
            with contextlib.suppress(OSError, ValueError):
                _require_own(os.lstat(path), path, int(name))
                folders.append(path)
        return folders


def read_segment(path: str) -> bytes | None:
    """A published segment's bytes, capped; None when it is gone or no plain file."""
    return read_plain(path, SEGMENT_LIMIT)


def _is_segment(name: str) -> bool:
    try:
        parse_segment_name(name)
    except WireError:
        return False
    return True


def _read_claim(path: str, attempt: str) -> Claim | None:
    if not OWNER.fullmatch(attempt) or attempt in (IDLE, UNATTRIBUTED):
        return None
    data, uid = _read_json(path)
    return _claim(data, attempt, uid)


def _read_held(path: str) -> Held | None:
    attempt = os.path.basename(path).rpartition(".held")[0].rpartition(".")[0]
    data, _ = _read_json(path)
    if not OWNER.fullmatch(attempt) or not isinstance(data, dict) or not isinstance(data.get("slots"), list):
        return None
    visible, slots = data.get("visible"), data["slots"]
    if not isinstance(visible, (str, type(None))) or len(slots) > SLOTS:
        return None
    if not all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_amount, pair)) for pair in slots):
        return None
    return Held(attempt, visible, tuple((slot, part) for slot, part in slots))


def _read_json(path: str) -> tuple[Any, int]:
    """A small file of another user's as JSON, and that user; None for what is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None, 0
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > CLAIM_LIMIT:
            return None, 0
        return json.loads(os.read(descriptor, CLAIM_LIMIT)), facts.st_uid
    except (OSError, ValueError, RecursionError):
        return None, 0
    finally:
        os.close(descriptor)


def _claim(data: Any, attempt: str, uid: int) -> Claim | None:
    if not isinstance(data, dict) or data.get("attempt") != attempt:
        return None
    numbers = [data.get(key) for key in ("pid", "started_ticks", "start_ns", "cpus", "gpus", "end_ns")]
    end, visible = numbers.pop(), data.get("visible")
    checked = [number for number in numbers if _is_amount(number)]
    if len(checked) != len(numbers) or not (end is None or _is_amount(end)):
        return None
    if not isinstance(visible, (str, type(None))):
        return None
    pid, started, start, cpus, gpus = checked
    return Claim(attempt, pid, started, uid, start, end, cpus, gpus, visible)


def _is_amount(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**62


def _shared_folder(path: str) -> None:
    """Make or accept a folder in which everyone may create files and nobody may remove another's (like /tmp)."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    facts = os.lstat(path)
    if not stat.S_ISDIR(facts.st_mode):
        raise UnsafeFolderError(errno.EPERM, "not a folder", path)
    wanted = stat.S_ISVTX | 0o777
    if facts.st_uid == os.geteuid():
        if stat.S_IMODE(facts.st_mode) != wanted:
            os.chmod(path, wanted)
    elif stat.S_IMODE(facts.st_mode) & wanted != wanted:
        raise UnsafeFolderError(errno.EPERM, "another user's folder, without the sticky bit", path)


def _own_folder(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)
    facts = os.lstat(path)
    if facts.st_uid == os.geteuid() and stat.S_ISDIR(facts.st_mode) and stat.S_IMODE(facts.st_mode) != 0o755:
        os.chmod(path, 0o755)  # noqa: S103 - others read the segments in it
        facts = os.lstat(path)
    _require_own(facts, path, os.geteuid())


def _require_own(facts: os.stat_result, path: str, uid: int) -> None:
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != uid or facts.st_mode & 0o022:
        raise UnsafeFolderError(errno.EPERM, "not a folder that only its user may change", path)


def _open_shared_file(path: str) -> int:
    """Open a file that any user may have made. Created apart: the kernel refuses O_CREAT on others' files here."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644))
        return os.open(path, flags)


def replace_file(path: str, data: bytes, *, sync: bool = False) -> None:
    """Write a whole file under another name and move it into place, so that no one ever sees half of it.

    Others may read it, whatever the umask. With `sync` the content survives the machine.
    """
    folder, name = os.path.split(path)
    temporary = f"{folder}/.{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o644)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fchmod(descriptor, 0o644)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def read_plain(path: str, limit: int) -> bytes | None:
    """A plain file's bytes; None when it is gone, a link, something else, or larger than `limit`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = b""
        while len(data) <= limit and (chunk := os.read(descriptor, 1 << 20)):
            data += chunk
        return data if len(data) <= limit else None
    finally:
        os.close(descriptor)


def _modified(path: str) -> int:
    try:
        return os.lstat(path).st_mtime_ns
    except FileNotFoundError:
        return 0
