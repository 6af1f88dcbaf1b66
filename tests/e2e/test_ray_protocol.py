"""One queue, three ways in: `ray job submit`, Ray's SDK and our command line, interleaved, on two real Ray heads.

One head is open, the other wants a token and stands behind a proxy that speaks TLS under an authority of its own. Jobs,
receipts and the ledger are in PostgreSQL.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.fakes.certificates import authority_and_server
from tests.fakes.ray_cluster import RealRayHead
from tests.fakes.real_server import RealServer, eventually
from tests.fakes.tls_proxy import TlsProxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROUNDS = 2
MODULE = "def greeting():\n    return 'from the uploaded folder'\n"


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """(an open head's address, one with a token behind TLS, its authority, the token's file)."""
    folder = tmp_path_factory.mktemp("tls")
    ca_file, certificate, key = authority_and_server(folder)
    plain, guarded = RealRayHead(token=None), RealRayHead()
    for head in (plain, guarded):
        head.start()
    try:
        with TlsProxy(guarded.address, certificate, key) as proxy:
            yield plain.address, proxy.address, ca_file, guarded.token_file
    finally:
        for head in (plain, guarded):
            head.stop()


@pytest.fixture
def server(heads, postgres_url, tmp_path, monkeypatch):
    """Our server, started as commands start it, on PostgreSQL, with both heads as its clusters."""
    monkeypatch.setenv("CARBON_SCHED_MACHINE_DIR", str(tmp_path / "machine"))
    plain, guarded, ca_file, token_file = heads
    data = tmp_path / "data"
    data.mkdir()
    (data / "config.yaml").write_text(json.dumps({"database": postgres_url, "grid": {"providers": []}}))
    started = RealServer(data)
    client = started.up()
    client.put_cluster("north", {"address": plain, "zone": "NO", "pue": 1.1, "home": True})
    client.put_cluster(
        "south",
        {"address": guarded, "zone": "DE", "pue": 1.4, "token": f"file:{token_file}", "ca_file": str(ca_file)},
    )
    eventually(client.clusters, lambda views: all(not view["problem"] for view in views))
    yield started
    started.gone(started.signal(signal.SIGTERM))


def ray_job(server, *arguments: str, cwd) -> subprocess.CompletedProcess[str]:
    """Ray's own command, unmodified, told only where we are."""
    token = server.local.files.read_token()
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_ADDRESS": server.running().url}
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", *arguments]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def test_jobs_of_all_clients_finish_with_receipts(server, tmp_path):
    client, url = server.up(), server.running().url
    headers = {"Authorization": f"Bearer {server.local.files.read_token()}"}
    job_submission = pytest.importorskip("ray.job_submission", reason="Ray is not installed")
    sdk = job_submission.JobSubmissionClient(url, headers=headers)
    work = tmp_path / "work"
    work.mkdir()
    (work / "greetings.py").write_text(MODULE)
    (work / "job.py").write_text("import greetings\nprint(greetings.greeting())\n")
    expected = {}
    for number in range(ROUNDS):
        for cluster in ("north", "south"):
            name = f"sdk-{cluster}-{number}"
            hints = {"carbon-sched.cluster": cluster, "carbon-sched.phase": "evaluation"}
            environment = {"working_dir": str(work), "env_vars": {"WHO": name}}
            entrypoint = "python job.py && echo $WHO"
            sdk.submit_job(entrypoint=entrypoint, submission_id=name, metadata=hints, runtime_env=environment)
            expected[name] = cluster
            ours = server.cli(
                "submit", "--no-wait", "--json", "--cluster", cluster, "--", "python", "-c", "print('ours')", check=True
            )
            expected[json.loads(ours.stdout)["job_id"]] = cluster
    for cluster in ("north", "south"):
        name, hints = f"cli-{cluster}", json.dumps({"carbon-sched.cluster": cluster})
        done = ray_job(
            server, "submit", "--submission-id", name, "--metadata-json", hints, "--working-dir", ".",
            "--", "python", "job.py", cwd=work,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "from the uploaded folder" in done.stdout
        assert f"Job '{name}' succeeded" in done.stdout
        expected[name] = cluster
    failed = ray_job(server, "submit", "--submission-id", "fails", "--", "exit", "3", cwd=work)
    assert failed.returncode == 1
    assert ray_job(server, "status", "fails", cwd=work).stdout.count("failed") >= 1

    eventually(sdk.list_jobs, lambda jobs: all(job.status.is_terminal() for job in jobs))
    infos = {job.submission_id: job for job in sdk.list_jobs()}
    assert set(infos) == {*expected, "fails"}
    assert {name: infos[name].status.value for name in expected} == dict.fromkeys(expected, "SUCCEEDED")
    for job in client.jobs()["jobs"]:
        receipt = eventually(lambda job=job: client.receipt(job["job_id"]), lambda one: one["final"])
        assert receipt["energy_kwh"] > 0
        assert receipt["co2e_ug"] > 0
    assert all(job["cluster"] == expected.get(job["job_id"], job["cluster"]) for job in client.jobs()["jobs"])
    for name in (name for name in expected if name.startswith("sdk-")):
        assert "from the uploaded folder" in sdk.get_job_logs(name)
        assert sdk.get_job_logs(name).rstrip().endswith(name)
    assert client.verify()["ok"]
    by_cluster = [job["cluster"] for job in client.jobs()["jobs"] if job["state"] == "succeeded"]
    assert by_cluster.count("north") == by_cluster.count("south") == len(expected) // 2
