"""The split: who owns the joules of one interval. Pure and conserving; specified in ENERGY-ATTRIBUTION.md.

Every function here divides a whole number of microjoules among owners so that the parts add up to the whole exactly
(largest remainder, ties by name). Weights are integers in any common unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from carbon_sched_runtime.wire import IDLE, UNATTRIBUTED

if TYPE_CHECKING:
    from collections.abc import Iterable

CPU_RULE = "cpu-allocation+time"
GPU_PIDS = "gpu-pids"
GPU_SHARED = "gpu-pids+utilisation"
GPU_EQUAL = "gpu-pids+equal"
GPU_RAYLET = "gpu-raylet"
GPU_VISIBLE = "gpu-visible-devices"
GPU_ALLOCATION = "gpu-allocation"
MIG_SLICES = "mig-slices"

WHOLE = 1_000_000  # one device, or one whole interval, in millionths

# How much of an owner's share may be wrong because of the rule alone (ppm). Stated bounds, see ENERGY-ATTRIBUTION.md.
RULE_ERROR_PPM = {
    CPU_RULE: 100_000,
    GPU_PIDS: 0,
    GPU_SHARED: 100_000,
    GPU_EQUAL: 300_000,
    GPU_RAYLET: 50_000,
    GPU_VISIBLE: 50_000,
    GPU_ALLOCATION: 300_000,
    MIG_SLICES: 300_000,
}


@dataclass(frozen=True)
class Share:
    """Part of an interval's energy: microjoules for one owner, by one rule."""

    owner: str
    rule: str
    energy_uj: int


@dataclass(frozen=True)
class Tenant:
    """An attempt as one interval sees it.

    `presence` is the part of the interval it was there, `cpus` and `gpus` what it was allocated, all in millionths.
    `visible` are the device ids its entrypoint was confined to (CUDA_VISIBLE_DEVICES), None when nothing says. `held`
    are the parts of devices (millionths) that the raylet gave to its workers, empty when the raylet was not heard.
    """

    attempt: str
    presence: int
    cpus: int = 0
    gpus: int = 0
    visible: tuple[str, ...] | None = None
    held: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GpuUse:
    """What one GPU's process list said over an interval.

    `users` maps owners (attempts, or `unattributed` for processes of nobody) to the part of the interval they were
    seen, in millionths; `utilisation` maps them to SM utilisation in any unit, empty when the driver does not tell.
    `known` is False when the list could not be read or joined to processes.
    """

    users: Mapping[str, int]
    utilisation: Mapping[str, int]
    known: bool = True


class Holding(NamedTuple):
    """How much of a device an attempt holds while it is there, and the part of the interval it is; in millionths."""

    part: int
    presence: int = WHOLE


Holders = Mapping[tuple[str, str], Holding]
"""Who holds a device: by attempt, and the rule by which that is known."""


def split(energy_uj: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Divide whole microjoules in proportion to the weights, by largest remainder; ties go to the smaller name.

    Keys with weight 0 get 0. ValueError when there is energy but no weight at all, or a weight is negative.
    """
    total = sum(weights.values())
    if any(weight < 0 for weight in weights.values()) or (total == 0 and energy_uj):
        raise ValueError("energy needs at least one positive weight and no negative one")
    if total == 0:
        return dict.fromkeys(weights, 0)
    parts = {key: energy_uj * weight // total for key, weight in weights.items()}
    rest = energy_uj - sum(parts.values())
    by_remainder = sorted(weights, key=lambda key: (-(energy_uj * weights[key] % total), key))
    for key in by_remainder[:rest]:
        parts[key] += 1
    return parts


def cpu_shares(
    energy_uj: int,
    baseline_uj: int,
    cpus: int,
    tenants: Iterable[Tenant],
    used: Mapping[str, int],
    busy: int,
) -> list[Share]:
    """Split a CPU or DRAM interval: the baseline by allocation, the rest by CPU time.

    Args:
        energy_uj: Energy of the interval.
        baseline_uj: What the device would have used at rest; at most `energy_uj` of it counts.
        cpus: Hardware threads of the machine, in millionths of one.
        tenants: The attempts of the interval.
        used: CPU time by attempt in the interval, in clock ticks.
        busy: Busy CPU time of the whole machine, same unit.
    """
    base = min(energy_uj, max(0, baseline_uj))
    allocated = {t.attempt: t.cpus * t.presence // WHOLE for t in tenants}
    allocated[IDLE] = max(0, cpus - sum(allocated.values()))
    if not any(allocated.values()):
        allocated[IDLE] = 1
    times = {owner: ticks for owner, ticks in used.items() if ticks > 0}
    times[UNATTRIBUTED] = max(0, busy - sum(times.values()))
    if not any(times.values()):
        times = {IDLE: 1}
    total: dict[str, int] = {}
    for part in (split(base, allocated), split(energy_uj - base, times)):
        for owner, microjoules in part.items():
            total[owner] = total.get(owner, 0) + microjoules
    return [Share(owner, CPU_RULE, microjoules) for owner, microjoules in sorted(total.items())]


def gpu_shares(energy_uj: int, baseline_uj: int, use: GpuUse, holders: Holders) -> list[Share]:
    """Split a GPU interval: who used it by its process list; the time nobody did, by who holds it; the rest idle.

    Args:
        energy_uj: Energy of the interval.
        baseline_uj: The device's energy at rest over the interval.
        use: What the process list said.
        holders: Who holds the device; see `holders_of`.
    """
    in_use = min(WHOLE, max(use.users.values(), default=0))
    parts = split(energy_uj, {"users": in_use, "rest": WHOLE - in_use})
    shares = _user_shares(parts["users"], baseline_uj * in_use // WHOLE, use, holders)
    weights = {holder: _rest_of(use.users.get(holder[0], 0), in_use, held) for holder, held in holders.items()}
    return _merge(shares + _holder_shares(parts["rest"], weights, GPU_PIDS if use.known else GPU_ALLOCATION))


def mig_shares(energy_uj: int, slices: Iterable[tuple[int, Iterable[str]]]) -> list[Share]:
    """Split a GPU in MIG mode, whose driver meters the board alone: by the size of the slices.

    `slices` are `(part of the board in millionths, owners)`. A slice's owners share it evenly; slices without owners
    and what no slice covers are idle.
    """
    known = [(part, sorted(owners)) for part, owners in slices]
    weights = {f"{number}": part for number, (part, _) in enumerate(known)}
    weights[IDLE] = max(0, WHOLE - sum(weights.values())) or (0 if any(weights.values()) else 1)
    parts = split(energy_uj, weights)
    shares = [Share(IDLE, MIG_SLICES, parts.pop(IDLE))]
    for number, (_, owners) in enumerate(known):
        by_owner = split(parts[f"{number}"], dict.fromkeys(owners or [IDLE], 1))
        shares += [Share(owner, MIG_SLICES, part) for owner, part in by_owner.items()]
    return _merge(shares)


def holders_of(
    devices: Iterable[str], tenants: Iterable[Tenant], uses: Mapping[str, GpuUse]
) -> dict[str, dict[tuple[str, str], Holding]]:
    """Say who holds how much of each GPU, by the best that is known of each attempt.

    What the raylet gave to its workers; CUDA_VISIBLE_DEVICES of its entrypoint, which names devices; the devices on
    which it is seen. What it was allocated beyond those is spread evenly over the devices that nobody uses or holds.
    """
    known = sorted(devices)
    held: dict[str, dict[tuple[str, str], Holding]] = {device: {} for device in known}
    present = sorted(tenants, key=lambda tenant: tenant.attempt)
    for tenant in present:
        for device, rule, part in _holdings(tenant, known, uses):
            held[device][(tenant.attempt, rule)] = Holding(part, tenant.presence)
    free = [d for d in known if not held[d] and not any(_use(uses, d).users.values())]
    for tenant in present:
        placed = sum(part for _, _, part in _holdings(tenant, known, uses))
        missing = tenant.gpus - placed
        if tenant.visible is None and missing > 0 and free:
            part = min(WHOLE, missing // len(free))
            for device in free:
                held[device][(tenant.attempt, GPU_ALLOCATION)] = Holding(part, tenant.presence)
    return held


def squatters_of(users: Iterable[str], tenants: Iterable[Tenant], holders: Holders) -> dict[str, str]:
    """Who of a GPU's users does not hold it, and who does (empty: nobody is known to).

    Of processes of nobody it is said only where somebody surely holds the GPU.
    """
    known = {tenant.attempt for tenant in tenants}
    holding = {attempt for attempt, _ in holders}
    surely = sorted(attempt for attempt, rule in holders if rule in (GPU_RAYLET, GPU_VISIBLE))
    found = {}
    for user in sorted(set(users) - holding):
        if user in known or surely:
            found[user] = next((attempt for attempt in surely if attempt != user), "")
    return found


def _holdings(tenant: Tenant, known: list[str], uses: Mapping[str, GpuUse]) -> list[tuple[str, str, int]]:
    """The devices that an attempt is known to hold: device, how that is known, and the part of it in millionths."""
    given = [(device, GPU_RAYLET, min(WHOLE, part)) for device, part in sorted(tenant.held.items()) if device in known]
    if given or not tenant.gpus:
        return given
    named = [device for device in tenant.visible or () if device in known]
    most = -(-tenant.gpus // WHOLE)
    seen = [] if tenant.visible else [d for d in known if _use(uses, d).users.get(tenant.attempt)][:most]
    rule = GPU_VISIBLE if named else GPU_PIDS
    return [(device, rule, min(WHOLE, tenant.gpus // len(named or seen))) for device in named or seen]


def _use(uses: Mapping[str, GpuUse], device: str) -> GpuUse:
    return uses.get(device) or GpuUse({}, {}, known=False)


def _user_shares(energy_uj: int, baseline_uj: int, use: GpuUse, holders: Holders) -> list[Share]:
    users = {owner: part for owner, part in use.users.items() if part > 0}
    if not users:
        return []
    if len(users) == 1:
        return [Share(owner, GPU_PIDS, energy_uj) for owner in users]
    active = {owner: use.utilisation.get(owner, 0) for owner in users}
    rule = GPU_SHARED
    if not any(active.values()):
        active, rule = users, GPU_EQUAL
    allocated = {attempt: held.part for (attempt, _), held in holders.items() if attempt in users and held.part}
    base = min(energy_uj, baseline_uj)
    at_rest = split(base, allocated or users)
    by_use = split(energy_uj - base, active)
    return [Share(owner, rule, at_rest.get(owner, 0) + by_use.get(owner, 0)) for owner in sorted(users)]


def _rest_of(used: int, in_use: int, held: Holding) -> int:
    """How much of the time in which nobody used the device somebody held it, in millionths.

    A holder that used it for a time was there for that time, and for the rest of its presence besides.
    """
    there = held.presence if not used or in_use == WHOLE else (held.presence - used) * WHOLE // (WHOLE - in_use)
    return held.part * min(WHOLE, max(0, there)) // WHOLE


def _holder_shares(energy_uj: int, weights: Mapping[tuple[str, str], int], rule: str) -> list[Share]:
    """Time without users belongs to whoever holds the device; what nobody holds is idle, by the holders' rule."""
    if not energy_uj:
        return []
    owners = {f"{attempt}/{how}": Share(attempt, how, 0) for attempt, how in weights}
    parts = {key: weights[(share.owner, share.rule)] for key, share in owners.items()}
    idle = max(0, WHOLE - sum(parts.values()))
    owners[IDLE] = Share(IDLE, min((how for (_, how) in weights), default=rule), 0)
    parts[IDLE] = idle if idle or any(parts.values()) else 1
    shared = split(energy_uj, parts)
    return [Share(owners[key].owner, owners[key].rule, part) for key, part in sorted(shared.items())]


def _merge(shares: list[Share]) -> list[Share]:
    total: dict[tuple[str, str], int] = {}
    for share in shares:
        key = (share.owner, share.rule)
        total[key] = total.get(key, 0) + share.energy_uj
    return [Share(owner, rule, microjoules) for (owner, rule), microjoules in sorted(total.items())]
