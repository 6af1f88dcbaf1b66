"""The job wrapper: `python -m carbon_sched_runtime.run -- ENTRYPOINT` runs the entrypoint as Ray would, and meters it.

Everything before the job's start is kept small: only modules that are part of the interpreter are imported, the
metering begins afterwards in a thread. The exit code is the job's (128 + n for a signal, as a shell says it), or 75
when the wrapper refused to run it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the plain C module: `signal` would build enumerations first, 10 ms of every job's start
import os
import sys
import time

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from carbon_sched_runtime.attend import Attendance, Outcome

REFUSED = 75  # EX_TEMPFAIL
USAGE = 2
STOP_SIGNALS = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT)
RAYS_STOPS = (1, _signal.SIGTERM, 128 + _signal.SIGABRT)
"""What a Ray driver makes of SIGTERM, by where it comes upon it: an error of `ray.get`, `sys.exit`, or an abort."""
FINISH_S = 12.0
URGENT_FINISH_S = 5.0
LONGEST_LINGER_S = 300.0
RECORD_READ = 64 * 1024
PR_SET_PDEATHSIG = 1
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _./+:@%,=-")
BUILT_IN = ("echo", "printf", "test", "kill", "pwd", "cd", "umask", "ulimit", "command", "type", "read", "wait", "exec")
SINK_SETTINGS = ("CARBON_SCHED_PUSH", "CARBON_SCHED_PUSH_TOKEN", "CARBON_SCHED_STORE")


class Record:
    """The attempt's record file: one JSON line per event. A record that cannot be written never stops the job."""

    def __init__(self, folder: str, attempt: str, job: str) -> None:
        self._attempt, self._job = attempt, job
        self._file: int | None = None
        self.started_before = False
        path = f"{folder}/carbon-sched-{attempt}.record"
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags | os.O_CREAT, 0o644)
            self.started_before = b'"event":"started"' in os.read(self._file, RECORD_READ)
        except OSError as error:
            complain(f"cannot write {path}: {error.strerror}")

    def says(self, event: str) -> bool | None:
        """Whether the event stands in it; None where it cannot be read."""
        if self._file is None:
            return None
        try:
            return f'"event":"{event}"'.encode() in os.pread(self._file, RECORD_READ, 0)
        except OSError:
            return None

    def write(self, event: str, **fields: str | int | None) -> None:
        """Append one event, with the time it is written at."""
        known = {"attempt": self._attempt, "job": self._job or None, "t": time.time_ns() // 1000, **fields}
        parts = [f'"{name}":{_json(value)}' for name, value in known.items() if value is not None]
        line = f'{{"v":1,"event":"{event}",{",".join(parts)}}}\n'
        if self._file is None:
            return
        try:
            os.write(self._file, line.encode())
        except OSError as error:
            complain(f"cannot write the record: {error.strerror}")
            self._file = None

    def sync(self) -> None:
        """Have what was written survive the machine."""
        if self._file is not None:
            try:
                os.fsync(self._file)
            except OSError as error:
                complain(f"cannot sync the record: {error.strerror}")


class Wrapper:
    """One run of one entrypoint."""

    def __init__(self, entrypoint: str) -> None:
        env = os.environ
        self.entrypoint = entrypoint
        self.attempt = _identifier(env.get("CARBON_SCHED_ATTEMPT", ""))
        self.folder = journal_folder()
        self.record = Record(self.folder, self.attempt, _identifier(env.get("CARBON_SCHED_JOB", "")))
        self.stop_signal: int | None = None
        self.stopped_us: int | None = None
        self.attendance: Attendance | None = None

    def run(self) -> int:
        """Run the entrypoint to its end and return the exit code."""
        refusal = self._refusal()
        if refusal is not None:
            self.record.write("refused", reason=refusal, exit_code=REFUSED)
            self.record.sync()
            complain(f"not run: {refusal}")
            return REFUSED
        for number in STOP_SIGNALS:
            if _signal.getsignal(number) is not _signal.SIG_IGN:
                _signal.signal(number, self._on_signal)
        start_ns = _boot_clock_ns()
        self.record.write("started", pid=os.getpid(), boot=_boot_id())
        if self.stop_signal is not None:
            return self._ended(128 + self.stop_signal, self.stop_signal)
        try:
            child = spawn(self.entrypoint)
        except OSError as error:
            complain(f"cannot start a shell: {error.strerror}")
            return self._ended(126, None)
        self.record.write("spawned", child_pid=child)
        self._attend(start_ns)
        self.record.sync()
        _, status = os.waitpid(child, 0)
        end_ns = _boot_clock_ns()
        code = os.waitstatus_to_exitcode(status)
        return self._ended(code if code >= 0 else 128 - code, -code if code < 0 else None, end_ns)

    def _refusal(self) -> str | None:
        """Why the entrypoint may not run, or None. A fence that cannot be read is no leave to run."""
        if self.record.started_before:
            return "started-before: this attempt's record shows a start already"
        fence = os.environ.get("CARBON_SCHED_START_BY")
        if fence is None:
            return None
        try:
            left_s = float(fence) - time.time()
        except ValueError:
            return "fence: CARBON_SCHED_START_BY is not a time"
        # `not >=` so that "nan" refuses too.
        if not left_s >= 0:
            return f"fence: the attempt was to start {-left_s:.1f} s ago at the latest"
        return None

    def _attend(self, start_ns: int) -> None:
        try:
            # Here, not at the top: the job is running by now.
            from carbon_sched_runtime.attend import Attempt, Attendance  # noqa: PLC0415

            env = os.environ
            attempt = Attempt(
                id=self.attempt, folder=self.folder, cpus=env.get("CARBON_SCHED_CPUS"),
                gpus=env.get("CARBON_SCHED_GPUS"), visible=env.get("CUDA_VISIBLE_DEVICES"), start_ns=start_ns,
                sinks=sink_settings(env),
            )  # fmt: skip
            attendance = Attendance(attempt, self.record.write)
            attendance.start()
            self.attendance = attendance
        except Exception as error:  # noqa: BLE001 - metering must never harm the job, and its failure must be seen
            self.record.write("fault", reason=f"metering cannot start: {type(error).__name__}: {error}")
        if self.stop_signal is not None and self.attendance is not None:
            self.attendance.hurry()

    def _ended(self, code: int, number: int | None, end_ns: int | None = None) -> int:
        if self._fell(code):
            complain(f"exit code {code}, by the stop: told as a death by SIGTERM")
            code, number = 128 + _signal.SIGTERM, _signal.SIGTERM
        self.record.write("ended", exit_code=code, signal=number)
        self._saved(by_itself=number is None)
        if self.attendance is not None and end_ns is not None:
            limit_s = FINISH_S if self.stop_signal is None else URGENT_FINISH_S
            outcome: Outcome = self.attendance.finish(end_ns, limit_s)
            self.record.write(
                "closed", exit_code=code, segments=outcome.segments, reason=outcome.reason, journal=outcome.journal
            )
        self.record.sync()
        if self.stop_signal is not None:
            time.sleep(_linger_s())
        return code

    def _fell(self, code: int) -> bool:
        """Whether a job that may be suspended, and knows nothing of stops (Ray Train), ended by one."""
        suspended = self.stop_signal == _signal.SIGTERM and "CARBON_SCHED_RUN_NAME" in os.environ
        return suspended and code in RAYS_STOPS and self.record.says("listening") is False

    def _saved(self, *, by_itself: bool) -> None:
        """Say when a job that was stopped, and may be resumed, last saved its state.

        One that did not end `by_itself` saved nothing more from the stop on.
        """
        if self.stop_signal is None or "CARBON_SCHED_RUN_NAME" not in os.environ:
            return
        from carbon_sched_runtime import job, saved  # noqa: PLC0415 - only suspended jobs need them

        until_us = None if by_itself else self.stopped_us
        found = saved.newest_us(job.storage(), job.run_name(), until_us)
        if found is not None:
            self.record.write("saved", t=found)

    def _on_signal(self, number: int, _frame: object) -> None:
        """Ray signals wrapper and job together: nothing is passed on, the wrapper waits for the job."""
        if self.stop_signal is None:
            self.stop_signal, self.stopped_us = number, time.time_ns() // 1000
            self.record.write("stopping", signal=number)
        if self.attendance is not None:
            self.attendance.hurry()


def spawn(entrypoint: str) -> int:
    """Start the entrypoint as `subprocess.Popen(entrypoint, shell=True)` does in Ray's supervisor; returns its pid.

    Same shell, same process group and session (Ray kills the group), same standard streams, same environment. On Linux
    the shell dies with us: after kill -9 of the wrapper nobody would end the job, or know of it.
    """
    environment = dict(os.environb)
    if b"LC_CTYPE" in environment and not _came_with(b"LC_CTYPE"):
        del environment[b"LC_CTYPE"]  # this interpreter's own doing (PEP 538)
    wrapper = os.getpid()
    # A stop signal that comes between fork and exec is for the shell, not for our handler in the child.
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, STOP_SIGNALS)
    child = os.fork()
    if child == 0:
        _become_shell(entrypoint, environment, mask, wrapper)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    return child


def _become_shell(entrypoint: str, environment: dict[bytes, bytes], mask: set[int], wrapper: int) -> NoReturn:
    """The child's part: from here on it runs the shell, or ends as a shell that cannot be run (126)."""
    try:
        _die_with_parent(wrapper)
        for number in (*STOP_SIGNALS, _signal.SIGPIPE, _signal.SIGXFSZ):
            if number not in STOP_SIGNALS or _signal.getsignal(number) is not _signal.SIG_IGN:
                _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        os.execve("/bin/sh", [b"/bin/sh", b"-c", os.fsencode(_in_its_place(entrypoint))], environment)  # noqa: S606 - as Ray does it
    except BaseException as error:  # noqa: BLE001 - nothing may leave the child as a second wrapper
        complain(f"cannot start a shell: {error}")
    os._exit(126)


def _in_its_place(entrypoint: str) -> str:
    """For the shell: a program with plain or single-quoted words takes its place, and so is what ends with the wrapper.

    The shell would only wait for it. Every other line is left to the shell as it is.
    """
    unquoted = entrypoint.split("'")[::2]
    program, space, _ = unquoted[0].partition(" ")
    alone = entrypoint.count("'") % 2 == 0 and not any(set(part) - PLAIN for part in unquoted)
    if not alone or "=" in program or program in BUILT_IN or not (space or len(unquoted) == 1):
        return entrypoint
    folders = [""] if "/" in program else [f"{folder}/" for folder in os.environ.get("PATH", "").split(":")]
    there = program and any(os.access(f"{folder}{program}", os.X_OK) for folder in folders)
    return f"exec {entrypoint}" if there else entrypoint


def _die_with_parent(wrapper: int) -> None:
    """Have the kernel end this process with the wrapper, where it can (Linux); what it starts itself is not meant."""
    if not sys.platform.startswith("linux"):
        return
    # `ctypes` takes ten milliseconds of every job's start, what it is made of takes none.
    try:
        import _ctypes  # noqa: PLC0415
    except ImportError:  # a Python built without it: the job runs all the same
        return
    prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]  # None is the process itself
    _ctypes.call_function(prctl, (PR_SET_PDEATHSIG, _signal.SIGKILL))
    if os.getppid() != wrapper:  # it died before it was asked for
        os._exit(128 + _signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Run `[--] ENTRYPOINT...`; several words are quoted into one line for the shell, one is taken as it is."""
    shield_imports()
    words = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not words:
        complain("usage: python -m carbon_sched_runtime.run -- ENTRYPOINT")
        return USAGE
    if len(words) == 1:
        return Wrapper(words[0]).run()
    import shlex  # noqa: PLC0415 - not needed for what the server submits

    return Wrapper(shlex.join(words)).run()


def shield_imports() -> None:
    """Forget the folders of user code: a `queue.py` beside the job must not become part of the wrapper.

    Modules of this package are found through the package itself.
    """
    library = os.path.dirname(os.__file__)
    theirs = {os.path.abspath(path) for path in ["", *os.environ.get("PYTHONPATH", "").split(os.pathsep)]}
    sys.path[:] = [p for p in sys.path if p.startswith(library) or os.path.abspath(p) not in theirs]


def complain(text: str) -> None:
    """Say something in the job's log."""
    print(f"carbon-sched: {text}", file=sys.stderr, flush=True)


def sink_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What an environment says of where segments are delivered (`sinks.py`); empty where they are only pulled."""
    return {name: environment[name] for name in SINK_SETTINGS if environment.get(name)}


def journal_folder() -> str:
    """The folder of records and segments: given, or the logs of the Ray session this file was unpacked in."""
    given = os.environ.get("CARBON_SCHED_JOURNAL_DIR")
    if given:
        return given
    session, found, _ = os.path.abspath(__file__).rpartition("/runtime_resources/")
    if found:
        return f"{session}/logs"
    folder = f"/tmp/carbon-sched-journal-{os.geteuid()}"  # noqa: S108 - checked below
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        facts = os.lstat(folder)
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o170022 != 0o040000:
            complain(f"{folder} is not a folder of ours: the journal goes to the current folder")
            return os.getcwd()
    return folder


def _linger_s() -> float:
    """How long a stopped job's wrapper stays once all is written, for a server that ends the whole cluster then."""
    text = os.environ.get("CARBON_SCHED_LINGER_S", "")
    return min(float(text), LONGEST_LINGER_S) if text.isdigit() else 0.0


def _identifier(text: str) -> str:
    """An id as it may stand in file names and records; `unknown` for anything else."""
    plain = text.replace("-", "").replace("_", "").replace(".", "")
    good = plain.isascii() and plain.isalnum() and text[:1].isalnum() and len(text) <= 100
    return text if good and text not in ("idle", "unattributed") else "unknown"


def _json(value: str | int | None) -> str:
    """A value as JSON; text is cut to what needs no escapes, for `json` is not loaded."""
    if isinstance(value, int):
        return str(value)
    text = "".join(c if " " <= c <= "~" and c not in '"\\' else "'" for c in str(value))
    return f'"{text[:400]}"'


def _came_with(name: bytes) -> bool:
    """Whether a variable was in the environment that this process was started with."""
    try:
        with open("/proc/self/environ", "rb") as file:
            return any(entry.startswith(name + b"=") for entry in file.read().split(b"\0"))
    except OSError:
        return True


def _boot_id() -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read().decode().strip()
    except OSError:
        return None


def _boot_clock_ns() -> int:
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    # Not sys.exit: threads of the meter may still wait for the driver, and the job's end must not.
    os._exit(exit_code)
