"""Settings of the machines: the local Ray cluster, and what --dry-run estimates with."""

from typing import Annotated, ClassVar

from pydantic import Field

from core.settings.base import NotNegative, Positive, PositiveInt, StrictModel


class RayCluster(StrictModel):
    """The local Ray cluster that a job starts when RAY_ADDRESS names none."""

    cpus: PositiveInt | None = Field(None, description="Logical CPUs of the local cluster; null takes the machine's.")


class Plan(StrictModel):
    """What --dry-run estimates with; the defaults are one H100 SXM's (NVIDIA's data sheet, dense bfloat16)."""

    renamed: ClassVar[dict[str, str]] = {"share_of_peak": "mfu"}

    peak_tflops: Positive = Field(989.0, description="Peak TFLOP/s of one GPU in the dtype of the work.")
    mfu: Annotated[float, Field(gt=0, le=1)] = Field(
        0.4, description="Model FLOPs utilization: the share of the peak that the work reaches."
    )
    price_per_gpu_hour: NotNegative = Field(3.0, description="Price of one GPU-hour, in any currency.")
