"""How a judge is asked: endpoint, model, prompts, limits. The API key is named here, never held."""

import dataclasses
import os
import urllib.parse
from collections.abc import Mapping

import gin

from scaling_jax.errors import InputError


@gin.configurable(module="evaluation")
@dataclasses.dataclass(frozen=True)
class JudgeSettings:
    """Settings of the score `judge`.

    Attributes:
        endpoint: URL of any server that speaks OpenAI's chat completions, up to and with `/v1`.
        model: name of the judging model there (Sun et al. 2023: `gpt-3.5-turbo`).
        prompts: "zh" or "en", the files that come with the package, or the path of a file of that form.
        api_key_variable: environment variable that holds the key; "" for an endpoint that needs none.
        temperature: None leaves it out of the request, as some models want.
        max_tokens: of the judge's answer, score and reason.
        max_tokens_name: what the endpoint calls that limit; newer models want "max_completion_tokens".
        timeout: seconds of silence after which one attempt has failed.
        retries: further attempts after 429, 5xx, a lost connection or a timeout, with growing pauses
            (0.5 s doubled up to 8 s, or what the server asks for).
        limit: seconds that one judgement may take with all of its attempts.
        parallel: judgements under way at the same time.
        give_up_after: failed judgements in a row after which the endpoint counts as gone. A silent
            endpoint is given up after limit x ceil(give_up_after / parallel) seconds.
        class_column: column of the answers that names the class of each.
        default_class: class of answers without that column; "" refuses them.
        groups: class to the reported category that it counts in; a class left out is its own.
        cache: folder of answers that several evaluations share; "" keeps one beside each transcript.
    """

    endpoint: str = ""
    model: str = ""
    prompts: str = "zh"
    api_key_variable: str = "OPENAI_API_KEY"
    temperature: float | None = 0.0
    max_tokens: int = 1024
    max_tokens_name: str = "max_tokens"
    timeout: float = 60.0
    retries: int = 5
    limit: float = 240.0
    parallel: int = 8
    give_up_after: int = 8
    class_column: str = "class"
    default_class: str = ""
    groups: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"math": "others", "code": "others"}
    )
    cache: str = ""

    def __post_init__(self):
        for name in ("endpoint", "model"):
            if not getattr(self, name):
                raise InputError(f"JudgeSettings.{name} is not set: the judge's {_MEANT[name]}")
        parts = _parts(self.endpoint)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"JudgeSettings.endpoint = {shown(self.endpoint)!r}: a URL is needed, {_MEANT['endpoint']}"
            )
        if parts.username or parts.password:
            raise InputError(
                "JudgeSettings.endpoint holds a password, and the endpoint is recorded: "
                "give the key in an environment variable (JudgeSettings.api_key_variable)"
            )
        for name in ("max_tokens", "parallel", "give_up_after"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"JudgeSettings.{name} = {getattr(self, name)!r}: 1 or more")
        if not isinstance(self.retries, int) or self.retries < 0:
            raise InputError(f"JudgeSettings.retries = {self.retries!r}: 0 or more")
        for name in ("timeout", "limit"):
            if not getattr(self, name) > 0:
                raise InputError(f"JudgeSettings.{name} = {getattr(self, name)!r}: seconds above 0")
        if self.max_tokens_name not in ("max_tokens", "max_completion_tokens"):
            raise InputError(
                f"JudgeSettings.max_tokens_name = {self.max_tokens_name!r}: "
                "'max_tokens' or 'max_completion_tokens'"
            )

    def request(self, prompt: str) -> dict:
        """What is sent, and what an answer depends on beside the endpoint."""
        request = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        request[self.max_tokens_name] = self.max_tokens
        return request if self.temperature is None else {**request, "temperature": self.temperature}


_MEANT = {
    "endpoint": "address, such as https://api.openai.com/v1 or http://127.0.0.1:8077/v1",
    "model": "name at its endpoint, such as gpt-3.5-turbo",
}


def api_key(settings: JudgeSettings) -> str:
    """The key out of the environment, or a word in its place where the endpoint needs none.

    Raises:
        InputError: the named variable is not set.
    """
    if not settings.api_key_variable:
        return "none"  # the client insists on some key
    key = os.environ.get(settings.api_key_variable, "").strip()
    if not key:
        raise InputError(
            f"the environment variable {settings.api_key_variable} is not set: export the judge's key in it, "
            "or bind JudgeSettings.api_key_variable = '' for an endpoint that needs none"
        )
    return key


def shown(endpoint: str) -> str:
    """The endpoint as messages show it: without a password or a query."""
    parts = _parts(endpoint)
    if parts is None:  # which part of it is a password cannot be told
        return endpoint.rsplit("@", 1)[-1].partition("?")[0]
    netloc = parts.netloc.rsplit("@", 1)[-1]
    return urllib.parse.urlunsplit((parts.scheme, netloc, parts.path, "", ""))


def _parts(endpoint: str) -> urllib.parse.SplitResult | None:
    """The parts of a URL, or None where it is none: an open bracket, a port that is no number."""
    try:
        parts = urllib.parse.urlsplit(endpoint)
        return parts if parts.port is None or parts.port else None  # which looks at the port
    except ValueError:
        return None
