"""One text, analysed once for all families that look at it."""

import functools
import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+")
_CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


class Text:
    """The turns of a prompt or an answer and what is derived from them."""

    def __init__(self, turns: Sequence[str | None]) -> None:
        self.turns = turns
        self.full = "\n".join(turn for turn in turns if turn)

    @functools.cached_property
    def words(self) -> list[str]:
        """Runs of letters, digits and underscores, lower-cased."""
        return _WORD.findall(self.full.lower())

    @functools.cached_property
    def code_blocks(self) -> int:
        """Fenced code blocks; one that is never closed counts."""
        return len(_CODE_BLOCK.findall(self.full))

    @functools.cached_property
    def prose(self) -> str:
        """The text without fenced code, where # and * are no markup."""
        return _CODE_BLOCK.sub("\n", self.full)
