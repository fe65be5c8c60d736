"""Language and script of each text, and whether an answer keeps to those of its prompt."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import FAMILIES
from featurize.blocks import Feature
from featurize.family import TextFamily

if TYPE_CHECKING:
    from featurize.text import Text

_SEEN_CHARS = 300  # from which the language is identified: more rarely change it, and cost time
# Where each stretch of letters begins, from Unicode's Blocks.txt; the blocks of one script are joined.
_RANGES = (
    (0x41, "latin"), (0x5B, ""), (0x61, "latin"), (0x7B, ""), (0xC0, "latin"), (0x250, ""), (0x370, "greek"),
    (0x400, "cyrillic"), (0x530, "other"), (0x590, "hebrew"), (0x600, "arabic"), (0x780, "other"),
    (0x8A0, "arabic"), (0x900, "indic"), (0xE00, "other"), (0x1100, "hangul"), (0x1200, "other"),
    (0x1E00, "latin"), (0x1F00, "greek"), (0x2000, ""), (0x2C00, "other"), (0x3000, ""), (0x3040, "kana"),
    (0x3100, "han"), (0x3130, "hangul"), (0x3190, "han"), (0x31F0, "kana"), (0x3200, ""), (0x3400, "han"),
    (0xA000, "other"), (0xAC00, "hangul"), (0xD7B0, ""), (0xF900, "han"), (0xFB00, "other"), (0xFE00, ""),
    (0xFE70, "arabic"), (0xFF00, ""), (0xFF21, "latin"), (0xFF3B, ""), (0xFF41, "latin"), (0xFF5B, ""),
    (0xFF66, "kana"), (0xFFA0, "hangul"), (0xFFE0, ""), (0x10000, "other"), (0x1D400, ""), (0x20000, "han"),
    (0x40000, ""),
)  # fmt: skip
# Among all of py3langid's languages a short text is often taken for a rare relative of its own.
_LANGUAGES = (
    *("ar", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "he", "hi", "hr", "hu", "id"),
    *("it", "ja", "ko", "lt", "lv", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sv", "ta", "th", "tr", "uk", "vi"),
    "zh",
)
SCRIPTS = ("latin", "cyrillic", "greek", "arabic", "hebrew", "indic", "han", "kana", "hangul", "other")
_STARTS = np.array([start for start, _ in _RANGES])
_SCRIPT_OF = np.array([SCRIPTS.index(script) if script else len(SCRIPTS) for _, script in _RANGES])

_FEATURES = (
    *(Feature(script, "share", f"letters of this script ({script}) per letter") for script in SCRIPTS),
    Feature("scripts", "scripts", "scripts with at least a tenth of the letters"),
    Feature("english", "0 or 1", f"1 if py3langid takes the first {_SEEN_CHARS} characters of prose for English"),
    Feature("confidence", "0 to 1", "how sure py3langid is of the language"),
)
_ANSWER_FEATURES = (
    Feature("other_language", "0 or 1", "1 if the answer's language differs from the prompt's, if both are clear"),
    Feature("other_script", "0 or 1", "1 if the answer's most frequent script differs from the prompt's"),
)


@FAMILIES.register
class LanguageFamily(TextFamily):
    """Language and script of each text, and whether an answer keeps to those of its prompt."""

    name = "language"
    summary = "script shares, English or not (py3langid), whether an answer leaves its prompt's language"
    version = 2
    position = 6
    libraries = ("py3langid",)
    text_features = _FEATURES
    answer_features = _ANSWER_FEATURES

    def describe(self, text: Text) -> list[float]:
        """Return the text features."""
        shares = _shares(text)
        language, confidence = _language(text)
        return [*shares, float((shares >= 0.1).sum()), float(language == "en"), confidence]

    def describe_answer(self, prompt: Text, answer: Text) -> list[float]:
        """Return the answer features: does the answer keep to its prompt's language and script?"""
        (of_prompt, prompt_confidence), (of_answer, answer_confidence) = _language(prompt), _language(answer)
        scripts = [_shares(text) for text in (prompt, answer)]
        return [
            float(of_prompt != of_answer and min(prompt_confidence, answer_confidence) >= 0.5),
            float(all(shares.any() for shares in scripts) and scripts[0].argmax() != scripts[1].argmax()),
        ]


def _shares(text: Text) -> Any:  # noqa: ANN401 - an array
    known = text.memo.get("script_shares")
    if known is None:
        letters = np.zeros(len(SCRIPTS), np.int64)
        if text.full.isascii():
            letters[0] = text.ascii_counts[65:91].sum() + text.ascii_counts[97:123].sum()
        else:
            codes = np.frombuffer(text.full.encode("utf-32-le", "surrogatepass"), np.uint32)
            places = np.searchsorted(_STARTS, codes, side="right") - 1
            letters = np.bincount(_SCRIPT_OF[np.maximum(places, 0)][places >= 0], minlength=len(SCRIPTS) + 1)[:-1]
        known = text.memo["script_shares"] = letters / max(letters.sum(), 1)
    return known


def _language(text: Text) -> tuple[str, float]:
    known = text.memo.get("language")
    if known is None:
        start = text.prose[:_SEEN_CHARS]
        known = ("", 0.0)
        if any(map(str.isalpha, start)):
            language, confidence = _identifier().classify(start)
            known = (language, float(confidence))
        text.memo["language"] = known
    return known


@functools.cache
def _identifier() -> Any:  # noqa: ANN401 - py3langid has no types
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_LANGUAGES)
    return identifier
