"""What a judge is asked: one instruction per class, in a data file, and a frame around it.

A file of prompts is JSON:

    {"language": "zh",
     "with_reference": "{criterion} ... {question} ... {reference} ... {answer} ...",
     "without_reference": "{criterion} ... {question} ... {answer} ...",
     "classes": {"math": {"reference": true, "criterion": "..."}, ...}}

Classes with a reference are judged against it, the others on their own (Sun et al. 2023). BELLE's own
eval/eval_prompt.json (JSON lines with "class" and "prompt") is taken as it is, in the frame of its
scoring page.
"""

import dataclasses
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from scaling_jax import files
from scaling_jax.errors import InputError, did_you_mean

_FIELD = re.compile(r"\{(criterion|question|reference|answer)\}")
_FRAMES = {
    "with_reference": {"criterion", "question", "reference", "answer"},
    "without_reference": {"criterion", "question", "answer"},
}
# BELLE's: what its scoring page puts around an instruction, and the classes that it shows no reference of.
_BELLE_END = "模型回答：'{answer}'。请针对模型回答给出得分，顺便给出理由："
_BELLE_FRAMES = {
    "with_reference": "{criterion} {question} 标准回答:{reference} " + _BELLE_END,
    "without_reference": "{criterion} {question} " + _BELLE_END,
}
_BELLE_WITHOUT_REFERENCE = ("generation", "brainstorming", "rewrite")


@dataclasses.dataclass(frozen=True)
class ClassPrompt:
    """What an answer of one class is judged by, and whether against a reference."""

    reference: bool
    criterion: str


@dataclasses.dataclass(frozen=True)
class Prompts:
    """An opened file of prompts; `name` and `identity` (a hash of its content) go into signatures."""

    name: str
    identity: str
    frames: Mapping[str, str]
    classes: Mapping[str, ClassPrompt]

    def for_class(self, name: str) -> ClassPrompt:
        """The prompt of a class.

        Raises:
            InputError: no such class.
        """
        if name not in self.classes:
            raise InputError(
                f"the judge's prompts {self.name!r} have no class {name!r}{did_you_mean(name, self.classes)}"
            )
        return self.classes[name]

    def render(self, class_name: str, question: str, reference: str, answer: str) -> str:
        """The whole prompt. What is put in is never itself read as a frame."""
        judged = self.for_class(class_name)
        fields = {
            "criterion": judged.criterion,
            "question": question,
            "reference": reference,
            "answer": answer,
        }
        frame = self.frames["with_reference" if judged.reference else "without_reference"]
        prompt = _FIELD.sub(lambda match: fields[match[1]], frame)
        return prompt.encode("utf-8", "replace").decode("utf-8")  # halves of characters cannot be sent


def class_name(text: str) -> str:
    """One spelling of a class: `Open QA`, `open-qa` and BELLE's `open\\u00a0qa` are `open_qa`."""
    return "_".join(re.split(r"[\s_\-]+", unicodedata.normalize("NFKC", text).casefold().strip()))


def load(name: str) -> Prompts:
    """Opens the package's "zh" or "en", a file of one's own, or BELLE's.

    Raises:
        InputError: no such file, or one of another form.
    """
    own = Path(__file__).parent / f"prompts_{name}.json"
    path = own if re.fullmatch(r"[a-z]+", name) and own.exists() else Path(name)
    if not path.is_file():
        raise InputError(f"JudgeSettings.prompts = {name!r}: 'zh', 'en' or the path of a file; no file there")
    content = _of_belle(path) or files.read_json(path)
    frames = {frame: _frame(path, content, frame, fields) for frame, fields in _FRAMES.items()}
    classes = content.get("classes")
    if not isinstance(classes, dict) or not classes:
        raise InputError(f"{path}: 'classes' must be an object of one entry per class")
    identity = hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    return Prompts(
        name=name if path == own else path.name,
        identity=identity[:8],
        frames=frames,
        classes={class_name(key): _class(path, key, entry) for key, entry in classes.items()},
    )


def _of_belle(path: Path) -> dict | None:
    """A file of BELLE's form in ours, or None where it is of another form."""
    classes = {}
    try:
        for line in filter(str.strip, path.read_text("utf-8-sig").splitlines()):
            entry = json.loads(line)
            if not isinstance(entry, dict) or not all(
                type(entry.get(key)) is str for key in ("class", "prompt")
            ):
                return None
            reference = class_name(entry["class"]) not in _BELLE_WITHOUT_REFERENCE
            classes[entry["class"]] = {"reference": reference, "criterion": entry["prompt"]}
    except ValueError:  # not UTF-8, not JSON: told by who reads our form
        return None
    return {**_BELLE_FRAMES, "classes": classes} if classes else None


def _frame(path: Path, content: object, frame: str, fields: set[str]) -> str:
    text = content.get(frame) if isinstance(content, dict) else None
    if not isinstance(text, str):
        raise InputError(f"{path}: {frame!r} must be a text with {_names(fields)}")
    found = _FIELD.findall(text)
    if sorted(found) != sorted(fields):
        raise InputError(f"{path}: {frame!r} must hold {_names(fields)}, each once; it holds {_names(found)}")
    return text


def _class(path: Path, key: str, entry: object) -> ClassPrompt:
    right = isinstance(entry, dict) and isinstance(entry.get("criterion"), str)
    if not right or not isinstance(entry.get("reference"), bool):
        raise InputError(
            f"{path}: class {key!r} must be an object with a text 'criterion' and 'reference' true or false"
        )
    return ClassPrompt(entry["reference"], entry["criterion"])


def _names(fields) -> str:
    return ", ".join(f"{{{field}}}" for field in sorted(fields)) or "none of them"
