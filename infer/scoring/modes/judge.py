"""Score with mode `judge`: ask an instruct model which response is better."""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from core.errors import InputError
from core.registry import MODES
from infer.scoring.mode import PromptFrame, ScoringMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedModel

    from core.settings.llm import Llm

TEMPLATE_DATE = datetime.date(2024, 7, 26)  # the one that Llama 3's template falls back on
_RECORD = "\u2063record\u2063"  # stands for the record while the template is applied; no template trims inside


@MODES.register
class Judge(ScoringMode):
    """Take the probabilities of the answers' tokens as the next one, among these.

    A subclass may set another `instruction`, `question` and `answers`.
    """

    name: ClassVar[str] = "judge"
    summary: ClassVar[str] = "An instruct model that is asked which response is better; no training needed."
    task_type: ClassVar[Literal["classify", "generate"]] = "generate"
    architecture: ClassVar[str] = "ForCausalLM"
    fixed_packing: ClassVar[bool] = False
    hangs_at_max_model_len: ClassVar[bool] = False

    instruction: ClassVar[str] = (
        "Below are a person's messages to two assistants and the responses of both. Judge which response that person "
        "would prefer. The order of the responses means nothing, and neither does their length in itself."
    )
    # With "A for Response A, B for Response B" and what each further outcome means.
    question: ClassVar[str] = "\n\nWhich response would the person prefer? Answer with one letter only: {choices}."
    answers: ClassVar[tuple[str, ...]] = ("A", "B", "C", "D")  # in the order of votes.schema.LABELS
    choices: ClassVar[tuple[str, ...]] = (
        "A for Response A",
        "B for Response B",
        "C if they would call it a tie",
        "D if they would find both bad",
    )

    def check_settings(self, llm: Llm) -> None:
        """Raise ValueError without a checkpoint: fine-tuned and demo models have a head."""
        if llm.checkpoint is None:
            raise ValueError(
                f"a {self.name} needs checkpoint: an instruct model; finetuned and demo models have a head"
            )

    def check_config(self, config: Mapping[str, Any], where: str, classes: int | None = 3) -> None:
        """Raise InputError unless config.json is a causal language model's."""
        architectures = config.get("architectures") or []
        if not any(str(name).endswith(self.architecture) for name in architectures):
            raise InputError(
                f"not a generative model, but {', '.join(map(str, architectures)) or 'no architecture'}",
                where,
                "name an instruct model, or set mode: classify.",
            )

    def frame(self, tokenizer: Any, classes: int = 3) -> PromptFrame:  # noqa: ANN401 - of transformers
        """Return the instruction and the question as one turn of a chat, up to where the model's answer starts.

        Raises InputError if the tokenizer has no chat template, or one that takes no single turn of the user.
        """
        where = _name(tokenizer)
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                f"the model has no chat template, so it cannot be asked as a {self.name}",
                where,
                "name an instruct model, or one with a 3-way head and mode: classify.",
            )
        question = self.question.replace("{choices}", ", ".join(self.choices[:classes]))
        turn = [{"role": "user", "content": f"{self.instruction}{_RECORD}{question}"}]
        try:
            # Some templates state the date, and a record's packing must be the same tomorrow.
            fixed = {
                "strftime_now": lambda form: TEMPLATE_DATE.strftime(form),
                "date_string": TEMPLATE_DATE.strftime("%d %b %Y"),
            }
            text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, **fixed))
        except Exception as error:  # templates are programs of the model's makers
            raise InputError(f"its chat template fails: {error}", where, "use another checkpoint.") from error
        before, record, behind = text.partition(_RECORD)
        if not record:
            raise InputError("its chat template drops the user's message", where, "use another checkpoint.")
        return PromptFrame(before, behind)

    def answer_ids(self, tokenizer: Any, frame: PromptFrame | None, classes: int = 3) -> tuple[int, ...]:  # noqa: ANN401
        """Return the token ids of the answers where they follow the question.

        Raises InputError unless each is a single token that does not change the tokens before it.
        """
        behind = (frame or self.frame(tokenizer, classes)).behind
        answers = self.answers[:classes]
        prefix = tokenizer.encode(behind, add_special_tokens=False)
        endings = [tokenizer.encode(behind + answer, add_special_tokens=False) for answer in answers]
        ids = tuple(int(ending[-1]) for ending in endings)
        if any(ending[:-1] != prefix for ending in endings) or len(set(ids)) != len(answers):
            raise InputError(
                f"its tokenizer has no single token for each of the answers {_enumerated(answers)}",
                _name(tokenizer),
                "use a model with a 3-way head and mode: classify.",
            )
        return ids

    def sampling_options(self, answer_ids: Sequence[int]) -> dict[str, Any]:
        """Allow only the answers' tokens as the next one, and request their log-probabilities.

        The most probable few of the whole vocabulary may leave out the very tokens that are needed.
        """
        ids = list(answer_ids)
        return {
            "max_tokens": 1,
            "temperature": 0.0,
            "allowed_token_ids": ids,
            "logprob_token_ids": ids,
            "detokenize": False,
        }

    def probabilities(self, reply: Mapping[str, Any], answer_ids: Sequence[int]) -> Sequence[float]:
        """Return the softmax numerators of the answers' log-probabilities."""
        first = reply["logprobs"][0].items()
        scores = {int(token): float(entry["logprob"]) for token, entry in first if entry is not None}
        highest = max(scores[token] for token in answer_ids)
        return [math.exp(scores[token] - highest) for token in answer_ids]

    def load_model(self, checkpoint: str, classes: int = 3) -> PreTrainedModel:
        """Load a causal language model."""
        from transformers import AutoModelForCausalLM

        from core.pretrained import SAFE_LOADING

        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto", **SAFE_LOADING)
        return model

    def new_model(self, config: Any) -> PreTrainedModel:  # noqa: ANN401 - of transformers
        """Make a causal language model."""
        from transformers import AutoModelForCausalLM

        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        return model


def _name(tokenizer: Any) -> str:  # noqa: ANN401 - of transformers
    return str(getattr(tokenizer, "name_or_path", "tokenizer"))


def _enumerated(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
