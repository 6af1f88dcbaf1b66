"""systemd's side of things: the server as a service of the user, which outlives the last log-out; light to import.

A unit of the user manager runs the server of one data folder. Commands that find no server start that unit instead of a
process of their own, so that a server that was ended, updated or killed comes back under systemd.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import Conflict, InvalidInput, NotAllowed

if TYPE_CHECKING:
    from collections.abc import Sequence

UNIT = "carbon-sched.service"
START = ("systemctl", "--user", "start", UNIT)
SAFE = re.compile(r"[\w@+=:,./-]+", flags=re.ASCII)
ELSEWISE = (
    "A server that a command starts lives until the machine is switched off, or until log-out where logind kills a "
    "user's processes; to keep one otherwise, run `carbon-sched serve` as your system runs services"
)


def command_line(words: Sequence[str]) -> str:
    """Words as `ExecStart=` reads them: quoted, and nothing in them expanded (systemd.service(5), "Command lines")."""
    return " ".join(_quoted(word).replace("$", "$$") for word in words)


def unit_text(data_dir: Path, log: Path) -> str:
    """The unit of the server of `data_dir`, run by this Python, printing to `log`.

    Ray heads that the server starts are the unit's processes too, but not its business: they outlive the server.
    """
    command = [sys.executable, "-m", "carbon_sched.cli.main", "serve", "--data-dir", str(data_dir)]
    return f"""[Unit]
Description=carbon-sched: runs Ray jobs where and when they emit least

[Service]
Type=notify
ExecStart={command_line(command)}
WorkingDirectory={_plain(data_dir)}
Environment={_quoted("PATH=" + os.environ.get("PATH", os.defpath))}
StandardOutput=append:{_plain(log)}
KillMode=process
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=120 121 122
TimeoutStartSec=120
TimeoutStopSec=60

[Install]
WantedBy=default.target
"""


def unit_file() -> Path:
    """Where the user manager looks for the units of this user."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user" / UNIT


def runs_server_of(data_dir: Path) -> bool:
    """Whether the unit is installed, and for this data folder."""
    try:
        return f"\nWorkingDirectory={_plain(data_dir)}\n" in unit_file().read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def install(data_dir: Path, log: Path) -> None:
    """Write the unit and have it start with the machine; it is not started yet.

    Raises InvalidInput where no user manager answers, Conflict where the unit serves another data folder.
    """
    systemctl("show", "--property=Version")
    file = unit_file()
    if file.exists() and not runs_server_of(data_dir):
        raise Conflict(f"{file} runs the server of another data folder; first: carbon-sched server uninstall")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(unit_text(data_dir, log), encoding="utf-8")
    except OSError as error:
        remedy = "Make it writable, or put what `carbon-sched server install --print` prints where you want it"
        raise InvalidInput("unit", file, f"cannot be written ({error.strerror})", remedy) from None
    systemctl("daemon-reload")
    systemctl("enable", "--quiet", UNIT)


def uninstall() -> None:
    """End what the unit runs and forget the unit; InvalidInput where no user manager answers."""
    systemctl("disable", "--quiet", "--now", UNIT)
    unit_file().unlink(missing_ok=True)
    systemctl("daemon-reload")


def linger() -> None:
    """Have the user manager start with the machine and outlive the last session; NotAllowed with the remedy."""
    try:
        done = subprocess.run(["loginctl", "enable-linger"], capture_output=True, text=True, check=False)
        problem = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        problem = f"loginctl: {error.strerror}"
    if problem:
        raise NotAllowed(
            f"the server is installed and runs, but would end with your last session ({problem}). "
            'Have an administrator run: loginctl enable-linger "$USER"'
        )


def systemctl(*words: str) -> None:
    """Tell the user manager something; InvalidInput with what to do where there is none, or it refuses."""
    if shutil.which("systemctl") is None:
        raise InvalidInput("systemd", "systemctl", "is not on this machine", ELSEWISE)
    done = subprocess.run(
        ["systemctl", "--user", *words], capture_output=True, text=True, check=False, env=environment()
    )
    if done.returncode:
        problem = f"failed ({done.stderr.strip() or f'exit code {done.returncode}'})"
        raise InvalidInput("systemd", f"systemctl --user {' '.join(words)}", problem, ELSEWISE)


def environment() -> dict[str, str]:
    """Ours, with the user manager's place where a shell lacks it (`su`, cron); it is there for whoever lingers."""
    place = f"/run/user/{os.getuid()}"
    found = {"XDG_RUNTIME_DIR": place} if Path(place).is_dir() else {}
    return {**found, **os.environ}


def notify_ready() -> None:
    """Tell systemd, if it started this process, that it is ready (sd_notify(3))."""
    address = os.environ.pop("NOTIFY_SOCKET", "")  # whatever we start must not speak for us
    if address:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as notify:
            notify.sendto(b"READY=1", address.replace("@", "\0", 1) if address.startswith("@") else address)


def _quoted(word: str) -> str:
    if SAFE.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_plain(escaped)}"'


def _plain(value: Path | str) -> str:
    """Text in which systemd finds no specifier."""
    return str(value).replace("%", "%%")
