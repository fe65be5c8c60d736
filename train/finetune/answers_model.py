"""Compare the answers with an encoder's mean states: for few votes, where a first-token classifier overfits.

The head sees the mean states of the tokens of prompt, A and B. Sentence encoders were trained on such means. One linear
score s is shared by both answers, so swapping them swaps their probabilities:

    logits = (d / 2, -d / 2, t)     d = s(a, p) - s(b, p)     t = v |a - b| + u (a * b) + c

Without ties there is no t; with the outcome both bad it has two values. It starts from zeros, which predicts uniformly.
It has about four parameters for each dimension of the encoder. Import this module only where a model is loaded: it
needs torch.
"""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch import nn

from core.errors import InputError
from core.pretrained import SAFE_LOADING

HEAD_FILE: Final = "answers_head.safetensors"
_DROPOUT: Final = 0.1
_PROMPT, _A, _B = 1, 2, 3  # see featurize.tokens.packing.Packer.pack_both_marked


class AnswersModel(nn.Module):  # type: ignore[misc]  # torch is not followed
    """A backbone and the head above, called like a sequence classifier with `parts` as well as ids."""

    base_model_prefix = "backbone"

    def __init__(self, backbone: Any, classes: int = 3) -> None:  # noqa: ANN401 - a model of transformers
        super().__init__()
        # A pooler of the first token is not used.
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None
        self.backbone = backbone
        size = int(backbone.config.hidden_size)
        self.dropout = nn.Dropout(_DROPOUT)
        self.score = nn.Linear(2 * size, 1, bias=False)
        self.tie = nn.Linear(2 * size, classes - 2)
        for parameter in (self.score.weight, self.tie.weight, self.tie.bias):
            nn.init.zeros_(parameter)

    @property
    def config(self) -> Any:  # noqa: ANN401 - a configuration of transformers
        """The configuration of the backbone."""
        return self.backbone.config

    @property
    def base_model(self) -> Any:  # noqa: ANN401 - a model of transformers
        """The backbone, under its name in transformers."""
        return self.backbone

    def forward(
        self, input_ids: torch.Tensor, parts: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> SimpleNamespace:
        """Return logits (n, k) for ids and the part that each belongs to, both (n, longest)."""
        return self.judge(self.pool(input_ids, parts, attention_mask))

    def pool(
        self, input_ids: torch.Tensor, parts: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the mean states (n, 3, dimensions) of prompt, A and B, which are the head's only input."""
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        return torch.stack([_mean(states, parts == part) for part in (_PROMPT, _A, _B)], dim=1)

    def judge(self, pooled: torch.Tensor) -> SimpleNamespace:
        """Return logits (n, k) for the states that `pool` returns."""
        prompt, a, b = pooled.unbind(dim=1)
        with torch.autocast(pooled.device.type, enabled=False):
            scores = [self.score(self.dropout(torch.cat([x, x * prompt], dim=1))) for x in (a, b)]
            difference = (scores[0] - scores[1]) / 2
            tie = self.tie(self.dropout(torch.cat([(a - b).abs(), a * b], dim=1)))
        return SimpleNamespace(logits=torch.cat([difference, -difference, tie], dim=1))

    def gradient_checkpointing_enable(self, **options: object) -> None:
        """Recompute the backbone's layers in the backward pass."""
        self.backbone.gradient_checkpointing_enable(**options)

    def save_pretrained(self, folder: str | os.PathLike[str], max_shard_size: str = "4GB") -> None:
        """Write the backbone as transformers does, and the head to a file of its own."""
        from safetensors.torch import save_file

        self.backbone.save_pretrained(folder, max_shard_size=max_shard_size)
        head = {
            name: value.contiguous() for name, value in self.state_dict().items() if not name.startswith("backbone.")
        }
        save_file(head, Path(folder) / HEAD_FILE)

    @classmethod
    def load(cls, folder: str) -> "AnswersModel":
        """Load the model that `save_pretrained` wrote. Raises InputError for a head with other parameters."""
        from safetensors.torch import load_file
        from transformers import AutoModel

        head = load_file(Path(folder) / HEAD_FILE)
        classes = 2 + len(head["tie.bias"]) if "tie.bias" in head else 3
        model = cls(AutoModel.from_pretrained(folder, dtype=torch.float32, **SAFE_LOADING), classes)
        expected = {name for name in model.state_dict() if not name.startswith(f"{cls.base_model_prefix}.")}
        if head.keys() != expected:
            raise InputError(
                f"it has {', '.join(sorted(head)) or 'nothing'} where the head has {', '.join(sorted(expected))}",
                str(Path(folder) / HEAD_FILE),
                "run the job that trained the model again with --force.",
            )
        model.load_state_dict(head, strict=False)
        return model


def _mean(states: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return the mean states (n, dimensions) of the chosen tokens, scaled to components of about 1."""
    weights = chosen.unsqueeze(2).to(states.dtype)
    mean = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
    return nn.functional.normalize(mean, dim=1) * mean.shape[1] ** 0.5
