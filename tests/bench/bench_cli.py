"""What our command line costs beside `ray job`: CPU of --help and of a submission, and time to a job's first line.

    make bench-cli            (or: python tests/bench/bench_cli.py --rounds 9)

Both sides run in turn in one go against the same local Ray head, so that a slow moment of the machine meets both. CPU
is user + system time of the finished process and its children, as the operating system counts it; for our submission
the server's CPU from the request until the job is at Ray is added. Bounds come from the issue "a placed, metered,
accounted Ray job": help within a quarter, submit within a third, first line at most 1.5 s later.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLI = [sys.executable, "-m", "carbon_sched.cli.main"]
RAY = [str(Path(sys.executable).with_name("ray"))]
TICKS = os.sysconf("SC_CLK_TCK")
HELLO = "print('hello', flush=True)"


class Bench:
    """A server of our own with one local cluster, and that cluster's address and token for Ray's own client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "CARBON_SCHED_DATA_DIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}

    def warm_up(self) -> None:
        """Start server and head, and run one job, so that nothing lazy is left to be made."""
        folder = self.folder
        self.run([*CLI, "clusters", "add", "bench", "--local", "--zone", "DE", "--pue", "1.2"])
        script = folder / "hello.py"
        script.write_text(HELLO + "\n", encoding="utf-8")
        self.script = str(script)
        self.run([*CLI, "submit", self.script])
        cluster = json.loads(self.run([*CLI, "clusters", "list", "--json"]))[0]
        token = next(folder.glob("local-heads/bench/*token*"))
        self.ray_env = {
            **self.env,
            "RAY_ADDRESS": cluster["address"],
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
        }
        self.server = int(json.loads(self.run([*CLI, "server", "status", "--json"]))["pid"])

    def run(self, command: list[str], env: dict[str, str] | None = None) -> str:
        """Run to the end and return standard output; a failing command ends the benchmark."""
        done = subprocess.run(command, env=env or self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{command} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def cpu(self, command: list[str], env: dict[str, str] | None = None) -> float:
        """CPU seconds of a command and its children."""
        with subprocess.Popen(
            command, env=env or self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{command} exited with {process.returncode}")
        return usage.ru_utime + usage.ru_stime

    def server_cpu(self) -> float:
        """CPU seconds of the server so far."""
        fields = Path(f"/proc/{self.server}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def submit_cpu(self) -> tuple[float, float]:
        """Client CPU and server CPU of one submission, up to the moment the job is at Ray."""
        before = self.server_cpu()
        client = self.cpu([*CLI, "submit", "--no-wait", self.script])
        while json.loads(self.run([*CLI, "status", "last", "--json"]))["state"] in ("queued", "dispatching"):
            time.sleep(0.05)
        return client, self.server_cpu() - before

    def first_line(self, command: list[str], env: dict[str, str] | None = None) -> float:
        """Seconds from starting the command until the job's `hello` is on standard output."""
        started = time.monotonic()
        with subprocess.Popen(
            command, env=env or self.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == "hello":
                    elapsed = time.monotonic() - started
                    process.stdout.read()
                    return elapsed
        sys.exit(f"{command} never printed the job's line")


def main() -> None:
    """Measure both sides in turn and print medians, ranges and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as folder:
        bench = Bench(Path(folder))
        try:
            bench.warm_up()
            rows = measure(bench, rounds)
        finally:
            bench.run([*CLI, "server", "stop", "--force"])
    print(f"{'':34}{'ours':>22}{'ray job':>22}{'ours / ray':>12}{'bound':>8}")
    for name, ours, ray, bound in rows:
        ratio = statistics.median(ours) / statistics.median(ray)
        print(f"{name:34}{_shown(ours):>22}{_shown(ray):>22}{ratio:>12.2f}{bound:>8}")


def measure(bench: Bench, rounds: int) -> list[tuple[str, list[float], list[float], str]]:
    """Alternate between the two sides; each row: name, our figures, Ray's figures, the bound."""
    job = [sys.executable, bench.script]
    ray_submit = [*RAY, "job", "submit", "--no-wait", "--", *job]
    help_ours, help_ray, client, whole, submit_ray, line_ours, line_ray = ([] for _ in range(7))
    for _ in range(rounds):
        help_ours.append(bench.cpu([*CLI, "--help"]))
        help_ray.append(bench.cpu([*RAY, "job", "--help"], bench.ray_env))
        ours, server = bench.submit_cpu()
        client.append(ours)
        whole.append(ours + server)
        submit_ray.append(bench.cpu(ray_submit, bench.ray_env))
        line_ours.append(bench.first_line([*CLI, "submit", bench.script]))
        line_ray.append(bench.first_line([*RAY, "job", "submit", "--", *job], bench.ray_env))
    extra = [ours - ray for ours, ray in zip(line_ours, line_ray, strict=True)]
    print(f"first line: ours minus ray, median {statistics.median(extra):+.2f} s (bound +1.50 s)\n")
    return [
        ("--help, CPU s", help_ours, help_ray, "0.25"),
        ("submit --no-wait, client CPU s", client, submit_ray, ""),
        ("submit --no-wait, + server CPU s", whole, submit_ray, "0.33"),
        ("submit to first line, wall s", line_ours, line_ray, ""),
    ]


def _shown(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()
