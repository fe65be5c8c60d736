"""The figures of the report, from the numbers of metrics.json."""

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from report.numbers import Key, at, interval, number
from report.svg import (
    Axis,
    Mark,
    Plot,
    Row,
    axes,
    columns,
    figure,
    path,
    points,
    rows,
    spanning,
    whiskers,
)

Metrics = dict[str, Any]

HISTOGRAM_TOP = 40  # units between a reliability diagram and the histogram under it


def losses(metrics: Metrics) -> Markup:
    """The log loss of every baseline, model and blend with its interval."""
    named: list[tuple[str, tuple[Key, ...], str]] = [
        *(("baseline", ("baselines", name), name) for name in metrics["baselines"]),
        *(
            ("model", ("models", name), f"{name} (not all records)" if "records" in each else name)
            for name, each in metrics["models"].items()
        ),
        *(("blend", ("blend", "variants", name), f"blend: {name}") for name in metrics["blend"]["variants"]),
    ]
    chosen = f"blend: {metrics['blend']['submission']}"
    values = [at(metrics, keys) for _, keys, _ in named]
    axis = spanning([end for each in values for end in each["ci95"]], "out-of-fold log loss, nats per record")
    drawn = [
        Row(
            label,
            [Mark(kind, each["ci95"], each["oof_log_loss"])],
            number(metrics, ".4f", *keys, "oof_log_loss", tag="tspan"),
            strong=label == chosen,
        )
        for (kind, keys, label), each in zip(named, values, strict=True)
    ]
    text = _listed(
        Markup("{}: {}, interval {}").format(
            _name(label), number(metrics, ".4f", *keys, "oof_log_loss"), interval(metrics, ".4f", *keys, "ci95")
        )
        for _, keys, label in named
    )
    return rows("losses", "Out-of-fold log loss of each model, with 95% intervals", text, drawn, axis)


def gains(metrics: Metrics) -> Markup:
    """What each model adds to the blend, by the blend's loss without it."""
    without = metrics["blend"]["analysis"]["without"]
    keys: tuple[Key, ...] = ("blend", "analysis", "without")
    axis = spanning([0, *(end for each in without.values() for end in each["gain_ci95"])], "gain, nats per record")
    return _compared(
        metrics, "gains", "What each model adds to the blend, with 95% intervals", keys, list(without), "gain", axis
    )


def slices(metrics: Metrics) -> Markup:
    """The loss on each slice against that on all records."""
    found = metrics["slices"]
    ends = [end for each in found for end in each["difference_ci95"]]
    axis = spanning([0, *ends], "log loss above that on all records, nats per record")
    title = "The blend's log loss on slices of the records, against that on all, with 95% intervals"
    labels = [f"{each['by']}: {each['slice']}" for each in found]
    return _compared(metrics, "slices", title, ("slices",), list(range(len(found))), "difference", axis, labels)


def _compared(
    metrics: Metrics,
    key: str,
    title: str,
    keys: tuple[Key, ...],
    places: Sequence[Key],
    what: str,
    axis: Axis,
    labels: Sequence[str] | None = None,
) -> Markup:
    """Differences with intervals around the line of no difference."""
    labels = [str(place) for place in places] if labels is None else labels
    drawn, told = [], []
    for place, label in zip(places, labels, strict=True):
        each = at(metrics, (*keys, place))
        shown = number(metrics, "+.4f", *keys, place, what, tag="tspan")
        drawn.append(Row(label, [Mark("model", each[f"{what}_ci95"], each[what])], shown))
        told.append(
            Markup("{}: {}, interval {}").format(
                _name(label),
                number(metrics, "+.4f", *keys, place, what),
                interval(metrics, "+.4f", *keys, place, f"{what}_ci95"),
            )
        )
    return rows(key, title, _listed(told), drawn, axis, reference=0)


def reliability(metrics: Metrics, label: str) -> Markup:
    """The reliability diagram of one class over the histogram of its probabilities."""
    found = metrics["calibration"]
    bins, counts = found["reliability"][label], found["histogram"][label]
    highest = max(
        end for each in found["reliability"].values() for part in each for end in (*part["ci95"], part["predicted"])
    )
    edges = [n / len(counts) for n in range(len(counts) + 1)]
    filled = max(n + 1 for counts in found["histogram"].values() for n, count in enumerate(counts) if count)
    x = spanning([0, max(highest, edges[filled])], f"predicted P({label})", percent=True, whole_steps=True)
    y = Axis(x.low, x.high, f"share of votes for {label}" if label != "tie" else "share of ties", percent=True)
    plot = Plot(x, y, top=26, bottom=250)
    below = Plot(x, spanning([0, max(counts)], "records", whole_steps=True), top=250 + HISTOGRAM_TOP, bottom=350)
    text = _listed(
        Markup("predicted {}, observed {}, {} records").format(
            number(metrics, ".1%", "calibration", "reliability", label, n, "predicted"),
            number(metrics, ".1%", "calibration", "reliability", label, n, "observed"),
            number(metrics, ",", "calibration", "reliability", label, n, "count"),
        )
        for n in range(len(bins))
    )
    return figure(
        f"reliability-{label}",
        f"Reliability diagram of P({label}) and histogram of its values",
        text,
        392,
        axes(plot, x_ticks=False),
        path(plot, "ideal", [(x.low, x.low), (x.high, x.high)]),
        whiskers(plot, "model", [(each["predicted"], *each["ci95"]) for each in bins]),
        points(plot, "model", [(each["predicted"], each["observed"]) for each in bins]),
        axes(below, y_wanted=2),
        columns(below, "model", edges[: filled + 1], counts[:filled]),
    )


def length(metrics: Metrics) -> Markup:
    """How often A wins by how much longer it is, as voted and as predicted."""
    bins = metrics["bias"]["length"]
    shares = [value for each in bins for value in (*each["ci95"], each["predicted"])]
    x = spanning([each["difference"] for each in bins], "length of A against B, (a − b) / (a + b) in characters")
    plot = Plot(x, spanning(shares, "share won by A, a tie as half a win", percent=True, whole_steps=True), top=26)
    text = _listed(
        Markup("difference {}: actual {}, predicted {}").format(
            number(metrics, "+.2f", "bias", "length", n, "difference"),
            number(metrics, ".1%", "bias", "length", n, "actual"),
            number(metrics, ".1%", "bias", "length", n, "predicted"),
        )
        for n in range(len(bins))
    )
    return figure(
        "length",
        "Share won by A by how much longer it is: votes with 95% intervals, and predictions",
        text,
        plot.bottom + 42,
        axes(plot),
        path(plot, "predicted", [(each["difference"], each["predicted"]) for each in bins]),
        whiskers(plot, "actual", [(each["difference"], *each["ci95"]) for each in bins]),
        points(plot, "actual", [(each["difference"], each["actual"]) for each in bins]),
        points(plot, "predicted", [(each["difference"], each["predicted"]) for each in bins]),
    )


def style(metrics: Metrics) -> Markup:
    """The coefficients of the Bradley-Terry fits to the votes and to the blend."""
    found = metrics["bias"]["style"]
    ends = [end for each in found for of in ("votes", "blend") for end in each[f"{of}_ci95"]]
    axis = spanning([0, *ends], "log-odds of a win, for one standard deviation")
    drawn, told = [], []
    for n, each in enumerate(found):
        marks = [Mark(kind, each[f"{of}_ci95"], each[of]) for kind, of in (("actual", "votes"), ("predicted", "blend"))]
        keys: tuple[Key, ...] = ("bias", "style", n)
        both = [number(metrics, "+z.2f", *keys, of, tag="tspan") for of in ("votes", "blend")]
        drawn.append(Row(each["feature"], marks, Markup("{} · {}").format(*both)))
        told.append(
            Markup("{}: votes {}, interval {}; blend {}").format(
                each["feature"],
                number(metrics, "+.2f", *keys, "votes"),
                interval(metrics, "+.2f", *keys, "votes_ci95"),
                number(metrics, "+.2f", *keys, "blend"),
            )
        )
    title = "Style coefficients of Bradley-Terry fits to the votes and to the blend, with 95% intervals"
    return rows("style", title, _listed(told), drawn, axis, reference=0)


def families(metrics: Metrics, booster: str) -> Markup:
    """Shares of gain and of SHAP values by family of features."""
    found = metrics["importance"][booster]["families"]
    most = max(max(each["gain_share"], each["shap_share"]) for each in found)
    drawn, told = [], []
    for n, each in enumerate(found):
        keys: tuple[Key, ...] = ("importance", booster, "families", n)
        marks = [Mark("actual", (0, each["shap_share"])), Mark("light", (0, each["gain_share"]))]
        drawn.append(Row(each["family"], marks, number(metrics, ".1%", *keys, "shap_share", tag="tspan")))
        shares = [number(metrics, ".1%", *keys, f"{of}_share") for of in ("shap", "gain")]
        told.append(Markup("{}: SHAP {}, gain {}").format(_name(each["family"]), *shares))
    title = f"Importance of each family of features to {booster}"
    axis = Axis(0, max(most, 1e-3) * 1.02, "share of mean |SHAP| and of gain", percent=True)
    return rows(f"families-{booster}", title, _listed(told), drawn, axis)


def timeline(metrics: Metrics) -> Markup:
    """The stages of the run, one after another."""
    found = metrics["run"]["stages"]
    drawn, told = [], []
    for n, each in enumerate(found):
        mark = Mark("model", (each["before"], each["before"] + each["seconds"]))
        shown = Markup("{} s").format(number(metrics, ",.1f", "run", "stages", n, "seconds", tag="tspan"))
        drawn.append(Row(each["stage"], [mark], shown))
        told.append(
            Markup("{}: {} seconds").format(
                _name(each["stage"]), number(metrics, ",.1f", "run", "stages", n, "seconds")
            )
        )
    end = max((each["before"] + each["seconds"] for each in found), default=1.0)
    axis = Axis(0, max(end, 1e-3), "seconds of work, idle time between stages left out")
    return rows("timeline", "Seconds that each stage of the run took", _listed(told), drawn, axis)


def curve(metrics: Metrics, model: str) -> Markup:
    """The training loss and held-out log loss of a fine-tuned model, a pair of lines for each fold."""
    folds = metrics["curves"][model]
    everything = [point for of in folds.values() for point in (*of["loss"], *of["held_out"])]
    x = Axis(0, max(1, *(of["steps"] - 1 for of in folds.values())), "step of the optimizer")
    plot = Plot(x, spanning([loss for _, loss in everything], "loss, nats per record"), top=26)
    marks = [axes(plot)]
    for of in folds.values():
        marks += [path(plot, "faint", of["loss"]), path(plot, "actual", of["held_out"])]
        marks.append(points(plot, "actual", of["held_out"]))
    text = _listed(
        Markup("fold {}: held-out log loss {} at the end").format(
            _name(fold), number(metrics, ".4f", "curves", model, fold, "held_out", len(of["held_out"]) - 1, 1)
        )
        for fold, of in folds.items()
    )
    title = f"Training loss and held-out log loss of {model} by step"
    return figure(f"curve-{model}", title, text, plot.bottom + 42, *marks)


def search(metrics: Metrics, booster: str) -> Markup:
    """The held-out loss of each trial of a search by the time it ended."""
    found = metrics["search"][booster]
    trials = found["trials"]
    x = Axis(0, max(*(each["at"] for each in trials), 1e-3), "seconds since the search began")
    y = spanning([each["log_loss"] for each in trials], "held-out log loss, nats per record")
    plot = Plot(x, y, top=26, left=60)
    whole, stopped = (
        [(each["at"], each["log_loss"]) for each in trials if each["stopped"] == early] for early in (False, True)
    )
    best = min(range(len(trials)), key=lambda n: float(trials[n]["log_loss"]))
    text = Markup("The best of {} trials has a loss of {}.").format(
        number(metrics, ",", "search", booster, "count"),
        number(metrics, ".4f", "search", booster, "trials", best, "log_loss"),
    )
    marks = (axes(plot), points(plot, "model", whole), points(plot, "predicted", stopped))
    title = f"Held-out log loss of each trial of {booster} by the time it ended"
    return figure(f"search-{booster}", title, text, plot.bottom + 42, *marks)


def plots(metrics: Metrics) -> dict[str, Callable[..., Markup]]:
    """The figures by name, for the templates to ask for."""

    def bound(draw: Callable[..., Markup]) -> Callable[..., Markup]:
        return lambda *arguments: draw(metrics, *arguments)

    of = (losses, gains, slices, reliability, length, style, families, timeline, curve, search)
    return {draw.__name__: bound(draw) for draw in of}


def _name(text: str) -> Markup:
    return Markup("<span data-text>{}</span>").format(text)


def _listed(parts: Any) -> Markup:  # noqa: ANN401 - an iterable of Markup
    return Markup(". ").join(parts) + Markup(".")
