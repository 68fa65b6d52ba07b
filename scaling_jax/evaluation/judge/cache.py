"""Answers of a judge kept on disk, one file each, so that nothing is asked and paid for twice."""

import dataclasses
import hashlib
import json
from pathlib import Path

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.evaluation.judge.endpoint import Reply
from scaling_jax.evaluation.judge.settings import JudgeSettings


@dataclasses.dataclass(frozen=True)
class Cache:
    """Answers below `folder`, by the hash of all that they depend on.

    A file appears whole or not at all, so that several processes may share a folder.
    """

    folder: Path

    def read(self, key: str) -> Reply | None:
        """The answer kept under `key`, if there is one.

        Raises:
            InputError: a file there that is not one of ours.
        """
        path = self._path(key)
        if not path.exists():
            return None
        try:
            return Reply(**files.read_json(path)["reply"])
        except (LookupError, TypeError) as error:
            raise InputError(f"{path}: not an answer of a judge; remove it") from error

    def write(self, key: str, settings: JudgeSettings, prompt: str, reply: Reply) -> None:
        """Keeps an answer, with what it answers.

        Raises:
            InputError: the folder cannot be written.
        """
        kept = {
            "endpoint": settings.endpoint,
            "request": settings.request(prompt),
            "reply": dataclasses.asdict(reply),
        }
        files.write_json(self._path(key), kept)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def key_of(settings: JudgeSettings, prompt: str) -> str:
    """The hash of endpoint, model, prompt and of every setting that an answer depends on."""
    asked = {"endpoint": settings.endpoint, **settings.request(prompt)}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
