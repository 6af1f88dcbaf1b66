"""Rules against jobs: the effective policy of 10,000 queued jobs under 200 rules, and the refusal of hostile files.

    make bench-policy      (or: python -m tests.bench.bench_policy --jobs 10000 --rules 200)

Goals (issue "Policies"): at most 0.2 s for all jobs; any bad file refused within a second and 64 MiB. Jobs differ in
team, project, phase, size and labels, so that few share their settings.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from carbon_sched.domain.errors import InvalidFile
from carbon_sched.domain.job import Bundle, JobSpec, Phase, Resources
from carbon_sched.policy.load import load_policy, parse_policy
from carbon_sched.policy.matching import Selected
from carbon_sched.policy.presets import preset
from carbon_sched.service.policies import PolicySet

GOAL_S, REFUSAL_S, REFUSAL_MIB = 0.2, 1.0, 64
PHASES = [phase.value for phase in Phase]


def main() -> int:
    """Print the figures; 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rules", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    slowest, largest = refusals()
    print(f"{options.jobs} jobs that follow a shipped preset: {unnamed(options):.3f} s (goal {GOAL_S})")
    rounds = [resolve(options) for _ in range(options.rounds)]
    median, compared = (statistics.median(took) for took in zip(*rounds, strict=True))
    print(f"{options.jobs} jobs under {options.rules} rules: {median:.3f} s (median of {len(rounds)}; goal {GOAL_S})")
    print(f"  asking each rule about each job, before any value is looked at: {compared / median:.1f} times as long")
    print(
        f"hostile files: refused in {slowest:.3f} s at worst (goal {REFUSAL_S}), {largest:.0f} MiB (goal {REFUSAL_MIB})"
    )
    return int(median > GOAL_S or slowest > REFUSAL_S or largest > REFUSAL_MIB)


def resolve(options: argparse.Namespace) -> tuple[float, float]:
    """Seconds for every job's settings, nothing remembered from before; and for comparing each job with each rule."""
    draw = random.Random(1)
    policy = parse_policy(rules(options.rules, draw).encode(), "bench.yaml", preset)
    known = PolicySet(1, {policy.name: policy}, preset, {"*": policy.name})
    jobs = [job(draw, number) for number in range(options.jobs)]
    begun = time.perf_counter()
    for spec in jobs:
        known.followed(spec).settings(Selected.of(spec))
    resolved = time.perf_counter() - begun
    selectors = [layer.selector for level in policy.levels for layer in level.layers]
    begun = time.perf_counter()
    for selected in map(Selected.of, jobs):
        for selector in selectors:
            selector.matches(selected)
    return resolved, time.perf_counter() - begun


def unnamed(options: argparse.Namespace) -> float:
    """Seconds for the settings of jobs where nothing was applied."""
    known, draw = PolicySet(0, {}, preset, {}), random.Random(1)
    jobs = [job(draw, number) for number in range(options.jobs)]
    begun = time.perf_counter()
    for spec in jobs:
        known.settings(spec)
    return time.perf_counter() - begun


def rules(count: int, draw: random.Random) -> str:
    """A policy with rules of every form."""
    forms = [
        lambda: f"{{team: team-{draw.randrange(50)}}}",
        lambda: f"{{project: [p{draw.randrange(100)}, p{draw.randrange(100)}], gpus_at_least: {draw.randrange(8)}}}",
        lambda: f"{{phase: {draw.choice(PHASES)}, labels: {{tier: t{draw.randrange(5)}}}}}",
        lambda: f"{{labels: {{urgency: u{draw.randrange(20)}}}}}",
    ]
    head = "apiVersion: carbon-sched/v1\nname: bench\nextends: balanced\nrules:\n"
    values = "{{minimum_gain: {gain:.3f}, queue: {{share: {share}}}}}"
    lines = [
        f"- when: {forms[n % len(forms)]()}\n  set: {values.format(gain=draw.random(), share=n + 1)}\n"
        for n in range(count)
    ]
    return head + "".join(lines)


def job(draw: random.Random, number: int) -> JobSpec:
    """A job of one of 50 teams, 100 projects and all phases, with labels."""
    return JobSpec(
        "python job.py",
        f"job-{number}",
        team=f"team-{draw.randrange(50)}",
        project=f"p{draw.randrange(100)}",
        phase=Phase(draw.choice(PHASES)),
        metadata={"tier": f"t{draw.randrange(5)}", "urgency": f"u{draw.randrange(40)}", "note": str(number)},
        resources=Resources(bundles=(Bundle(gpus=draw.choice([0, 1, 2, 4, 8])),)),
    )


def refusals() -> tuple[float, float]:
    """Seconds of the slowest refusal, and MiB that the process grew by at most."""
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 40))
    hostile = {
        "a billion laughs": f"l0: &l0 ha\n{levels}".encode(),
        "50 MB": b"# " + b"x" * 50_000_000,
        "deep": b"a: " + b"[" * 60_000,
        "many keys": b"apiVersion: carbon-sched/v1\nname: a\n" + b"".join(b"k%d: 1\n" % n for n in range(6_000)),
    }
    before, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
    with TemporaryDirectory() as folder:
        path = Path(folder, "policy.yaml")
        for name, content in hostile.items():
            path.write_bytes(content)
            begun = time.perf_counter()
            try:
                load_policy(path, preset)
            except InvalidFile:
                print(f"  {name}: refused after {time.perf_counter() - begun:.3f} s")
                slowest = max(slowest, time.perf_counter() - begun)
            else:
                raise SystemExit(f"{name} was accepted")
    return slowest, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


if __name__ == "__main__":
    sys.exit(main())
