"""What is told of an actor that died."""

from ray.exceptions import RayActorError

from infer.scoring.engine_log import death_cause, last_error

LOG = """
INFO starting
WARNING Failed to import: ModuleNotFoundError("No module named 'x'")
(EngineCore pid=7) ValueError: no head
(EngineCore pid=7) Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-27 04:02:42 [core.py:1376] torch.OutOfMemoryError: CUDA out of memory
RuntimeError: Engine core initialization failed. See root cause above.
ERROR 11-27 04:02:42 [async_llm.py:819] vllm.v1.EngineDeadError: See stack trace (above) for the root cause.
"""


def test_the_last_error_is_the_cause_and_not_what_refers_to_it() -> None:
    assert last_error(LOG) == "torch.OutOfMemoryError: CUDA out of memory"
    assert last_error("INFO starting\n") == ""


def test_without_a_log_at_hand_it_is_what_ray_says() -> None:
    assert death_cause(RayActorError(error_msg="it died\nbecause of that")) == "it died\nbecause of that"
    assert death_cause(RayActorError(error_msg="it died\nTypeError: unexpected argument 'x'")) == (
        "TypeError: unexpected argument 'x'"
    )
