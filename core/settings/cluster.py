"""The part of the schema of settings that is about the machines."""

from typing import Annotated

from pydantic import Field

from core.settings.base import NotNegative, Positive, PositiveInt, Strict


class RayCluster(Strict):
    """The local Ray cluster that is started when no cluster is given by RAY_ADDRESS."""

    cpus: PositiveInt | None = None  # logical CPUs; None takes the machine's


class Plan(Strict):
    """What --dry-run reckons with; the defaults are one H100 SXM's (NVIDIA's data sheet, dense bfloat16)."""

    peak_tflops: Positive = 989.0  # of one GPU, in the precision of the work
    share_of_peak: Annotated[float, Field(gt=0, le=1)] = 0.4  # that the work reaches
    price_per_gpu_hour: NotNegative = 3.0  # in whatever currency
