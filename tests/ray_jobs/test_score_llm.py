import pytest

from infer.llm_settings import LlmSettings
from preference.errors import InputError
from ray_jobs.run import Run
from ray_jobs.score_llm import _checkpoint_fingerprint, check
from ray_jobs.settings_file import load_settings


def test_checkpoints_that_differ_in_their_last_byte_alone_are_told_apart(tmp_path):
    prints = []
    for name, last in (("one", b"a"), ("two", b"b"), ("same as one", b"a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"x" * 5_000_000 + last)
        prints.append(_checkpoint_fingerprint(str(tmp_path / name)))
    assert prints[0] == prints[2] != prints[1]
    assert _checkpoint_fingerprint("owner/model") == "owner/model"


def test_moving_between_cpu_and_gpu_changes_auto_precision_only():
    assert LlmSettings("m").effective_dtype == "float32"
    assert LlmSettings("m", gpus_per_replica=1).effective_dtype == "auto"
    assert LlmSettings("m", dtype="bfloat16").effective_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("llm", "message"),
    [
        ("{name: big, checkpoint: /none/such}", "/none/such"),
        ("{name: tiny, demo: {architecture: llama}}", "needs the run on a file system"),
    ],
)
def test_what_would_stop_the_scoring_stops_the_pipeline_at_its_start(llm, message):
    settings = load_settings(f"run: s3://bucket/x\nllms: [{llm}]", "c.yaml")
    run = object.__new__(Run)  # without asking the bucket
    run.settings = settings
    with pytest.raises(InputError, match=message):
        check(run)
