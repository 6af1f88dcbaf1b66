"""Ray's manner of answering, between plain HTTP and the client: parsed answers, and errors that say what Ray said."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from carbon_sched.clusters.http import (
    HTTP_BAD_REQUEST,
    HTTP_OK,
    HTTP_SERVER_ERROR,
    Answer,
    ClusterHttp,
    Limits,
)
from carbon_sched.domain.errors import ClusterError, ClusterRefused, ClusterUnclear

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.clusters.http import Endpoint
    from carbon_sched.ports import Clock

A = TypeVar("A", bound=BaseModel)


class RayHttp(ClusterHttp):
    """Requests to one Ray dashboard."""

    def __init__(self, name: str, endpoint: Callable[[], Endpoint], clock: Clock, limits: Limits | None = None) -> None:
        """`name` is the cluster's, for messages."""
        super().__init__(endpoint, clock, limits)
        self.name = name

    def ask(self, method: str, path: str, **params: str) -> Answer:
        """One request with query parameters."""
        return self.request(method, path, params=params)

    def ask_well(self, path: str, **params: str) -> Answer:
        """A GET that must be answered with 200."""
        answer = self.ask("GET", path, **params)
        if answer.status != HTTP_OK:
            raise self.failure(answer, path)
        return answer

    def read(self, shape: type[A], path: str, **params: str) -> A:
        """A GET and its answer in the given shape."""
        return self.parse(shape, self.ask_well(path, **params), path)

    def parse(self, shape: type[A], answer: Answer, path: str) -> A:
        """The answer's JSON in the given shape; ClusterUnclear when it is anything else."""
        try:
            return shape.model_validate_json(answer.body)
        except ValidationError as error:
            raise self.not_ray(answer, path, error) from None

    def not_ray(self, answer: Answer, path: str, problem: object) -> ClusterUnclear:
        """The error for an answer that Ray does not give: somebody else answered, or a Ray that we do not know."""
        if answer.media_type == "text/html":
            return ClusterUnclear(
                f"cluster {self.name!r}: {path} answered with a web page, not like a Ray dashboard. Check its address"
            )
        what = answer.quoted("; ".join(str(problem).splitlines()[:3]))
        return ClusterUnclear(f"cluster {self.name!r}: {path} answered with something that Ray does not say ({what})")

    def failure(self, answer: Answer, path: str) -> ClusterError:
        """The error for a status that was not expected: refused when the cluster clearly said no, else unclear."""
        if answer.media_type == "text/html":
            return self.not_ray(answer, path, "a web page")
        said = answer.quoted(_last_sentence(answer.text))
        told = f"cluster {self.name!r}: {path} answered HTTP {answer.status}: {said}"
        if HTTP_BAD_REQUEST <= answer.status < HTTP_SERVER_ERROR:
            return ClusterRefused(told)
        return ClusterUnclear(told)


def sent_at(answer: Answer) -> float:
    """The head's own clock when it answered, in epoch seconds; 0 when it does not say."""
    try:
        return parsedate_to_datetime(answer.date).timestamp()
    except (TypeError, ValueError):
        return 0.0


def _last_sentence(text: str) -> str:
    """The last line that says something: Ray answers errors with whole tracebacks."""
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 1]
    return lines[-1] if lines else "nothing"
