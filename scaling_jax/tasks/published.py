"""What the tasks over published data sets share: messages about data not found, names of languages."""

from collections.abc import Sequence

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tasks.registry import DataSet

# ISO 639-1, with the names that prompts use.
LANGUAGES = {
    "cs": "Czech",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fi": "Finnish",
    "fr": "French",
    "hi": "Hindi",
    "it": "Italian",
    "ja": "Japanese",
    "kk": "Kazakh",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "zh": "Chinese",
}

# T5's wording (Raffel et al. 2020); Zhang et al. 2024 and Isik et al. 2024 do not state theirs.
TRANSLATION_PROMPT = "translate {source_language} to {target_language}: {source}"

# The prefix of Zhang et al. 2024, section 3, and the article after it.
SUMMARY_PROMPT = "Summarize the following document in {language}: {source}"


def not_found(task: str, looked: Sequence[str], data: DataSet) -> InputError:
    """The error of a task that cannot find its data: where it looked, and how to get it."""
    return InputError(f"{task}: data not found. Looked for {'; '.join(looked)}. To get it: {data.get}")


def language_name(binding: str, code: str) -> str:
    """English name of a language.

    Raises:
        InputError: a code that is not listed.
    """
    if code not in LANGUAGES:
        raise InputError(
            f"{binding} = {code!r}: not a language that is known here{did_you_mean(code, LANGUAGES)}"
        )
    return LANGUAGES[code]


def translation_prompt(task: str, template: str, source: str, target: str) -> str:
    """The template with the names of the two languages (ISO codes) in it; `{source}` stays."""
    for place, code in (("{source_language}", source), ("{target_language}", target)):
        if place in template:
            template = template.replace(place, language_name(f"{task}: {place[1:-1]}", code))
    return template


def summary_prompt(language: str, template: str = SUMMARY_PROMPT) -> str:
    """The template with the name of the language (ISO code) in it; `{source}` stays."""
    return template.replace("{language}", LANGUAGES[language])
