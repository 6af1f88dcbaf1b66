"""A real PostgreSQL server for the tests: one per test process, with a fresh database for each test.

Not a fake, but what the fakes are compared with. It lives in a temporary folder and listens on a Unix socket
there only, so it meets no other server.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SUPERUSER = "postgres"
START_TIMEOUT_S = 60


class PostgresServer:
    """A server in a folder of its own. It refuses to run as root, so root runs it as the user `postgres`."""

    def __init__(self, programs: Path, *, durable: bool = False) -> None:
        self.programs, self.durable = programs, durable
        self.folder = Path(tempfile.mkdtemp(prefix="cs-pg-"))  # short: a socket's path has at most 107 bytes
        self.numbers = itertools.count(1)

    def own(self, folder: Path) -> None:
        """Give it a folder."""
        if os.geteuid() == 0:
            account = pwd.getpwnam(SUPERUSER)
            os.chown(folder, account.pw_uid, account.pw_gid)

    def start(self) -> None:
        self.own(self.folder)
        data = self.folder / "data"
        self.run("initdb", "-D", data, "--username", SUPERUSER, "--encoding", "UTF8", "--auth=trust", "-N")
        self.resume()

    def resume(self) -> None:
        """Start it, for the first time or after `crash`."""
        # What is tested is our process dying, not the machine: only benchmarks make it survive a power cut.
        options = f"-k '{self.folder}' -c listen_addresses='' -c max_connections=200"
        options += "" if self.durable else " -c fsync=off"
        log = self.folder / "log"
        self.run("pg_ctl", "start", "-w", "-t", START_TIMEOUT_S, "-D", self.folder / "data", "-l", log, "-o", options)

    def pid(self) -> int:
        """Of the process that all others of it come from."""
        return int((self.folder / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])

    def standby(self) -> PostgresServer:
        """Another server that repeats all that this one does; from now on nothing is committed before it has it."""
        other = PostgresServer(self.programs, durable=self.durable)
        other.own(other.folder)
        data = other.folder / "data"
        other.run("pg_basebackup", "-h", self.folder, "-U", SUPERUSER, "-D", data, "-X", "stream", "-R", "-c", "fast")
        other.resume()
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.sql("SELECT pg_reload_conf()")
        return other

    def promote(self) -> None:
        """From a standby to a server that others write to."""
        self.run("pg_ctl", "promote", "-w", "-D", self.folder / "data")

    def crash(self) -> None:
        """End every process of it at once, as a fault would; what it had acknowledged is there when it comes back."""
        self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self.folder / "data")

    def stop(self) -> None:
        self.crash()
        shutil.rmtree(self.folder)

    def create_database(self, disk: Path | None = None, template: str = "template1") -> str:
        """Make a database like `template`, which is empty, on a disk of its own if one is given; return its name."""
        name, where = f"test_{next(self.numbers)}", f' TEMPLATE "{template}"'
        if disk is not None:
            self.own(disk)
            self.sql(f"CREATE TABLESPACE \"{name}\" LOCATION '{disk}'")
            where += f' TABLESPACE "{name}"'
        self.sql(f'CREATE DATABASE "{name}"{where}')
        return name

    def drop_database(self, name: str) -> None:
        self.sql(f'DROP DATABASE "{name}" WITH (FORCE)')

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{SUPERUSER}@/{database}?host={self.folder}"

    def sql(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(host=str(self.folder), user=SUPERUSER, dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)

    def run(self, program: str, *arguments: object) -> None:
        command = [str(self.programs / program), *map(str, arguments)]
        if os.geteuid() == 0:
            command = [
                "setpriv",
                f"--reuid={SUPERUSER}",
                f"--regid={SUPERUSER}",
                "--clear-groups",
                "--",
                *command,
            ]
        # To a file, not a pipe: the server inherits the handle and would hold a pipe open for ever.
        with (self.folder / f"{program}.out").open("w+") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder, check=False)
            output.seek(0)
            assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{output.read()}"


def programs() -> Path | None:
    """Return the folder of initdb and pg_ctl, the newest version's first; None where there is none."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    candidates = [*debian, *([Path(on_path).resolve().parent] if on_path else [])]
    return next((c for c in candidates if (c / "initdb").exists() and (c / "pg_ctl").exists()), None)


def why_not() -> str | None:
    """Return why no server can be started here, or None."""
    if programs() is None:
        return "PostgreSQL is not installed (.ci/provision postgresql)"
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            return "PostgreSQL does not run as root, and there is no setpriv to become another user"
        if SUPERUSER not in {account.pw_name for account in pwd.getpwall()}:
            return f"PostgreSQL does not run as root, and there is no user {SUPERUSER}"
    return None


@pytest.fixture(scope="session")
def postgres_server():
    reason = why_not()
    if reason:
        pytest.skip(reason)
    server = PostgresServer(programs())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer):
    """A SQLAlchemy URL of an empty database that only this test uses."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)
