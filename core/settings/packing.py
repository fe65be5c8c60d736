"""How a record's texts become token ids: names that several sections of the settings share."""

from typing import Literal

# Which end of the ids the model reads: a decoder's head reads the last token, an encoder's the first.
TokenLayout = Literal["decoder", "encoder"]
# What of a record that is too long is kept; see featurize.tokens.truncation. `right` keeps the first rounds and the
# heads of texts, `left` the last rounds and the tails. `middle` keeps rounds of both ends, and head and tail of a text.
# `first-2-last-2` keeps the heads of texts of at most the first two and the last two rounds.
Truncation = Literal["right", "left", "middle", "first-2-last-2"]
