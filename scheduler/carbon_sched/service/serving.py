"""Online services: each on the cleanest cluster that meets its limits, kept there with hysteresis, moved without a gap.

A service is never delayed. On each cluster where it stands, a job of ours holds its room in our books and meters its
replicas, which carry that job's stamp. It moves make-before-break: the app is put on the new cluster, the address that
clients are told changes once it answers there, and where it was it answers on until no client keeps that address.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import CarbonSchedError, ClusterError, Conflict, InvalidInput, NotFound, StaleVersion
from carbon_sched.domain.job import JobState
from carbon_sched.domain.serve_app import AppSpec, ServeApp, Site
from carbon_sched.domain.units import MG_PER_G, PPM
from carbon_sched.service import serve_facts
from carbon_sched.service.serve_spec import AS_ASKED, app_spec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.facts import Fact
    from carbon_sched.domain.intensity import Outlook
    from carbon_sched.domain.job import Attempt
    from carbon_sched.ports import Clock, Store, Vault
    from carbon_sched.service.accept import Accept
    from carbon_sched.service.decide import Decide
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.outlooks import Outlooks
    from carbon_sched.service.serve_owner import ServeOwner, Stands
    from carbon_sched.wire import AppRequest

log = logging.getLogger(__name__)

LOOK_S = 2.0
IDLE_S = 10.0
CHOOSE_S = 30.0
"""How often it is asked whether a service were better elsewhere."""
LOST_S = 15.0
"""A cluster that cannot be asked for so long is left; its replicas may answer on, so nothing is deleted there."""
SETTLE_S = 2.0
"""From a healthy app to the change of address: Serve's proxies hear of a new route a moment later."""
MAKE_S = 1800.0
"""An app that does not answer on its new cluster by then is given up there."""
AVOID_S = 600.0
"""A cluster on which an app could not be made is left out for so long."""
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
FOREIGN = "somebody else changed"
"""How the problem begins that stays until the next deploy: a person is to see it."""


@dataclass(frozen=True)
class Choice:
    """The clusters a service can be on, by expected gCO2e per kWh of IT energy over its horizon; why others are out."""

    rates: Mapping[str, float]
    reasons: Mapping[str, str]

    @property
    def best(self) -> str | None:
        """The cleanest, by name where they are equal."""
        return min(self.rates, key=lambda name: (self.rates[name], name), default=None)


class Serving:
    """Takes services in, and carries each on; `step` is a loop of the leader's."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        accept: Accept,
        decide: Decide,
        outlooks: Outlooks,
        owner: ServeOwner,
        vault: Vault,
        clock: Clock,
    ) -> None:
        self._store, self._fleet, self._accept, self._decide = store, fleet, accept, decide
        self._outlooks, self._owner, self._vault, self._clock = outlooks, owner, vault, clock
        self._choose_at: dict[str, float] = {}
        self._silent_since: dict[str, float] = {}
        self._avoid: dict[tuple[str, str], float] = {}

    # what people ask -----------------------------------------------------------------------------

    def deploy(self, request: AppRequest, *, submitter: str) -> ServeApp:
        """Take a service in; under a known name, change it where it is. InvalidInput, or Conflict while it goes."""
        spec = app_spec(request, self._vault.seal)
        try:
            self._accept.spec(spec.request, submitter=submitter)  # type: ignore[arg-type]  # built as a JobRequest
        except InvalidInput as error:  # of the job that stands for it: in the words of who asked for a service
            raise InvalidInput(
                AS_ASKED.get(error.field, error.field), error.value, error.problem, error.remedy
            ) from None
        self._owner.require_stored(spec)
        self._require_known(spec)
        with self._store.transaction() as tx:
            known = next((app for app in tx.apps() if app.name == spec.name), None)
            if known is None:
                app = ServeApp(spec, submitter, self._clock.now())
                tx.add_app(app)
            elif known.deleted:
                raise Conflict(f"the service {spec.name} is being deleted. Deploy it again once it is gone")
            else:
                current, coming = (site and replace(site, digest="") for site in (known.current, known.coming))
                app = tx.put_app(replace(known, spec=spec, current=current, coming=coming, problem=""))
            digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
            tx.append_fact(serve_facts.deployed(app, digest, tx.pseudonym(submitter), self._clock.now()))
            return app

    def _require_known(self, spec: AppSpec) -> None:
        known = [cluster.name for cluster in self._fleet.all()]
        for name in spec.latencies_ms:
            if name not in known:
                remedy = f"Use the names of clusters: {', '.join(sorted(known))}"
                raise InvalidInput(f"latency.clusters.{name}", spec.latencies_ms[name], "is of no cluster", remedy)

    def delete(self, name: str, *, by: str) -> ServeApp:
        """Have a service go from wherever it is, as a person asks; NotFound where there is none."""
        with self._store.transaction() as tx:
            app = tx.app(name)
            if not app.deleted:
                tx.append_fact(serve_facts.deleted(app, tx.pseudonym(by), self._clock.now()))
            return tx.put_app(replace(app, deleted=True))

    def apps(self) -> list[ServeApp]:
        """Every service, by name."""
        with self._store.transaction(write=False) as tx:
            return tx.apps()

    # the loop ------------------------------------------------------------------------------------

    def step(self) -> float:
        """Carry every service on by one turn; returns the seconds until the next one."""
        apps = self.apps()
        for app in apps:
            try:
                self._turn(app)
            except StaleVersion:
                log.info("turn discarded app=%s: it changed meanwhile", app.name)
            except CarbonSchedError as error:
                log.warning("service not carried on app=%s code=%s: %s", app.name, error.code, error)
                self._say(app.name, str(error))
        return LOOK_S if apps else IDLE_S

    def _turn(self, app: ServeApp) -> None:
        app = self._leave(app)
        if app.deleted:
            self._wind_up(app)
        elif app.coming is not None:
            self._make(app, app.coming)
        elif app.current is None:
            self._place(app)
        else:
            lost = self._lost(app.current.cluster)
            app = app if lost else self._keep(app, app.current)
            self._reconsider(app, lost=lost)

    # choosing ------------------------------------------------------------------------------------

    def choice(self, app: ServeApp) -> Choice:
        """Where the service could be now, and why not elsewhere."""
        spec = self._accept.spec(app.spec.request, submitter=app.submitter)  # type: ignore[arg-type]
        decision, now = self._decide.preview(spec), self._clock.now()
        here = app.current.cluster if app.current else None
        reasons = {one.cluster: one.reason for one in decision.candidates if not one.feasible and one.cluster != here}
        clusters = {cluster.name: cluster for cluster in self._fleet.all()}
        for name, cluster in clusters.items():
            found = self._obstacle(app, cluster)
            if found:
                reasons[name] = found
        zones = [cluster.zone for cluster in clusters.values()]
        outlooks = self._outlooks.of(zones, now, now + timedelta(seconds=app.spec.horizon_s))
        kinds = Counter(outlooks[cluster.zone].comparability for cluster in clusters.values())
        rates = {}
        for name, cluster in clusters.items():
            outlook = outlooks[cluster.zone]
            if kinds.most_common(1)[0][0] != outlook.comparability:
                reasons.setdefault(name, "its grid's signal cannot be compared with the others'")
            elif name not in reasons:
                rates[name] = _mean_g(outlook, now, app.spec.horizon_s) * cluster.pue.ppm / PPM
        return Choice(rates, reasons)

    def _obstacle(self, app: ServeApp, cluster: Cluster) -> str:
        """Why a service may not be on a cluster, for all that planning says; empty where it may."""
        limit, known = app.spec.max_latency_ms, app.spec.latencies_ms.get(cluster.name)
        allowed = app.spec.request["clusters"]
        if allowed and cluster.name not in allowed:
            return f"not allowed: the service names {', '.join(allowed)} (clusters)"
        if limit is not None and known is None:
            return "its latency to the users is not known (latency.clusters)"
        if limit is not None and known is not None and known > limit:
            return f"{known:g} ms from the users, more than {limit:g} ms"
        if self._avoid.get((app.name, cluster.name), 0.0) > self._clock.monotonic():
            return "the app could not be made there a while ago"
        if cluster.cordoned:
            return "cordoned: takes nothing new"
        return ""

    def _lost(self, name: str) -> bool:
        """Whether a cluster gave no answer for so long that services leave it."""
        status, now = self._fleet.status(name), self._clock.monotonic()
        if status is not None and status.usable:
            self._silent_since.pop(name, None)
            return False
        return now - self._silent_since.setdefault(name, now) >= LOST_S

    def _place(self, app: ServeApp) -> None:
        choice = self.choice(app)
        if choice.best is None:
            told = "; ".join(f"{name}: {reason}" for name, reason in sorted(choice.reasons.items()))
            self._say(app.name, f"no cluster can take it now ({told or 'none is registered'})")
            return
        self._begin(app, choice, choice.best, f"{choice.rates[choice.best]:.0f} gCO2e/kWh expected, the least")

    def _reconsider(self, app: ServeApp, *, lost: bool) -> None:
        """Move it where that is worth it, at once from a cluster that is lost or no longer allowed."""
        current, now = app.current, self._clock.monotonic()
        if current is None or (not lost and now < self._choose_at.get(app.name, 0.0)):
            return
        self._choose_at[app.name] = now + min(CHOOSE_S, max(LOOK_S, app.spec.min_stay_s))
        choice = self.choice(app)
        rates = {name: rate for name, rate in choice.rates.items() if not (lost and name == current.cluster)}
        best = Choice(rates, choice.reasons).best
        if best is None or best == current.cluster:
            if lost:
                self._say(app.name, f"{current.cluster} does not answer, and no other cluster can take it")
            return
        reason = "it does not answer" if lost else choice.reasons.get(current.cluster, "")
        if reason:
            self._begin(app, choice, best, f"{current.cluster}: {reason}")
        elif self._worth(app, current, rates[current.cluster], rates[best]):
            here, there = rates[current.cluster], rates[best]
            reason = f"{there:.0f} gCO2e/kWh expected instead of {here:.0f} on {current.cluster}"
            self._begin(app, choice, best, reason)

    def _worth(self, app: ServeApp, current: Site, here: float, there: float) -> bool:
        """Hysteresis: long enough here, a gain above the least one, and above what running twice meanwhile costs."""
        spec, since = app.spec, current.healthy_at or current.chosen_at
        stayed = (self._clock.now() - since).total_seconds() >= spec.min_stay_s
        twice = there * (SETTLE_S + spec.drain_s)
        return (
            stayed and here > 0 and (here - there) / here >= spec.min_gain and (here - there) * spec.horizon_s > twice
        )

    # making, moving, leaving ---------------------------------------------------------------------

    def _begin(self, app: ServeApp, choice: Choice, cluster: str, reason: str) -> None:
        """Choose a cluster: take its room by the job that will meter the service there."""
        number, now = app.sites + 1, self._clock.now()
        site = Site(number, cluster, self._job(app, cluster, number), now, choice.rates[cluster])
        fact = serve_facts.placed(app, site, reason, choice.rates, choice.reasons, now)
        self._put(replace(app, sites=number, coming=site, problem=""), fact)
        log.info("service is being made app=%s cluster=%s: %s", app.name, cluster, reason)

    def _job(self, app: ServeApp, cluster: str, number: int) -> str:
        """The job of one site, submitted once however often this is asked."""
        # with line breaks, as no header has them: no caller's own key is like it
        key = f"serve-app\n{app.name}\n{app.created_at.isoformat()}\n{number}"
        request = {**app.spec.request, "clusters": [cluster]}
        return self._accept.submit(request, submitter=app.submitter, idempotency_key=key).job_id  # type: ignore[arg-type]

    def _make(self, app: ServeApp, site: Site) -> None:
        waited_s = (self._clock.now() - site.chosen_at).total_seconds()
        attempt, ended = self._attempt(site)
        if ended or waited_s > MAKE_S or self._lost(site.cluster):
            why = f"the job that meters it {ended}" if ended else "it did not answer there in time"
            self._give_up(app, site, why)
            return
        if attempt is None:
            return
        stands, now = self._stand(app, site, attempt), self._clock.now()
        healthy_at = (site.healthy_at or now) if stands.ready else None
        seen = replace(site, healthy_at=healthy_at, address=stands.address, digest=stands.digest)
        if stands.app.status in FAILED:
            self._give_up(app, site, f"{stands.app.status}: {stands.app.message}")
        elif healthy_at is not None and (now - healthy_at).total_seconds() >= SETTLE_S:
            self._switch(app, seen)
        elif seen != site:
            self._put(replace(app, coming=seen))

    def _switch(self, app: ServeApp, site: Site) -> None:
        """From now on clients are told the new address."""
        now = self._clock.now()
        leaves_at = now + timedelta(seconds=app.spec.drain_s)
        there = f"moved to {site.cluster}"
        leaving = (replace(app.current, leaves_at=leaves_at, leaves_for=there),) if app.current else ()
        moved = replace(app, current=site, coming=None, leaving=(*app.leaving, *leaving), problem="")
        self._put(moved, serve_facts.answers(app, site, now))
        log.info("service answers app=%s cluster=%s address=%s", app.name, site.cluster, site.address)

    def _give_up(self, app: ServeApp, site: Site, why: str) -> None:
        """Leave a cluster on which the app cannot be made; where it was, it stays."""
        self._avoid[app.name, site.cluster] = self._clock.monotonic() + AVOID_S
        leaving = (*app.leaving, replace(site, leaves_at=self._clock.now(), leaves_for=f"not made: {why}"[:500]))
        self._put(replace(app, coming=None, leaving=leaving, problem=f"not made on {site.cluster}: {why}"[:500]))

    def _keep(self, app: ServeApp, site: Site) -> ServeApp:
        """See that it still stands as it was put; what somebody else changed is put back and told of."""
        attempt, ended = self._attempt(site)
        if ended:
            return self._metered_anew(app, site, ended)
        if attempt is None or self._restarted(attempt):
            return app  # its job ends with the life of the cluster that it was in, and is followed by another
        stands = self._stand(app, site, attempt)
        problem = "" if stands.ready else f"Serve says {stands.app.status} on {site.cluster}: {stands.app.message}"
        if stands.foreign:
            when = self._clock.now().isoformat(timespec="seconds")
            problem = f"{FOREIGN} its Serve application on {site.cluster}; it was put back at {when}"
            log.warning("serve application was changed by somebody else app=%s cluster=%s", app.name, site.cluster)
        told = problem[:500] if problem or FOREIGN not in app.problem else app.problem
        seen = replace(site, digest=stands.digest, address=stands.address)
        return app if (seen, told) == (site, app.problem) else self._put(replace(app, current=seen, problem=told))

    def _metered_anew(self, app: ServeApp, site: Site, ended: str) -> ServeApp:
        """Have another job meter it; the app is put again with that one's stamp, and Serve turns replica by replica."""
        log.warning("service is metered by another job app=%s: its job %s", app.name, ended)
        number, now = app.sites + 1, self._clock.now()
        again = replace(site, number=number, job_id=self._job(app, site.cluster, number), digest="")
        reason = f"metered by another job: the one before {ended}"
        told = serve_facts.placed(app, again, reason, {site.cluster: site.expected_g_per_kwh}, {}, now)
        moved = serve_facts.answers(app, again, now), serve_facts.left(app, replace(site, leaves_for=reason), now)
        return self._put(replace(app, sites=number, current=again), told, *moved)

    def _leave(self, app: ServeApp) -> ServeApp:
        """Delete it where it was, once no client has that address any more."""
        now = self._clock.now()
        for site in app.leaving:
            if site.leaves_at is not None and site.leaves_at <= now and self._gone(app, site):
                stay = tuple(one for one in app.leaving if one != site)
                app = self._put(replace(app, leaving=stay), serve_facts.left(app, site, now))
        return app

    def _gone(self, app: ServeApp, site: Site) -> bool:
        """Delete the app on a site, and end the job that metered it; False where the cluster cannot be asked now."""
        stays = any(one is not None and one.cluster == site.cluster for one in (app.current, app.coming))
        try:
            if not stays:
                self._owner.remove(self._fleet.get(site.cluster), app.name)
        except NotFound:
            log.info("the cluster %s of the service %s was removed", site.cluster, app.name)
        except ClusterError as error:
            log.info("service not deleted yet app=%s cluster=%s: %s", app.name, site.cluster, error)
            return False
        self._accept.stop(site.job_id)
        return True

    def _wind_up(self, app: ServeApp) -> None:
        now = self._clock.now()
        if app.current or app.coming:
            going = tuple(
                replace(site, leaves_at=now, leaves_for=site.leaves_for or "the service was deleted")
                for site in app.everywhere
            )
            self._put(replace(app, current=None, coming=None, leaving=going))
        elif not app.leaving:
            with self._store.transaction() as tx:
                tx.remove_app(app.name)
            log.info("service is deleted app=%s", app.name)

    # reading and writing -------------------------------------------------------------------------

    def _attempt(self, site: Site) -> tuple[Attempt | None, str]:
        """The running attempt of a site's job, or how the job ended; neither while it starts."""
        with self._store.transaction(write=False) as tx:
            job, attempts = tx.job(site.job_id), tx.attempts(job_id=site.job_id)
        if job.state.final:
            return None, f"{job.state.value}: {job.reason}"
        return (attempts[-1] if job.state is JobState.RUNNING else None), ""

    def _restarted(self, attempt: Attempt) -> bool:
        """Whether the attempt's cluster lives another life now: what stood there is gone, and nobody took it."""
        status = self._fleet.status(attempt.cluster)
        epoch = status.epoch if status is not None else None
        return epoch is not None and bool(attempt.epoch) and epoch.session_name != attempt.epoch

    def _stand(self, app: ServeApp, site: Site, attempt: Attempt) -> Stands:
        return self._owner.ensure(self._fleet.get(site.cluster), app.spec, site, attempt.attempt_id)

    def _put(self, app: ServeApp, *facts: Fact) -> ServeApp:
        """Write it, and with it what is to be said of that for good."""
        with self._store.transaction() as tx:
            written = tx.put_app(app)
            tx.append_facts(facts)
            return written

    def _say(self, name: str, problem: str) -> None:
        with self._store.transaction() as tx:
            app = tx.app(name)
            if app.problem != problem[:500]:
                tx.put_app(replace(app, problem=problem[:500]))


def _mean_g(outlook: Outlook, start: datetime, horizon_s: float) -> float:
    """Expected g/kWh over the horizon, weighted by time."""
    end = start + timedelta(seconds=horizon_s)
    total = seconds = 0.0
    for reading in outlook.readings:
        inside = (min(reading.end, end) - max(reading.start, start)).total_seconds()
        if inside > 0:
            total, seconds = total + inside * reading.intensity_mg_per_kwh, seconds + inside
    return total / seconds / MG_PER_G
