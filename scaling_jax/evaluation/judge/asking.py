"""Many questions to a judge: what is kept is not asked again, the rest some at a time."""

import asyncio
import concurrent.futures
import dataclasses
from collections.abc import Coroutine, Sequence
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.evaluation.judge.cache import Cache, key_of
from scaling_jax.evaluation.judge.endpoint import Failure, Reply, ask, open_client
from scaling_jax.evaluation.judge.settings import JudgeSettings


class _GivenUp(Exception):
    """The endpoint counts as gone; ends all workers."""

    def __init__(self, failure: Failure):
        self.failure = failure


@dataclasses.dataclass
class Asked:
    """What became of the questions.

    Attributes:
        outcomes: by key; a question that was not reached has none.
        kept: keys that were answered before.
        given_up: the failure at which asking was ended, if it was.
    """

    outcomes: dict[str, Reply | Failure]
    kept: frozenset[str]
    given_up: Failure | None = None


def ask_all(prompts: Sequence[str], settings: JudgeSettings, cache: Cache) -> Asked:
    """Asks every distinct prompt that has no kept answer; every answer is kept as soon as it is there.

    A failed judgement does not end the run, unless it is hopeless, `settings.give_up_after` of them
    come in a row, or not one is answered.

    Raises:
        InputError: no key, no client library, or a folder that cannot be written.
    """
    waiting = {key_of(settings, prompt): prompt for prompt in prompts}
    found = {key: cache.read(key) for key in waiting}
    asked = Asked({key: reply for key, reply in found.items() if reply}, frozenset())
    asked.kept = frozenset(asked.outcomes)
    missing = {key: prompt for key, prompt in waiting.items() if key not in asked.outcomes}
    if missing:
        _run(_ask_missing(missing, settings, cache, asked))
    return asked


async def _ask_missing(missing: dict[str, str], settings: JudgeSettings, cache: Cache, asked: Asked) -> None:
    questions = iter(missing.items())  # shared by the workers: each takes the next
    in_a_row, answered = 0, bool(asked.kept)
    ended: Exception | None = None

    async def work(client: Any) -> None:
        nonlocal in_a_row, answered
        for key, prompt in questions:
            outcome = await ask(client, settings, prompt)
            asked.outcomes[key] = outcome
            if isinstance(outcome, Reply):
                cache.write(key, settings, prompt, outcome)
                answered, in_a_row = True, 0
                continue
            if outcome.refused and answered:
                continue  # says something of this question, not of the endpoint
            in_a_row += 1
            if outcome.hopeless or in_a_row >= settings.give_up_after:
                raise _GivenUp(outcome)

    async with open_client(settings) as client:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(settings.parallel, len(missing))):
                    group.create_task(work(client))
        except* (_GivenUp, InputError) as ends:
            ended = ends.exceptions[0]
    if isinstance(ended, InputError):  # raised here, since a group of exceptions is not what callers expect
        raise ended
    if ended is not None:
        asked.given_up = ended.failure
    if not answered and asked.given_up is None:
        asked.given_up = next(outcome for outcome in asked.outcomes.values() if isinstance(outcome, Failure))


def _run(coroutine: Coroutine) -> None:
    """Runs to the end, in a thread of its own where this one has an event loop (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
        return
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()
