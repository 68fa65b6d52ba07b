"""What the tasks over published data sets share: messages about data not found, prompts."""

from collections.abc import Sequence

from scaling_jax.errors import InputError
from scaling_jax.tasks import languages
from scaling_jax.tasks.registry import DataSet

# T5's wording (Raffel et al. 2020); Zhang et al. 2024 and Isik et al. 2024 do not state theirs.
TRANSLATION_PROMPT = "translate {source_language} to {target_language}: {source}"

# The prefix of Zhang et al. 2024, section 3, and the article after it.
SUMMARY_PROMPT = "Summarize the following document in {language}: {source}"


def not_found(task: str, looked: Sequence[str], data: DataSet) -> InputError:
    """The error of a task that cannot find its data: where it looked, and how to get it."""
    return InputError(f"{task}: data not found. Looked for {'; '.join(looked)}. To get it: {data.get}")


def translation_prompt(task: str, template: str, source: str, target: str) -> str:
    """The template with the names of the two languages in it; `{source}` stays.

    Raises:
        InputError: a language whose name is asked for and not known, see `languages.find`.
    """
    for place, code in (("{source_language}", source), ("{target_language}", target)):
        if place in template:
            template = template.replace(place, languages.language(f"{task}: {place[1:-1]}", code).name)
    return template


def summary_prompt(language: str, template: str = SUMMARY_PROMPT) -> str:
    """The template with the name of the language (ISO code) in it; `{source}` stays."""
    return template.replace("{language}", languages.language("language", language).name)
