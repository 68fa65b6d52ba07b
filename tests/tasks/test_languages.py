"""Languages by their usual spellings."""

import json
from pathlib import Path

import pytest

from scaling_jax.errors import InputError
from scaling_jax.tasks import languages

SPELLINGS = {
    "zh": "zh zh-CN zh_CN ZH-Hant-TW zho zho_Hans zho_Hant cmn chi Chinese chinese Mandarin",
    "ja": "ja ja-JP jpn jpn_Jpan jp Japanese",
    "ko": "ko ko_KR kor kor_Hang Korean",
    "yue": "yue yue_Hant Cantonese",
    "de": "de de-AT deu deu_Latn ger German",
    "pt": "pt pt_BR pt-PT por Portuguese",
    "es": "es es-419 spa Spanish",
    "nb": "nb no nob Norwegian",
    "sw": "sw swh swa swh_Latn Swahili",
    "ast": "ast ast_Latn Asturian",
    "lv": "lv lvs lav Latvian",
}


@pytest.mark.parametrize(
    ("code", "spelling"), [(code, one) for code, written in SPELLINGS.items() for one in written.split()]
)
def test_spellings(code, spelling):
    assert languages.find(spelling).code == code


def test_all_204_languages_of_flores():
    path = Path(languages.__file__).with_name("flores200_languages.json")
    names = json.loads(path.read_text("utf-8"))
    assert len(names) == 204
    assert set(languages.FLORES.values()) <= names.keys()
    for code, name in names.items():
        assert languages.find(code).flores == code and name.strip()
        assert languages.find(name).flores.split("_")[0] == code.split("_")[0]
    assert languages.find("zh").name == "Chinese"
    assert languages.find("zho_Hant").name == "Chinese (Traditional)"
    assert languages.find("sat_Beng").name == "Santali"


@pytest.mark.parametrize(
    ("spelling", "says"),
    [
        ("klingon", "x = 'klingon': not a language that is known here"),
        ("germn", "did you mean 'German'"),
        ("zhh", "did you mean 'zh'"),
        ("", "not a language"),
        ("de-", "not a language"),
        ("english text", "not a language"),
    ],
)
def test_unknown_languages(spelling, says):
    with pytest.raises(InputError, match=says):
        languages.language("x", spelling)
