"""Sentiment and tone: how an answer speaks to its reader. Phrases and sentiment are those of English."""

import re

from featurize.catalogue import Feature
from featurize.text import Text

_SCORED_CHARS = 4000  # sentiment costs as much as all other hand-made features together
FEATURES = (
    Feature("polarity", "-1 to 1", f"sentiment by TextBlob's lexicon, first {_SCORED_CHARS} characters of prose"),
    Feature("subjectivity", "0 to 1", f"subjectivity by TextBlob's lexicon, first {_SCORED_CHARS} characters of prose"),
    Feature("hedges", "phrases", "perhaps, may, might, it seems, I think and the like"),
    Feature("apologies", "phrases", "sorry, I apologize, unfortunately"),
    Feature("refusals", "phrases", "I cannot, I'm unable, as an AI, and the like"),
    Feature("opening_refusal", "0 or 1", "1 if such a phrase or an apology stands in the first 200 characters"),
    Feature("first_person", "words", "I, me, my, we, our"),
    Feature("second_person", "words", "you, your"),
    Feature("courtesy", "phrases", "please, thank you, certainly, of course, happy to help, great question"),
    Feature("closing_offer", "0 or 1", "1 if the last 200 characters offer more help"),
    Feature("contrasts", "words", "however, but, although, on the other hand"),
    Feature("causes", "words", "because, therefore, thus, hence, since, so that"),
    Feature("examples", "phrases", "for example, for instance, such as, e.g."),
    Feature("imperative_lines", "lines", "lines that begin with a verb of instruction such as use, add, make sure"),
    Feature("ends_with_question", "0 or 1", "1 if the text ends with a question mark"),
    Feature("cut_off", "0 or 1", "1 if the text ends in a letter, digit or comma, as one that was cut does"),
)


def _phrases(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b", re.IGNORECASE)


_REFUSAL = _phrases(
    *("i can(?:not|'t|’t)", "i am (?:unable|not able)", "i['’]m (?:unable|not able)", "i won['’]?t"),
    "i do(?:n['’]t| not) have (?:access|the ability|personal)",
    *("as an? (?:ai|language model|artificial)", "against my (?:guidelines|programming)"),
    "not (?:appropriate|able to (?:help|assist|provide))",
)
_APOLOGY = _phrases("sorry", "i apologi[sz]e", "my apologies", "unfortunately")
_GUARDED = (
    _phrases("perhaps", "may", "might", "maybe", "possibly", "probably", "likely", "it seems", "i think", "i believe"),
    _APOLOGY,
    _REFUSAL,
)
_ADDRESSED = (
    _phrases("i", "me", "my", "we", "our", "us"),
    _phrases("you", "your", "yours"),
    _phrases("please", "thank you", "thanks", "certainly", "of course", "happy to help", "great question", "sure"),
)
_ARGUED = (
    _phrases("however", "but", "although", "though", "nevertheless", "on the other hand", "whereas"),
    _phrases("because", "therefore", "thus", "hence", "since", "so that", "as a result", "consequently"),
    _phrases("for example", "for instance", "such as", "e\\.g", "like this"),
)
_OFFER = _phrases(
    "let me know", "feel free", "happy to", "glad to", "hope this helps", "anything else", "would you like"
)
_INSTRUCTIONS = (
    *("use", "add", "make", "try", "set", "take", "open", "click", "create", "write", "remember", "consider", "check"),
    *("start", "ensure", "avoid", "keep", "run", "choose", "find", "get", "put", "cook", "mix", "place", "install"),
)
_IMPERATIVE = re.compile(
    rf"^[ \t]*(?:(?:[-*•]|\d{{1,3}}[.)])[ \t]*)?(?:\*\*)?(?:{'|'.join(_INSTRUCTIONS)})\b", re.IGNORECASE | re.MULTILINE
)


def describe(text: Text) -> list[float]:
    """The features of one text, in the order of FEATURES."""
    prose = text.prose
    end = prose.rstrip()
    polarity, subjectivity = _sentiment(prose[:_SCORED_CHARS])
    opening = prose[:200]
    return [
        polarity,
        subjectivity,
        *(len(pattern.findall(prose)) for pattern in _GUARDED),
        float(bool(_REFUSAL.search(opening) or _APOLOGY.search(opening))),
        *(len(pattern.findall(prose)) for pattern in _ADDRESSED),
        float(_OFFER.search(end[-200:]) is not None),
        *(len(pattern.findall(prose)) for pattern in _ARGUED),
        len(_IMPERATIVE.findall(prose)),
        float(end.endswith(("?", "？"))),
        float(bool(end) and (end[-1].isalnum() or end[-1] == ",")),
    ]


def _sentiment(text: str) -> tuple[float, float]:
    from textblob import en

    if not text.strip():
        return 0.0, 0.0
    polarity, subjectivity = en.sentiment(text)
    return float(polarity), float(subjectivity)
