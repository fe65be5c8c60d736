import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.tiny_models import encoder_settings
from train.finetune.sampler import EpochSampler, assign_microbatches, learning_rate_at, plan_epoch, steps_per_epoch


@given(st.lists(st.integers(1, 200), min_size=1, max_size=120), st.integers(1, 20), st.integers(50, 2000))
def test_an_epoch_has_every_record_once_within_the_budget(lengths, per_step, budget):
    lengths = np.array(lengths)
    plan = plan_epoch(lengths, per_step, budget, orders=2, seed=(1, 0, 0))
    assert len(plan) == steps_per_epoch(len(lengths), per_step)
    records = np.concatenate([batch for step in plan for batch in step.microbatches])
    assert sorted(records.tolist()) == list(range(len(lengths)))
    for step in plan:
        assert step.records == sum(map(len, step.microbatches)) <= per_step
        for batch in step.microbatches:
            assert len(batch) == 1 or 2 * len(batch) * lengths[batch].max() <= budget


def test_a_plan_depends_on_its_seed_alone():
    lengths = np.random.default_rng(0).integers(10, 500, 300)

    def first(seed):
        return [batch.tolist() for batch in plan_epoch(lengths, 16, 2048, 2, seed)[0].microbatches]

    assert first((1, 0, 0)) == first((1, 0, 0))
    assert first((1, 0, 0)) != first((1, 0, 1))


def test_little_of_a_batch_is_padding():
    lengths = np.random.default_rng(0).integers(10, 500, 2000)
    plan = plan_epoch(lengths, 16, 4096, 2, (1, 0, 0))
    padded = sum(len(batch) * lengths[batch].max() for step in plan for batch in step.microbatches)
    assert padded < 1.15 * lengths.sum()


@given(st.lists(st.integers(1, 100), max_size=40), st.integers(1, 6))
def test_microbatches_are_shared_out_evenly(sizes, workers):
    shares = assign_microbatches(sizes, workers)
    assert sorted(index for share in shares for index in share) == list(range(len(sizes)))
    loads = [sum(sizes[index] for index in share) for share in shares]
    assert max(loads) - min(loads) <= max(sizes, default=0)


def test_the_learning_rate_rises_and_falls():
    rates = [learning_rate_at(step, 100, warmup_ratio=0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == 1.0
    assert rates[10] == 1.0
    assert rates[99] == pytest.approx(1 / 90)
    assert learning_rate_at(0, 100, warmup_ratio=0.0) == 1.0


def test_epochs_differ_in_their_steps_and_swaps_and_repeat_for_the_same_seed():
    lengths = np.random.default_rng(0).integers(10, 500, 100)
    sampler, again = (EpochSampler(lengths, encoder_settings(swap="random"), seed=1) for _ in range(2))
    assert sampler.steps_per_epoch == len(sampler.steps(0, 0)) == 7
    for epoch in range(2):
        assert (sampler.swaps(0, epoch) == again.swaps(0, epoch)).all()
        records, others = (np.concatenate(part.steps(0, epoch)[0].microbatches) for part in (sampler, again))
        assert (records == others).all()
    assert 30 < sampler.swaps(0, 0).sum() < 70
    assert (sampler.swaps(0, 0) != sampler.swaps(0, 1)).any()
    assert (sampler.swaps(0, 0) != sampler.swaps(1, 0)).any()
