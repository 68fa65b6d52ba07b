"""One question to an endpoint that speaks OpenAI's chat completions, through its maintained client."""

import asyncio
import dataclasses
import datetime
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.evaluation.judge.settings import JudgeSettings, api_key, shown

# Asking again, or asking for another answer, gives the same: a wrong key, no right, no such model or path.
_HOPELESS = (401, 403, 404)
_REFUSED = (400, 413, 422)
_LONGEST_DETAIL = 200


@dataclasses.dataclass(frozen=True)
class Reply:
    """What the judge answered.

    Attributes:
        text: its whole answer.
        model: the model as the endpoint names it, which may say a version.
        finish_reason: the endpoint's, such as "stop" or "length" (cut at max_tokens).
        attempts: requests that it took.
        seconds: that it took with all attempts.
        asked_at: UTC, ISO 8601.
        usage: tokens as the endpoint counts them.
    """

    text: str
    model: str
    finish_reason: str
    attempts: int
    seconds: float
    asked_at: str
    usage: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Failure:
    """A judgement that was not given.

    Attributes:
        kind: in few words and without anything that was sent, for messages.
        detail: what the endpoint said, for the transcript.
        hopeless: no other judgement will be given either.
        refused: the endpoint would not take this question, too long or against its rules.
    """

    kind: str
    detail: str = ""
    hopeless: bool = False
    refused: bool = False


def open_client(settings: JudgeSettings) -> Any:
    """The asynchronous client, to be used in `async with`.

    Raises:
        InputError: the client library is not installed, or there is no key.
    """
    try:
        import openai
    except ImportError as error:
        raise InputError(f"score 'judge' needs openai ({error}): pip install 'scaling-jax[judge]'") from error
    # At level debug the client writes whole requests, prompts and all, to the log.
    logging.getLogger("openai").setLevel(logging.WARNING)
    return openai.AsyncOpenAI(
        api_key=api_key(settings),
        base_url=settings.endpoint,
        timeout=settings.timeout,
        max_retries=settings.retries,
    )


async def ask(client: Any, settings: JudgeSettings, prompt: str) -> Reply | Failure:
    """Asks once, with all attempts, for `settings.limit` seconds at most."""
    import openai

    asked_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    began = time.monotonic()
    try:
        raw = await asyncio.wait_for(
            client.chat.completions.with_raw_response.create(**settings.request(prompt)), settings.limit
        )
    except TimeoutError:
        return Failure(f"no answer within {settings.limit:g} s")
    except openai.APITimeoutError:
        return Failure(f"no answer, {settings.retries + 1} attempts of {settings.timeout:g} s")
    except openai.APIConnectionError as error:
        return Failure(f"no connection to {shown(settings.endpoint)}", _detail(client, str(error.__cause__)))
    except openai.APIStatusError as error:
        status = error.status_code
        detail = _detail(client, error.message)
        return Failure(f"HTTP {status}", detail, status in _HOPELESS, status in _REFUSED)
    except openai.OpenAIError as error:
        return Failure(f"the client refused ({type(error).__name__})", _detail(client, str(error)))
    seconds = round(time.monotonic() - began, 3)
    try:
        content = json.loads(raw.http_response.text)
        choice = content["choices"][0]
        text = choice["message"]["content"] or ""
        if not isinstance(text, str):
            raise TypeError("the content is no text")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        body = f"{type(error).__name__}: {error}: {raw.http_response.text[:_LONGEST_DETAIL]}"
        return Failure("an answer that is no chat completion", _detail(client, body))
    return Reply(
        text=text.encode("utf-8", "replace").decode("utf-8"),  # JSON can spell what no file may hold
        model=str(content.get("model") or ""),
        finish_reason=str(choice.get("finish_reason") or ""),
        attempts=raw.retries_taken + 1,
        seconds=seconds,
        asked_at=asked_at,
        usage=content.get("usage") or {},
    )


def _detail(client: Any, text: str) -> str:
    """The endpoint's own words on one line, cut, and without the key if it repeats it."""
    return " ".join(text.replace(client.api_key, "[key]").split())[:_LONGEST_DETAIL]
