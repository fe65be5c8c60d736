"""Labels, probabilities and the columns of records and predictions.

A *record* is one comparison: a prompt, two answers, and for training records the vote. The texts are lists of turns. A
turn may be null, as in the Kaggle data. It stays null, so that features can distinguish null from empty.
"""

from typing import Final

import pyarrow as pa

# In the order of votes.comparison.OUTCOMES. A run has the first two, three or four: Records.outcomes.
LABELS: Final = ("A", "B", "tie", "both bad")
PROBABILITIES: Final = ("p_a", "p_b", "p_tie", "p_both_bad")

TEXTS: Final = ("prompt", "response_a", "response_b")
WINNERS: Final = ("winner_model_a", "winner_model_b", "winner_tie", "winner_both_bad")

RARE_VOTES: Final = 10  # an outcome with fewer votes is too rare for a model to learn how rare

_TURNS = pa.list_(pa.string())

TEST_RECORDS: Final = pa.schema(
    [
        ("id", pa.string()),
        ("position", pa.int64()),  # number among the valid rows of the input, from 0: the order of the submission
        ("prompt", _TURNS),
        ("response_a", _TURNS),
        ("response_b", _TURNS),
        ("language", pa.string()),  # as the file has it; for the report's slices only
        ("group", pa.int64()),  # hash of the normalized prompt; see votes.folds
        ("model_a", pa.string()),  # for slices and for joining verdicts; never a feature
        ("model_b", pa.string()),
    ]
)

TRAIN_RECORDS: Final = pa.schema(
    [
        *TEST_RECORDS,
        pa.field("votes", pa.list_(pa.float64())),  # vote counts, or shares of soft votes, by outcome
        pa.field("training_votes", pa.list_(pa.float64())),  # weighed by reliability; null if all voters weigh alike
        pa.field("voters", pa.int32()),  # votes that the record has
        pa.field("label", pa.int8()),  # index into LABELS of the outcome with most votes
        pa.field("fold", pa.int16()),
    ]
)

BALLOTS: Final = (
    pa.schema(  # one person's vote on a record; in records/voters, if people are known or pairs have several votes
        [
            ("id", pa.string()),
            ("voter", pa.string()),
            ("time", pa.string()),
            ("votes", pa.list_(pa.float64())),  # by outcome
            ("weight", pa.float64()),  # in training, by the voter's reliability
            ("exchanged", pa.bool_()),  # whether the voter's A is the record's B
        ]
    )
)

QUARANTINE: Final = pa.schema(
    [
        ("split", pa.string()),  # train or test
        ("file", pa.string()),
        ("row", pa.int64()),  # 1-based data row; the header is not counted
        ("reason", pa.string()),
        ("id", pa.string()),
        ("raw", pa.string()),  # the row as read, as JSON, so that nothing is lost
    ]
)
