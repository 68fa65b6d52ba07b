"""Languages by their usual spellings: `zh`, `zh-CN`, `zho`, `zho_Hans`, `cmn`, `Chinese` are one.

Known are the 204 languages of Flores-200 (NLLB Team 2022), whose codes and English names are those of its
public list (`flores200_languages.json`). A language goes by its ISO 639-1 code where it has one, by its
ISO 639-3 code otherwise.
"""

import dataclasses
import functools
import json
import re
from pathlib import Path

from scaling_jax.errors import InputError, nearest

# Flores' code by ISO 639-1 code.
FLORES = {
    "af": "afr_Latn", "ak": "aka_Latn", "am": "amh_Ethi", "ar": "arb_Arab", "as": "asm_Beng",
    "ay": "ayr_Latn", "az": "azj_Latn", "ba": "bak_Cyrl", "be": "bel_Cyrl", "bg": "bul_Cyrl",
    "bm": "bam_Latn", "bn": "ben_Beng", "bo": "bod_Tibt", "bs": "bos_Latn", "ca": "cat_Latn",
    "cs": "ces_Latn", "cy": "cym_Latn", "da": "dan_Latn", "de": "deu_Latn", "dz": "dzo_Tibt",
    "ee": "ewe_Latn", "el": "ell_Grek", "en": "eng_Latn", "eo": "epo_Latn", "es": "spa_Latn",
    "et": "est_Latn", "eu": "eus_Latn", "fa": "pes_Arab", "ff": "fuv_Latn", "fi": "fin_Latn",
    "fj": "fij_Latn", "fo": "fao_Latn", "fr": "fra_Latn", "ga": "gle_Latn", "gd": "gla_Latn",
    "gl": "glg_Latn", "gn": "grn_Latn", "gu": "guj_Gujr", "ha": "hau_Latn", "he": "heb_Hebr",
    "hi": "hin_Deva", "hr": "hrv_Latn", "ht": "hat_Latn", "hu": "hun_Latn", "hy": "hye_Armn",
    "id": "ind_Latn", "ig": "ibo_Latn", "is": "isl_Latn", "it": "ita_Latn", "ja": "jpn_Jpan",
    "jv": "jav_Latn", "ka": "kat_Geor", "kg": "kon_Latn", "ki": "kik_Latn", "kk": "kaz_Cyrl",
    "km": "khm_Khmr", "kn": "kan_Knda", "ko": "kor_Hang", "ks": "kas_Arab", "ku": "kmr_Latn",
    "ky": "kir_Cyrl", "lb": "ltz_Latn", "lg": "lug_Latn", "li": "lim_Latn", "ln": "lin_Latn",
    "lo": "lao_Laoo", "lt": "lit_Latn", "lv": "lvs_Latn", "mg": "plt_Latn", "mi": "mri_Latn",
    "mk": "mkd_Cyrl", "ml": "mal_Mlym", "mn": "khk_Cyrl", "mr": "mar_Deva", "ms": "zsm_Latn",
    "mt": "mlt_Latn", "my": "mya_Mymr", "nb": "nob_Latn", "ne": "npi_Deva", "nl": "nld_Latn",
    "nn": "nno_Latn", "ny": "nya_Latn", "oc": "oci_Latn", "om": "gaz_Latn", "or": "ory_Orya",
    "pa": "pan_Guru", "pl": "pol_Latn", "ps": "pbt_Arab", "pt": "por_Latn", "qu": "quy_Latn",
    "rn": "run_Latn", "ro": "ron_Latn", "ru": "rus_Cyrl", "rw": "kin_Latn", "sa": "san_Deva",
    "sc": "srd_Latn", "sd": "snd_Arab", "sg": "sag_Latn", "si": "sin_Sinh", "sk": "slk_Latn",
    "sl": "slv_Latn", "sm": "smo_Latn", "sn": "sna_Latn", "so": "som_Latn", "sq": "als_Latn",
    "sr": "srp_Cyrl", "ss": "ssw_Latn", "st": "sot_Latn", "su": "sun_Latn", "sv": "swe_Latn",
    "sw": "swh_Latn", "ta": "tam_Taml", "te": "tel_Telu", "tg": "tgk_Cyrl", "th": "tha_Thai",
    "ti": "tir_Ethi", "tk": "tuk_Latn", "tl": "tgl_Latn", "tn": "tsn_Latn", "tr": "tur_Latn",
    "ts": "tso_Latn", "tt": "tat_Cyrl", "tw": "twi_Latn", "ug": "uig_Arab", "uk": "ukr_Cyrl",
    "ur": "urd_Arab", "uz": "uzn_Latn", "vi": "vie_Latn", "wo": "wol_Latn", "xh": "xho_Latn",
    "yi": "ydd_Hebr", "yo": "yor_Latn", "zh": "zho_Hans", "zu": "zul_Latn",
}  # fmt: skip
# The names that prompts use, where the list has another.
_NAMES = {"lvs_Latn": "Latvian", "zho_Hans": "Chinese"}
# Further spellings of a language, by its code here: macrolanguages, ISO 639-2's own codes, common names.
_OTHERWISE = {
    "ar": "ara Arabic", "az": "aze Azerbaijani", "bo": "tib Tibetan", "cs": "cze", "cy": "wel",
    "de": "ger", "el": "gre", "eu": "baq", "fa": "fas per Persian Farsi", "fr": "fre", "he": "iw",
    "hy": "arm", "id": "in", "is": "ice", "ja": "jp", "ka": "geo", "ku": "kur Kurdish", "lv": "lav",
    "mg": "mlg Malagasy", "mi": "mao", "mk": "mac", "mn": "mon Mongolian", "ms": "msa may Malay",
    "my": "bur", "nb": "no nor Norwegian", "ne": "nep", "nl": "dut", "om": "orm Oromo",
    "or": "ori Oriya", "pa": "Panjabi Punjabi", "ps": "pus Pashto", "qu": "que Quechua", "ro": "rum",
    "sk": "slo", "sq": "sqi alb Albanian", "sw": "swa", "tl": "fil Filipino", "uz": "uzb Uzbek",
    "yi": "yid Yiddish", "yue": "Cantonese", "zh": "cmn chi cn Mandarin",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Language:
    """One language: its code here (ISO 639-1, or 639-3), its English name, and Flores-200's code."""

    code: str
    name: str
    flores: str


@functools.cache
def by_flores_code() -> dict[str, Language]:
    """All languages of Flores-200."""
    # Chinese in its other script is Chinese too.
    short = {flores: code for code, flores in FLORES.items()} | {"zho_Hant": "zh", "arb_Latn": "ar"}
    return {
        flores: Language(short.get(flores, flores.split("_")[0]), _NAMES.get(flores, name), flores)
        for flores, name in _list_of_names().items()
    }


@functools.cache
def _list_of_names() -> dict[str, str]:
    names = json.loads((Path(__file__).parent / "flores200_languages.json").read_text("utf-8"))
    return names | {"sat_Beng": names["sat_Olck"]}  # by which the list calls the archive's sat_Olck


@functools.cache
def _by_spelling() -> dict[str, Language]:
    found: dict[str, Language] = {}
    for language in by_flores_code().values():
        names = (language.name, language.name.split(" (")[0], _list_of_names()[language.flores])
        for spelling in (language.code, language.flores, language.flores.split("_")[0], *names):
            found.setdefault(_plain(spelling), language)
    for code, flores in FLORES.items():
        found[code] = found[flores.split("_")[0]] = by_flores_code()[flores]
    for code, spellings in _OTHERWISE.items():
        for spelling in spellings.split():
            found[_plain(spelling)] = found[code]
    return found


def _plain(spelling: str) -> str:
    return re.sub(r"[\s_-]+", "-", spelling.strip().lower())


def find(spelling: str) -> Language | None:
    """The language that is meant: by a code, a code with a script or region (`zh-Hant`, `pt_BR`), a name."""
    known, wanted = _by_spelling(), _plain(spelling)
    if wanted in known:
        return known[wanted]
    code, _, rest = wanted.partition("-")
    # Script, region and variant: zh-Hant-TW, sr-Latn, es-419.
    further = re.fullmatch(r"([a-z]{4}|[a-z]{2}|\d{3})(-[a-z0-9]{2,8})*", rest)
    if further and re.fullmatch(r"[a-z]{2,3}", code):
        return known.get(code)
    return None


def language(what: str, spelling: str) -> Language:
    """The language that is meant.

    Args:
        what: names the binding or flag, for the message.
        spelling: see `find`.

    Raises:
        InputError: it is not known; says which is nearest.
    """
    found = find(spelling)
    if found is None:
        spellings = {spelled: spelled for spelled in _by_spelling()}
        spellings |= {one.name.lower(): one.name for one in by_flores_code().values()}
        near = nearest(spelling.strip().lower(), spellings)
        meant = f"; did you mean {spellings[near]!r}?" if near else ""
        raise InputError(
            f"{what} = {spelling!r}: not a language that is known here{meant} Known are ISO 639 codes "
            "and English names of the languages of Flores-200, such as 'zh' or 'Chinese'"
        )
    return found
