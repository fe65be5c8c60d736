"""Sentiment and tone: how an answer speaks to its reader. Phrases and sentiment are those of English."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from core.registry import FAMILIES
from featurize.blocks import Feature
from featurize.family import TextFamily
from featurize.text import Text, pad_words

_SCORED_CHARS = 2000  # sentiment costs as much as all other hand-made features together
_FEATURES = (
    Feature("polarity", "-1 to 1", f"sentiment by TextBlob's lexicon, first {_SCORED_CHARS} characters of prose"),
    Feature("subjectivity", "0 to 1", f"subjectivity by TextBlob's lexicon, first {_SCORED_CHARS} characters of prose"),
    Feature("hedges", "phrases", "perhaps, may, might, it seems, I think and the like"),
    Feature("apologies", "phrases", "sorry, I apologize, unfortunately"),
    Feature("refusals", "phrases", "I cannot, I'm unable, as an AI, and the like"),
    Feature("first_person", "words", "I, me, my, we, our"),
    Feature("second_person", "words", "you, your"),
    Feature("courtesy", "phrases", "please, thank you, certainly, of course, happy to help, great question"),
    Feature("contrasts", "words", "however, but, although, on the other hand"),
    Feature("causes", "words", "because, therefore, thus, hence, since, so that"),
    Feature("examples", "phrases", "for example, for instance, such as, e.g."),
    Feature("opening_refusal", "0 or 1", "1 if a refusal or an apology stands in the first 200 characters"),
    Feature("closing_offer", "0 or 1", "1 if the last 200 characters offer more help"),
    Feature("imperative_lines", "lines", "lines that begin with a verb of instruction such as use, add, make sure"),
    Feature("ends_with_question", "0 or 1", "1 if the text ends with a question mark"),
    Feature("cut_off", "0 or 1", "1 if the text ends in a letter, digit or comma, and not in a code block"),
)


@dataclass(frozen=True)
class _Lexicon:
    """Words and phrases, as lower-case words. An apostrophe or a full stop divides two words.

    Counting words in a table and phrases as substrings takes a tenth of the time of one regular expression.
    """

    words: tuple[str, ...]
    phrases: tuple[str, ...] = ()

    def count(self, text: Text) -> int:
        """Return the occurrences in a text."""
        single = sum(map(text.word_counts.__getitem__, self.words))
        return single + sum(map(text.spaced.count, self._spaced))

    @functools.cached_property
    def _spaced(self) -> tuple[str, ...]:
        return tuple(pad_words(phrase.split()) for phrase in self.phrases)


_HEDGES = _Lexicon(
    ("perhaps", "may", "might", "maybe", "possibly", "probably", "likely"), ("it seems", "i think", "i believe")
)
_APOLOGIES = _Lexicon(("sorry", "unfortunately"), ("i apologize", "i apologise", "my apologies"))
_REFUSALS = _Lexicon(
    (),
    (
        *("i cannot", "i can t", "i am unable", "i am not able", "i m unable", "i m not able", "i won t"),
        *("i don t have access", "i do not have access", "i don t have personal", "i do not have personal"),
        *("as an ai", "as a language model", "as an artificial", "against my guidelines", "against my programming"),
        *("not appropriate", "not programmed to", "not designed to"),
    ),
)
_COUNTED = (
    _HEDGES,
    _APOLOGIES,
    _REFUSALS,
    _Lexicon(("i", "me", "my", "we", "our", "us")),
    _Lexicon(("you", "your", "yours")),
    _Lexicon(("please", "thanks", "certainly", "sure"), ("thank you", "of course", "happy to help", "great question")),
    _Lexicon(("however", "but", "although", "though", "nevertheless", "whereas"), ("on the other hand",)),
    _Lexicon(("because", "therefore", "thus", "hence", "since", "consequently"), ("so that", "as a result")),
    _Lexicon((), ("for example", "for instance", "such as", "e g", "like this")),
)
_OFFERS = _Lexicon(
    (), ("let me know", "feel free", "happy to", "glad to", "hope this helps", "anything else", "would you like")
)
_INSTRUCTIONS = (
    *("use", "add", "make", "try", "set", "take", "open", "click", "create", "write", "remember", "consider", "check"),
    *("start", "ensure", "avoid", "keep", "run", "choose", "find", "get", "put", "cook", "mix", "place", "install"),
)
_IMPERATIVE = re.compile(
    rf"^[ \t]*(?:(?:[-*•]|\d{{1,3}}[.)])[ \t]*)?(?:\*\*)?(?:{'|'.join(_INSTRUCTIONS)})\b", re.IGNORECASE | re.MULTILINE
)


_SENTIMENT_WORD = re.compile(r"[a-z']+|!")


@FAMILIES.register
class ToneFamily(TextFamily):
    """Sentiment and tone: how an answer speaks to its reader. Phrases and sentiment are those of English."""

    name = "tone"
    summary = "sentiment (TextBlob), hedges, apologies, refusals, address, offers, unfinished endings"
    version = 2
    position = 5
    libraries = ("textblob",)
    text_features = _FEATURES

    def describe(self, text: Text) -> list[float]:
        """Return the text features."""
        prose = text.prose
        end = prose.rstrip()
        opening = Text([prose[:200]])
        ends_in_prose = not text.full.rstrip().endswith("```")
        return [
            *_sentiment(prose[:_SCORED_CHARS]),
            *(lexicon.count(text) for lexicon in _COUNTED),
            float(_REFUSALS.count(opening) + _APOLOGIES.count(opening) > 0),
            float(_OFFERS.count(Text([end[-200:]])) > 0),
            len(_IMPERATIVE.findall(prose)),
            float(ends_in_prose and end.endswith(("?", "？"))),
            float(ends_in_prose and end != "" and (end[-1].isalnum() or end[-1] == ",")),
        ]


def _sentiment(text: str) -> tuple[float, float]:
    from textblob import en

    # TextBlob's own tokenizer takes as long as its scoring, and its list of emoticons as long again. Unknown words only
    # end the reach of a negation or an adverb. A long one ends both, so the unknown words after it change nothing.
    scored = _scored_words()
    words: list[str] = []
    ended = False
    for word in _SENTIMENT_WORD.findall(text.lower().replace("’", "'").replace("n't", " n't")):
        if word in scored:
            words.append(word)
            ended = False
        elif not ended:
            words.append(word)
            ended = len(word.strip("'")) > 2
    if not words:
        return 0.0, 0.0
    polarity, subjectivity = en.sentiment(words)
    return float(polarity), float(subjectivity)


@functools.cache
def _scored_words() -> frozenset[str]:
    from textblob import en

    return frozenset({*en.sentiment.keys(), *en.sentiment.negations, "!"})
