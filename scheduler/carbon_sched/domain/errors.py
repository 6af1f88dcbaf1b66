"""Every error a user or an operator can meet, in one tree.

    CarbonSchedError                      exit  http  retryable
    |-- InvalidInput                       120   400  no    a field the caller gave is wrong (field, value, remedy)
    |   |-- InvalidFile                    120   400  no    a file's content is wrong (problems, each with its line)
    |   `-- TooLarge                       120   413  no    more was sent than is taken
    |-- NotFound                           121   404  no
    |-- Conflict                           121   409  no    the thing moved on, or exists already with other content
    |   |-- Unchanged                      121   409  no    it is in force already, just so
    |   `-- StaleVersion                   121   409  yes   somebody else changed the row first: load again
    |       `-- NotLeading                 121   409  yes   another server on this database leads now
    |-- NotAllowed                         122   401  no    missing, wrong or expired credentials
    |   `-- Forbidden                      122   403  no    credentials that do not grant this
    |-- TooMany                            123   429  yes   asked more often than one caller may
    |-- TooSlow                            123   408  yes   the rest of a request did not come
    |-- ServerUnavailable                  123   503  yes   our own server cannot be reached or is starting
    |-- ClusterError                       124   502  no    a Ray cluster answered with something we cannot use
    |   |-- ClusterUnreachable             124   502  yes   nothing answered: nothing happened there
    |   |   `-- ClusterBusy                124   502  yes   it is not ready for this yet: nothing happened there
    |   |-- ClusterUnclear                 124   502  yes   no clear answer: the request may have been executed
    |   |-- ClusterRefused                 124   502  no    the cluster said no, for good
    |   `-- ClusterUnauthorized            124   502  no    missing or wrong cluster token
    |-- GridError                          124   502  no    an intensity source failed
    |   |-- GridAuth                       124   502  no    the provider does not accept the key
    |   |   |-- GridKeyMissing             124   502  no    no key that can be sent is configured
    |   |   `-- GridExpired                124   502  no    the key's trial or contract has ended
    |   |-- ZoneNotCovered                 124   502  no    the provider does not know the zone, or not in this plan
    |   |-- GridNoData                     124   502  no    no value for that time
    |   |-- GridRateLimited                124   502  yes   carries retry_after_s
    |   |-- GridTransient                  124   502  yes   timeout, 5xx
    |   |   `-- GridUnreachable            124   502  yes   no connection: no network, refused, unknown host, TLS
    |   `-- GridMalformed                  124   502  no    an answer that is not what the provider documents
    |-- StoreError                         125   503  yes   the database cannot be used right now
    |   `-- SchemaTooNew                   125   503  no    the database was written by a newer carbon-sched
    |-- LedgerBroken                       126   500  no    the hash chain does not verify (first_bad_seq)
    `-- Internal                           127   500  no    a bug of ours

A message says what happened, to what, and what to do next. Codes are the kebab-case class names. Exit codes 120-127 are
ours; everything else a command returns is the job's own exit code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


class CarbonSchedError(Exception):
    """Base of all errors; the default message of a subclass is its docstring."""

    exit_code = 127
    http_status = 500
    retryable = False

    def __init__(self, message: str | None = None) -> None:
        """Keep `message`, or the docstring when there is none."""
        super().__init__(message or (type(self).__doc__ or type(self).__name__).strip())

    @property
    def code(self) -> str:
        """Machine-readable name, for example `cluster-unreachable`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(self).__name__).lower()


class InvalidInput(CarbonSchedError):
    """A value given by the caller cannot be used."""

    exit_code = 120
    http_status = 400

    def __init__(self, field: str, value: object, problem: str, remedy: str) -> None:
        """Name the `field`, the `value` as given, what is wrong with it and how to mend it."""
        self.field, self.value, self.problem, self.remedy = field, str(value), problem, remedy
        shown = self.value if len(self.value) <= 120 else self.value[:117] + "..."
        super().__init__(f"{field}: {shown!r} {problem}. {remedy}")


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a file: where (lines and columns count from 1; 0 = the file itself), what, and the remedy."""

    file: str
    line: int
    column: int
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        """As compilers print it, so that editors can jump there: `policy.yaml:3:5: field: problem. Remedy`."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        field = f" {self.field}" if self.field else ""
        return f"{place}:{field} {self.problem}. {self.remedy}"


class InvalidFile(InvalidInput):
    """The content of a file cannot be used."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        """Keep every problem found, in the file's order; the first one is also the error's `field`."""
        self.problems = problems
        first = problems[0]
        super().__init__(first.field, first.file, first.problem, first.remedy)
        more = f"\n... and {len(problems) - 20} more" if len(problems) > 20 else ""
        self.args = ("\n".join(map(str, problems[:20])) + more,)


class TooLarge(InvalidInput):
    """More was sent than is taken."""

    http_status = 413


class NotFound(CarbonSchedError):
    """There is no such thing."""

    exit_code = 121
    http_status = 404


class Conflict(CarbonSchedError):
    """The request contradicts the present state."""

    exit_code = 121
    http_status = 409


class Unchanged(Conflict):
    """What was asked for is in force already, just so."""


class StaleVersion(Conflict):
    """The row changed since it was read; load it again."""

    retryable = True


class NotLeading(StaleVersion):
    """Another server on this database leads now; what this one was at is left to it."""


class NotAllowed(CarbonSchedError):
    """Credentials are missing, wrong or expired."""

    exit_code = 122
    http_status = 401


class Forbidden(NotAllowed):
    """These credentials do not grant this."""

    http_status = 403


class TooMany(CarbonSchedError):
    """Too many requests from one caller."""

    exit_code = 123
    http_status = 429
    retryable = True


class TooSlow(CarbonSchedError):
    """The rest of a request did not come."""

    exit_code = 123
    http_status = 408
    retryable = True


class ServerUnavailable(CarbonSchedError):
    """The carbon-sched server cannot be reached."""

    exit_code = 123
    http_status = 503
    retryable = True


class ClusterError(CarbonSchedError):
    """A Ray cluster gave an answer that cannot be used."""

    exit_code = 124
    http_status = 502


class ClusterUnreachable(ClusterError):
    """The cluster did not accept a connection: nothing happened there."""

    retryable = True


class ClusterBusy(ClusterUnreachable):
    """The cluster is not ready for this yet; nothing happened there, and nothing is wrong with it."""


class ClusterUnclear(ClusterError):
    """The cluster gave no clear answer: the request may or may not have been executed."""

    retryable = True


class ClusterRefused(ClusterError):
    """The cluster refused the request for good."""


class ClusterUnauthorized(ClusterError):
    """The cluster wants a token, or another one."""


class GridError(CarbonSchedError):
    """An intensity source failed."""

    exit_code = 124
    http_status = 502


class GridAuth(GridError):
    """The provider does not accept the key."""


class GridKeyMissing(GridAuth):
    """No key that can be sent is configured for the provider."""


class GridExpired(GridAuth):
    """The trial or the contract of the provider's key has ended."""


class ZoneNotCovered(GridError):
    """The provider does not cover this zone, or not in this plan."""


class GridNoData(GridError):
    """The provider has no value for this time."""


class GridRateLimited(GridError):
    """The provider asks to slow down."""

    retryable = True

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        """Keep how long the provider asked us to wait, in seconds, when it said so."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class GridTransient(GridError):
    """The provider did not answer, or with a server error."""

    retryable = True


class GridUnreachable(GridTransient):
    """There is no connection to the provider."""


class GridMalformed(GridError):
    """The provider answered with something else than it documents."""


class StoreError(CarbonSchedError):
    """The database cannot be used right now."""

    exit_code = 125
    http_status = 503
    retryable = True


class SchemaTooNew(StoreError):
    """The database was written by a newer carbon-sched; upgrade this one."""

    retryable = False


class LedgerBroken(CarbonSchedError):
    """The ledger's hash chain does not verify."""

    exit_code = 126

    def __init__(self, first_bad_seq: int, problem: str) -> None:
        """Name the first entry that is wrong (`first_bad_seq`) and how."""
        self.first_bad_seq, self.problem = first_bad_seq, problem
        super().__init__(
            f"ledger entry {first_bad_seq}: {problem}. Nothing from there on can be trusted: restore a backup"
        )


class Internal(CarbonSchedError):
    """A bug in carbon-sched."""
