"""Add a scoring mode: a judge with another question.

    tiebreak score_llm --config my.yaml --plugin examples/custom_mode.py

my.yaml names an instruct model: `llms: [{name: strict, mode: strict_judge, checkpoint: FOLDER}]`.
"""

from core.registry import MODES
from infer.scoring.modes.judge import Judge


@MODES.register
class StrictJudge(Judge):
    """Judge which answer has fewer errors."""

    name = "strict_judge"
    summary = "An instruct model that judges which response has fewer errors."
    instruction = "Below are a person's messages and two responses. Judge which response has fewer errors."
    question = "\n\nAnswer with one letter only: {choices}."
    answers = ("X", "Y", "Z", "W")  # one token each, in the order A, B, tie, both bad
    choices = ("X for Response A", "Y for Response B", "Z if they are equal", "W if both are full of errors")
