"""The part of the schema of settings that is about scoring with language models."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from core.settings.base import Count, Name, Positive, PositiveInt, Share, Strict, tuple_from_list
from core.settings.packing import Truncation

# Arguments of vLLM's engine that change probabilities by rounding at most.
SPEED_ALONE = (
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "cpu_offload_gb",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enforce_eager",
    "enable_chunked_prefill",
    "enable_prefix_caching",
)
SAFE_FORMATS = ("safetensors", "fastsafetensors", "runai_streamer", "dummy")


class TinyLlm(Strict):
    """A tiny checkpoint that the demo builds itself: random weights, a few seconds of training."""

    architecture: Literal["gemma2", "llama"]


class Cascade(Strict):
    """Which records a model sees: those of which a cheaper one is least sure. The others keep the cheaper one's."""

    model: Name
    share: Share = 0.3  # of the records of each split, by the entropy of the cheaper model's prediction


class Llm(Strict):
    """One language model: with a 3-way head (classify), or asked which answer is better (judge)."""

    name: Name
    mode: Literal["classify", "judge"] = "classify"
    checkpoint: Annotated[str, Field(min_length=1)] | None = None  # a folder, a hub id, or an s3:// or gs:// URI
    adapter: Annotated[str, Field(min_length=1)] | None = None  # folder or URI of LoRA weights for the checkpoint
    demo: TinyLlm | None = None
    trained: Name | None = None  # one of finetune.llms: each fold's model scores the records it was not trained on
    max_tokens: Annotated[int, Field(ge=64)] = 2048
    truncation: Truncation = "right"  # what of a record that is too long is left out
    # Both orders of every record and their mean; one order; or the second order only where the first is least sure.
    swap: Literal["none", "both", "uncertain"] = "both"
    uncertain_share: Share = 0.33  # of the records of each split, by the entropy of the first order's prediction
    temperature: Positive = 1.0  # above 1 flattens the probabilities, below sharpens them
    cascade: Cascade | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    replicas: PositiveInt | tuple[PositiveInt, PositiveInt] = 1  # or the fewest and the most, as the cluster has room
    cpus_per_replica: PositiveInt = 1
    gpus_per_replica: Count = 0
    batch_size: PositiveInt = 32
    tokens_per_step: PositiveInt | None = None  # read in a forward pass at most; on GPUs 16,384 if not given
    # Share of the records that may fail before the job does; those that failed are in the model's quarantine.
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.01
    patience_s: Positive = 1800.0  # without any answer, or without the GPUs asked for, before the job gives up
    engine: dict[str, bool | int | float | str] = {}

    @property
    def decisive_engine(self) -> dict[str, bool | int | float | str]:
        """What of `engine` decides a model's answers: a change of the rest, memory and speed, scores nothing again."""
        return {name: value for name, value in self.engine.items() if name not in SPEED_ALONE}

    @property
    def replica_range(self) -> tuple[int, int]:
        """The fewest and the most engines."""
        return (self.replicas, self.replicas) if isinstance(self.replicas, int) else self.replicas

    @model_validator(mode="before")
    @classmethod
    def _range_from_list(cls, values: Any) -> Any:  # noqa: ANN401 - raw YAML
        return tuple_from_list(values, "replicas")

    @field_validator("engine")
    @classmethod
    def _safe(cls, engine: dict[str, Any]) -> dict[str, Any]:
        if engine.get("load_format", SAFE_FORMATS[0]) not in SAFE_FORMATS:
            raise ValueError(f"load_format is one of {', '.join(SAFE_FORMATS)}: others read pickle, which runs code")
        for name in engine:
            if name.endswith(("hf_token", "_key", "_secret", "password")):
                raise ValueError(f"{name} would be saved and shown in the report: set it in the nodes' environment")
        return engine

    @model_validator(mode="after")
    def _one_source(self) -> "Llm":
        if [self.checkpoint, self.demo, self.trained].count(None) != 2:
            raise ValueError(
                "give one of checkpoint (a folder, URI or hub id), trained (one of finetune.llms) and demo (a tiny "
                "model built here)"
            )
        if self.mode == "judge" and self.checkpoint is None:
            raise ValueError("a judge needs checkpoint: an instruct model; trained and demo models have a head")
        if self.adapter is not None and self.checkpoint is None:
            raise ValueError("an adapter needs checkpoint: the model whose weights it changes")
        if self.replica_range[0] > self.replica_range[1]:
            raise ValueError("replicas go from the fewest to the most")
        return self
