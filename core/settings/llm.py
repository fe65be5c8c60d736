"""Settings of scoring with language models."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from core.registry import MODES
from core.settings.base import Count, Name, Positive, PositiveInt, Share, StrictModel, member_of, tuple_from_list
from core.settings.engine_args import check_engine_args
from core.settings.packing import Truncation

# Arguments of vLLM's engine that change probabilities by rounding at most.
SPEED_ONLY_ARGS = (
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
_SECRETS = ("hf_token", "_key", "_secret", "password")  # how an engine argument with a secret ends

TinyArchitecture = Literal["gemma2", "llama"]
Dtype = Literal["auto", "float32", "bfloat16"]
EngineArgs = dict[str, bool | int | float | str]


class TinyLlm(StrictModel):
    """A tiny checkpoint that the demo builds itself: random weights, trained for a few seconds."""

    architecture: TinyArchitecture = Field(description="The model's architecture, at a toy size.")


class Cascade(StrictModel):
    """Limit a model to the records that a cheaper model is least sure of; the others keep the cheaper predictions."""

    model: Name = Field(description="The cheaper model: a booster, an encoder, or a language model listed earlier.")
    share: Share = Field(
        default=0.3,
        description="Share of the records of each split that this model scores: those of highest entropy.",
    )


class Llm(StrictModel):
    """A language model that scores records through vLLM."""

    renamed: ClassVar[dict[str, str]] = {
        "replicas": "num_workers",
        "cpus_per_replica": "cpus_per_worker",
        "gpus_per_replica": "gpus_per_worker",
        "tokens_per_step": "max_tokens_per_microbatch",
        "patience_s": "timeout_s",
        "engine": "engine_args",
        "trained": "finetuned",
    }

    name: Name = Field(description="The model's name in predictions, blend and report.")
    mode: Annotated[str, member_of(MODES)] = Field(
        default="classify",
        description="The scoring mode: classify (a head for A, B and tie), judge (asks which answer is better), or a "
        "plugin's.",
    )
    checkpoint: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The checkpoint: a folder, a hub id, or an s3:// or gs:// URI."
    )
    adapter: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Folder or URI of LoRA weights, which are merged into the checkpoint once."
    )
    demo: TinyLlm | None = Field(default=None, description="A tiny checkpoint that the run builds itself.")
    finetuned: Name | None = Field(
        default=None,
        description="Name of a model that train_llm fine-tunes. Each fold's checkpoint scores its held-out records.",
    )
    max_tokens: Annotated[int, Field(ge=64)] = Field(
        default=2048, description="Tokens of a request at most. Longer records are truncated."
    )
    truncation: Truncation = Field(default="right", description="What is dropped from a record that is too long.")
    swap: Literal["none", "both", "uncertain"] = Field(
        default="both",
        description="Orders of the answers. `both` averages both orders, and `none` scores A before B only. "
        "`uncertain` scores the second order only for the most uncertain records.",
    )
    uncertain_share: Share = Field(
        default=0.33,
        description="With swap: uncertain, the share of each split's records that is scored in both orders: those of "
        "highest entropy.",
    )
    temperature: Positive = Field(
        default=1.0, description="Divides the logits. Above 1 flattens the probabilities, below 1 sharpens them."
    )
    cascade: Cascade | None = Field(
        default=None, description="Score only the records that a cheaper model is least sure of."
    )
    dtype: Dtype = Field(
        default="auto", description="Precision of the model. auto is the checkpoint's own on GPUs, float32 on CPUs."
    )
    num_workers: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        default=1, description="Engines that run at once, or [min, max] to scale with the cluster's free resources."
    )
    cpus_per_worker: PositiveInt = Field(default=1, description="CPUs of each engine.")
    gpus_per_worker: Count = Field(
        default=0, description="GPUs of each engine; 0 runs on CPUs. More than one splits the model (tensor parallel)."
    )
    batch_size: PositiveInt = Field(default=32, description="Requests that are sent to an engine together.")
    max_tokens_per_microbatch: PositiveInt | None = Field(
        default=None,
        description="Tokens of a forward pass at most. The default is 16,384 on GPUs, and vLLM's own on CPUs.",
    )
    max_failed: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01, description="Share of the records that may fail before the job fails. They go to the quarantine."
    )
    timeout_s: Positive = Field(
        default=1800.0,
        description="Seconds without a reply, or without the CPUs and GPUs of an engine, after which the job fails.",
    )
    engine_args: EngineArgs = Field(
        default={}, description="More of vLLM's engine arguments, which win over those set here."
    )

    @property
    def decisive_engine_args(self) -> EngineArgs:
        """Return the engine arguments that decide replies. Changing the others, memory and speed, redoes nothing."""
        return {name: value for name, value in self.engine_args.items() if name not in SPEED_ONLY_ARGS}

    @property
    def worker_range(self) -> tuple[int, int]:
        """Return the fewest and the most engines."""
        return (self.num_workers, self.num_workers) if isinstance(self.num_workers, int) else self.num_workers

    @property
    def effective_dtype(self) -> Dtype:
        """Return the precision to request from vLLM. On CPUs `auto` is float32."""
        return "float32" if self.dtype == "auto" and self.gpus_per_worker == 0 else self.dtype

    @model_validator(mode="before")
    @classmethod
    def _range_from_list(cls, values: Any) -> Any:  # noqa: ANN401 - raw YAML
        return tuple_from_list(values, "num_workers")

    @field_validator("engine_args")
    @classmethod
    def _engine_args_are_safe(cls, engine_args: EngineArgs) -> EngineArgs:
        if engine_args.get("load_format", SAFE_FORMATS[0]) not in SAFE_FORMATS:
            raise ValueError(f"load_format is one of {', '.join(SAFE_FORMATS)}: others read pickle, which runs code")
        for name in engine_args:
            if name.endswith(_SECRETS):
                raise ValueError(f"{name} would be saved and shown in the report: set it in the nodes' environment")
        return engine_args

    @model_validator(mode="after")
    def _settings_agree(self) -> Llm:
        if [self.checkpoint, self.demo, self.finetuned].count(None) != 2:
            raise ValueError(
                "give one of checkpoint (a folder, URI or hub id), finetuned (a model of train_llm) and demo (a tiny "
                "model built here)"
            )
        check_engine_args(f"llms.{self.name}.engine_args", list(self.engine_args))
        MODES.get(self.mode).check_settings(self)
        if self.adapter is not None and self.checkpoint is None:
            raise ValueError("an adapter needs checkpoint: the model whose weights it changes")
        if self.worker_range[0] > self.worker_range[1]:
            raise ValueError("num_workers is [min, max], and min must not exceed max")
        return self
