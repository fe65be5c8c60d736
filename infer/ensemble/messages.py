"""Messages about a blend: warnings before it is made, and notes on the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core import logs
from infer.ensemble.stage import preset_coverage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.settings.schema import Settings

# Gain of the class prior by knowing sides, nats per vote, from which they decide a comparison with it.
_SIDED = 0.01


def warn_about_blend(settings: Settings) -> None:
    """Log which models are left out, what the preset does not cover, and which scores may be inflated."""
    for name, folds in settings.partial.items():
        logs.info("blend", f"{name} is left out: it predicts only folds {', '.join(map(str, folds))}")
    for name in settings.possibly_contaminated:
        logs.warning("blend", f"{name} may have been trained on these votes; its score may be inflated")
    coverage = preset_coverage(settings)
    if settings.blend.submission != "preset" or coverage is None:
        return
    if coverage["absent"]:
        absent = ", ".join(coverage["absent"])
        logs.info("blend", f"preset weights rescaled over the models of this run; not in this run: {absent}")
    if coverage["unnamed"]:
        logs.info("blend", f"the preset has no weight for {', '.join(coverage['unnamed'])}")


def blend_notes(settings: Settings, manifest: Mapping[str, Any]) -> list[str]:
    """Return lines on the submitted blend: its score, the other blends, and the cost of length debiasing."""
    name, metrics = settings.blend.submission, manifest["metrics"]
    has_test = "test" in manifest["rows"]
    loss = metrics["oof_log_loss"][name]
    verb = "submitted" if has_test else "chosen"
    notes = [f"{name} ({metrics['pools'][name]} pool) is {verb}: out-of-fold log loss {loss:.4f}"]
    over_prior = metrics["analysis"]["over_class_prior"]
    low, high = over_prior["gain_ci95"]
    verdict = "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"
    prior = f"{verdict} the class prior's {metrics['class_prior']:.4f}"
    notes.append(f"{prior}: gain {over_prior['gain']:+.4f} ({low:+.4f} to {high:+.4f})")
    sideless = metrics["class_prior_without_sides"]
    if loss > metrics["class_prior"] and sideless - metrics["class_prior"] > _SIDED:
        notes += [
            "the votes favor one side, which models that see both orders of the answers cannot learn",
            f"{'worse' if loss > sideless else 'better'} than the class prior without sides: {sideless:.4f}",
        ]
    others = ", ".join(f"{other} {loss:.4f}" for other, loss in metrics["oof_log_loss"].items() if other != name)
    notes.append(f"other blends: {others}")
    debias = metrics["analysis"]["length_debias"]
    if debias is not None:
        low, high = debias["cost_ci95"]
        notes.append(f"length debiasing costs {debias['cost']:+.4f} ({low:+.4f} to {high:+.4f})")
    if not has_test:
        notes.append("no submission: data.test has no records to score")
    return notes
