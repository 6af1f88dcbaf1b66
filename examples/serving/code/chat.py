"""A service that answers like a language model would: bigrams of Python's own standard library, with OpenAI's `usage`.

Any FastAPI app is metered the same way: one line adds the middleware.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve

from carbon_sched_runtime import serving  # travels with every app; installed: `from carbon_sched import serve`

api = FastAPI()
api.add_middleware(serving.Middleware, header=True)


class Completion(BaseModel):
    """What a client asks for."""

    prompt: str
    max_tokens: int = 200


@serve.deployment(max_ongoing_requests=16)
@serve.ingress(api)
class Chat:
    """One replica with its model."""

    def __init__(self) -> None:
        text = Path(argparse.__file__).read_text(encoding="utf-8")
        self._next: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for first, second in pairwise(text):
            self._next[first][second] += 1

    @api.post("/v1/completions")
    def complete(self, wanted: Completion) -> dict[str, object]:
        """Continue a prompt, a character a token."""
        drawn, last, made = random.Random(wanted.prompt), wanted.prompt[-1:] or " ", ""
        for _ in range(max(0, min(wanted.max_tokens, 2000))):
            following = self._next[last] or self._next[" "]
            last = drawn.choices(list(following), list(following.values()))[0]
            made += last
        usage = {"prompt_tokens": len(wanted.prompt), "completion_tokens": len(made)}
        return {"object": "text_completion", "choices": [{"index": 0, "text": made}], "usage": usage}


app = Chat.bind()
