from train.finetune.progress import ProgressReporter, TokenClock

POINT = {"stage": 0, "epoch": 1, "step": 4, "loss": 1.0, "learning_rate": 1e-3, "tokens": 10.0}


class Actor:
    """Keeps posted lines, as train.finetune.fold_trainer.ProgressLog does."""

    def __init__(self):
        self.lines = []
        self.post = self

    def remote(self, fold, text):
        self.lines.append((fold, text))


def test_the_rate_is_that_of_the_stage():
    clock = TokenClock(tokens_left=1000)
    clock.count(100, 10.0)
    clock.begin_stage()
    clock.count(300, 3.0)
    assert (clock.rate, clock.seconds_left, clock.training_seconds) == (100.0, 6.0, 13.0)


def test_steps_are_posted_now_and_then_and_notes_at_once(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    actor, clock = Actor(), TokenClock(tokens_left=100)
    progress = ProgressReporter(2, actor)
    clock.count(10, 1.0)
    progress.step(POINT, 8, clock)
    progress.step(POINT, 8, clock)
    progress.note("saving the model")
    now += 11
    progress.step(POINT, 8, clock)
    line = "stage 1, epoch 2: step 5/8, loss 1.0000, lr 1.0e-03, 10 tokens/s, 9 s left"
    assert actor.lines == [(2, line), (2, "saving the model"), (2, line)]
