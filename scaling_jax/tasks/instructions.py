"""`instructions`: instructions and their answers, as alpaca, BELLE and many others publish them.

A file is one JSON array, or one JSON object per line. An object is one of

    {"instruction": "...", "input": "...", "output": "..."}          input may be empty or absent
    {"instruction": "...", "instances": [{"input": ..., "output": ...}, ...]}       seed tasks
    {"conversations": [{"from": "human", "value": "..."}, {"from": "assistant", "value": "..."}, ...]}

Of a conversation with several turns every answer is an example, and its inputs are all that was said
before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.tasks import pairs, text_files
from scaling_jax.tasks.json_records import records, text_field
from scaling_jax.tasks.registry import PAIRS, DataSet, TextSource, text_task

# The words of BELLE's models; Sun et al. 2023 does not print the format that it trained with.
PROMPT = "Human: {source}\n\nAssistant: "
_BETWEEN_TURNS = "\n\n"
_HUMAN, _ASSISTANT = ("human", "user"), ("assistant", "gpt")
_EMPTY = ("refuse", "leave_out")


@text_task(
    version=1,
    features=PAIRS,
    ends=("targets",),  # a decoder reads prompt and answer as one text
    summary="instructions and answers, in the form of alpaca or BELLE",
    data=DataSet(
        source="Taori et al. 2023 (alpaca), https://github.com/tatsu-lab/stanford_alpaca; "
        "Ji et al. 2023 (BELLE), https://github.com/LianjiaTech/BELLE",
        get="alpaca_data.json of the first, or train_0.5M_CN, train_1M_CN, train_2M_CN, school_math_0.25M of "
        "https://huggingface.co/BelleGroup, and bind instructions.train to the file",
        splits="train as given; dev and test as given, or cut out of train, evenly spaced",
        prompt=PROMPT,
    ),
)
def instructions(
    train: str | Sequence[str] | None = None,
    dev: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
    cut_dev: int = 500,
    cut_test: int = 500,
    template: str = PROMPT,
    separator: str = "\n",
    empty: str = "refuse",
) -> TextSource:
    """Pairs of what is asked and what is to be answered.

    Args:
        train: one file or several.
        dev: the same; None takes `cut_dev` pairs out of the training files.
        test: the same; None takes `cut_test` pairs out of the training files.
        cut_dev: pairs, where there is no dev file.
        cut_test: pairs, where there is no test file.
        template: text of the inputs; `{source}` stands for the instruction with its input.
        separator: between an instruction and its input.
        empty: "refuse" names the line of an empty instruction or answer and stops; "leave_out" leaves such
            examples out and says how many.

    Raises:
        InputError: not JSON, fields that are missing or no text, an empty answer.
    """
    check_template("instructions", template)
    if empty not in _EMPTY:
        raise InputError(f"instructions.empty = {empty!r}: must be {_EMPTY[0]!r} or {_EMPTY[1]!r}")

    def open_files(binding: str, value: Any) -> pairs.PairFiles:
        paths = text_files.as_paths(binding, value)
        return pairs.PairFiles(
            paths, lambda: (row for path in paths for row in _rows(path, template, separator, empty))
        )

    given = pairs.by_split("instructions", train, dev, test, open_files)
    # Inputs come with the template in them: it is put around every turn of a conversation.
    return pairs.pair_source("instructions", given, {"dev": cut_dev, "test": cut_test}, "{source}", {})


def check_template(task: str, template: str) -> None:
    """Raises an InputError for a template without a place for the text."""
    if "{source}" not in template:
        raise InputError(
            f"{task}.template = {template!r}: must contain {{source}}, where the instruction goes"
        )


def _rows(path: Path, template: str, separator: str, empty: str) -> Iterator[tuple[str, str]]:
    for number, record in records(path):
        for turns in _conversations(path, number, record, separator):
            before = ""
            for asked, answer in turns:
                blank = "instruction" if not asked.strip() else "answer" if not answer.strip() else ""
                if blank and empty == "refuse":
                    raise InputError(
                        f"{path}:{number}: the {blank} is empty; mend it, or bind "
                        "instructions.empty = 'leave_out' to leave such examples out"
                    )
                inputs = before + template.replace("{source}", asked)
                yield ("" if blank == "instruction" else inputs), answer
                before = inputs + answer + _BETWEEN_TURNS


def _conversations(
    path: Path, number: int, record: Mapping[str, Any], separator: str
) -> Iterator[list[tuple[str, str]]]:
    """What is asked and answered, in turns: one conversation, or one for each instance of a seed task."""
    if "conversations" in record:
        yield _turns(path, number, record["conversations"])
        return
    instances = record.get("instances", [record])
    if not isinstance(instances, list) or not all(isinstance(instance, dict) for instance in instances):
        raise InputError(f"{path}:{number}: field 'instances' must be a list of objects")
    instruction = text_field(path, number, record, "instruction")
    for instance in instances:
        detail = text_field(path, number, instance, "input") if instance.get("input") is not None else ""
        asked = f"{instruction}{separator}{detail}" if detail.strip() else instruction
        yield [(asked, text_field(path, number, instance, "output"))]


def _turns(path: Path, number: int, turns: Any) -> list[tuple[str, str]]:
    right = isinstance(turns, list) and turns and all(isinstance(turn, dict) for turn in turns)
    if not right:
        raise InputError(f"{path}:{number}: field 'conversations' must be a list of objects, one at least")
    said = [
        (text_field(path, number, turn, "from").lower(), text_field(path, number, turn, "value"))
        for turn in turns
    ]
    for place, (who, _) in enumerate(said):
        if who not in (_ASSISTANT if place % 2 else _HUMAN):
            wanted = "assistant" if place % 2 else "human"
            raise InputError(
                f"{path}:{number}: turn {place + 1} of the conversation is from {who!r}, {wanted!r} is needed"
            )
    if len(said) % 2:
        raise InputError(f"{path}:{number}: the conversation ends without an answer of the assistant")
    return [(asked, answer) for (_, asked), (_, answer) in zip(said[::2], said[1::2], strict=True)]
