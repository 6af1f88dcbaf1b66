"""ENERGY-ATTRIBUTION.md against the code: its worked numbers are computed here and stand on the page as they come."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import carbon_sched_runtime
from carbon_sched.domain.time import EPOCH
from carbon_sched.ports import GpuPower
from carbon_sched.service import gauge
from carbon_sched_runtime import accounts, counters, cpu_model, hwmon, nvml, rapl
from carbon_sched_runtime.attribution import (
    GPU_ALLOCATION,
    GPU_PIDS,
    GPU_RAYLET,
    GPU_SHARED,
    GPU_VISIBLE,
    MIG_SLICES,
    RULE_ERROR_PPM,
    WHOLE,
    GpuUse,
    Holding,
    Tenant,
    cpu_shares,
    gpu_shares,
    holders_of,
    mig_shares,
)
from carbon_sched_runtime.book import UNCERTAIN, OpenRow, error_ppm
from carbon_sched_runtime.counters import SECOND_NS, Meterable, Reading, advance, plausible_uj
from carbon_sched_runtime.window_meter import error_uj

PAGE = (Path(carbon_sched_runtime.__file__).parents[1] / "ENERGY-ATTRIBUTION.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
J = 1_000_000
GPU = Meterable("gpu:a", "gpu", "a GPU", "board", limit_mw=700_000, quantum_ns=nvml.QUANTUM_NS)


def joules(energy_uj: float) -> str:
    return f"{energy_uj / J:,.10g} J"


def told(shares, rule: str | None = None) -> str:
    """The owners and their joules, as the page writes them."""
    totals: dict[str, int] = {}
    for share in shares:
        totals[share.owner] = totals.get(share.owner, 0) + share.energy_uj
        assert rule in (None, share.rule)
    return ", ".join(f"{owner} {joules(energy)}" for owner, energy in totals.items() if energy)


def stands(text: str) -> bool:
    assert text in WORDS, text
    return True


# The worked numbers --------------------------------------------------------------------------------------------------


def test_the_cpu_model():
    one_second_ticks = 100
    reading = cpu_model.read(2, 2_060_000_000, round(2 * 2.06 * one_second_ticks), one_second_ticks)
    assert stands(f"2 x 0.64 x 2.06 + 2 x 2.90 x 2.06 = {reading.counter_uj / J:.1f} J")
    idle, busy = cpu_model.IDLE_MW_PER_THREAD / 1000, cpu_model.BUSY_MW_PER_THREAD / 1000
    assert stands(f"P = threads x {idle:.2f} W + busy threads x {busy:.2f} W")


def test_what_a_counter_is_believed():
    assert stands(f"limit 700 W, dt 1 s: at most 1.2 x 700 x 1.2 = {joules(plausible_uj(GPU, SECOND_NS))} are believed")


def test_a_rapl_counter_that_goes_round():
    package = Meterable("cpu:package-0", "cpu", "", "package", limit_mw=300_000, wrap_uj=262_143_328_850)
    before = advance(package, None, Reading(262_143_000_000), 0)
    after = advance(package, before.track, Reading(199_671_150), SECOND_NS)
    assert stands(
        f"readings 262,143.000000 J then 199.671150 J: 0.328850 + 199.671150 = {joules(after.step.energy_uj)}"
    )


def test_two_jobs_on_one_cpu():
    tenants = [Tenant("A", WHOLE, cpus=2 * WHOLE), Tenant("B", WHOLE, cpus=1 * WHOLE)]
    shares = cpu_shares(60 * J, 20 * J, 8 * WHOLE, tenants, {"A": 200, "B": 100}, busy=400)
    assert stands(f"{told(shares)}; together 60 J")


def test_an_attempt_that_came_half_way():
    shares = cpu_shares(20 * J, 20 * J, 8 * WHOLE, [Tenant("A", WHOLE // 2, cpus=4 * WHOLE)], {}, busy=0)
    assert stands(f"A with 4 CPUs came half way, 20 x 4/8 x 1/2: {told(shares)}.")


def test_one_user_of_a_gpu_pays_for_all_of_it():
    shares = gpu_shares(300 * J, 70 * J, GpuUse({"A": WHOLE}, {}), {})
    assert stands(f"Worked, 300 J, baseline 70 J, A on it: {told(shares, GPU_PIDS)}.")


def test_two_users_of_one_gpu():
    use = GpuUse({"A": WHOLE, "B": WHOLE}, {"A": 60, "B": 20})
    holders = {("A", GPU_VISIBLE): Holding(500_000), ("B", GPU_VISIBLE): Holding(500_000)}
    shares = gpu_shares(310 * J, 70 * J, use, holders)
    assert stands(f"utilisation 60 and 20, A 35 + 180, B 35 + 60: {told(shares, GPU_SHARED)}.")


def test_what_the_raylet_gave_is_held_and_nothing_else():
    uses = {"gpu:a": GpuUse({}, {}), "gpu:b": GpuUse({}, {})}
    tenants = [Tenant("A", WHOLE, gpus=500_000, held={"gpu:b": 500_000})]
    held = holders_of(uses, tenants, uses)
    assert held == {"gpu:a": {}, "gpu:b": {("A", GPU_RAYLET): Holding(500_000)}}
    shares = gpu_shares(70 * J, 70 * J, uses["gpu:b"], held["gpu:b"])
    assert stands(f"it gave A half of one GPU, and A's workers use none; 70 J: {told(shares, GPU_RAYLET)}.")


def test_a_gpu_that_its_entrypoint_may_see_is_held():
    uses = {"gpu:a": GpuUse({}, {}), "gpu:b": GpuUse({}, {})}
    held = holders_of(uses, [Tenant("A", WHOLE, gpus=WHOLE, visible=("gpu:b",))], uses)
    shares = [gpu_shares(70 * J, 70 * J, uses[gpu], held[gpu]) for gpu in uses]
    words = f"Worked: two GPUs of 70 J, A sees the second: {told(shares[0])}; {told(shares[1])}."
    assert {share.rule for share in shares[1] if share.energy_uj} == {GPU_VISIBLE}
    assert stands(words)


def test_the_time_around_its_use_is_paid_by_who_holds_the_gpu():
    use = GpuUse({"A": 500_000}, {})
    held = holders_of(["gpu:a"], [Tenant("A", 800_000, gpus=WHOLE)], {"gpu:a": use})
    shares = gpu_shares(300 * J, 70 * J, use, held["gpu:a"])
    assert stands(f"150 J of use, and 0.3 s of the 0.5 s before, 90 J: {told(shares, GPU_PIDS)}.")


def test_allocation_when_nothing_says_which_gpu():
    uses = {f"gpu:{n}": GpuUse({}, {}) for n in "abcd"}
    held = holders_of(uses, [Tenant("A", WHOLE, gpus=2 * WHOLE)], uses)
    for gpu, use in uses.items():
        shares = gpu_shares(70 * J, 70 * J, use, held[gpu])
        assert stands(f"A was allocated 2 of 4 free GPUs, 70 J each; of each: {told(shares, GPU_ALLOCATION)}.")


def test_slices_of_a_mig_gpu():
    slices = [(3 * WHOLE // 7, ["A"]), (2 * WHOLE // 7, ["A", "B"]), (1 * WHOLE // 7, [])]
    shares = [
        type(share)(share.owner, share.rule, round(share.energy_uj, -3)) for share in mig_shares(280 * J, slices)
    ]  # a slice is known to a millionth of the board
    assert stands(f"A 120 + 40, B 40, idle 40 + 40: {told(shares, MIG_SLICES)}.")


def test_the_error_of_a_window():
    own, step = error_uj(GPU, "integrated", 3000 * J), error_uj(GPU, "counter", 0)
    assert error_uj(GPU, "counter", 3000 * J) == own + step
    assert stands(f"10 s at 300 W on a board of 700 W: 3,000 J, +/- {joules(own)} + 700 W x 0.1 s = {joules(step)}.")


def test_rays_own_gauge():
    at = [EPOCH + timedelta(seconds=10 * n) for n in range(3)]
    drawn = gauge.Series(GpuPower("n", "u", 100_000, {}), at[0], at[0], 100_000)
    sums = [drawn.look(now, 300_000) or drawn.energy_uj for now in at[1:]]
    first, second = sums[0], sums[1] - sums[0]
    words = f"{first / J:,.0f} + {second / J:,.0f} = {joules(sums[1])}"
    assert stands(f"100 W, 300 W and 300 W at 10 s intervals, the whole GPU held: {words}.")


# The tables and the constants ----------------------------------------------------------------------------------------


def test_every_rule_and_device_has_the_error_that_the_page_says():
    rows = re.findall(r"^\| ([^|]+) \| ([0-9,]+) \|", PAGE.partition("## 4. Error bars")[2], re.MULTILINE)
    page = {rule: int(ppm.replace(",", "")) for names, ppm in rows for rule in re.findall(r"`([a-z+-]+)`", names)}
    devices = {names: int(ppm.replace(",", "")) for names, ppm in rows if "`" not in names}
    assert page == {**RULE_ERROR_PPM, gauge.RULE: gauge.ERROR_PPM}
    assert devices == {
        "GPU": nvml.ERROR_PPM, "RAPL": rapl.ERROR_PPM, "hwmon (Grace)": hwmon.ERROR_PPM, "model": cpu_model.ERROR_PPM,
    }  # fmt: skip


def test_a_row_has_the_error_of_its_device_its_length_and_its_rule():
    row = OpenRow("gpu:a", 0, "counter", "A", GPU_SHARED, (), 0, 30 * SECOND_NS, 0)
    step = error_ppm(row, GPU) - GPU.error_ppm - RULE_ERROR_PPM[GPU_SHARED]
    assert stands(f"100 ms / length of the row | a 30 s row: {step:,}")
    row.flags = (UNCERTAIN,)
    assert stands(f"flag `uncertain-owner` | {error_ppm(row, GPU):,} in all")


def test_the_limits_of_belief_are_those_in_the_code():
    factor, slack = counters.PLAUSIBLE_FACTOR, counters.SLACK_NS / SECOND_NS
    assert stands(f"0 <= difference <= {factor:g} x limit x (dt + {slack:g} s)")
    stuck, watts = counters.STUCK_AFTER_NS // SECOND_NS, counters.STUCK_POWER_MW // 1000
    assert stands(f"no difference for {stuck} s while power is above {watts} W")
    assert stands(f"power must be integrated over more than {counters.BRIDGE_NS // SECOND_NS} s")
    assert stands(f"Nobody reads for more than {accounts.GAP_NS / SECOND_NS:g} s")
    assert stands(f"once the process is {accounts.SQUATTER_AFTER_NS // SECOND_NS} s old")


def test_every_kind_of_note_stands_on_the_page():
    kinds = {kind.removesuffix("-unknown") for kind in accounts.NOTE_TEXTS}
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in PAGE and f"`{kind}-unknown`" not in PAGE] == []
