"""Stand-ins for the engines' classes of the branch `boosters`, which this file must not survive the merge with."""

from core.registry import ENGINES


@ENGINES.register
class _Lightgbm:
    name, has_rounds, swap_consistent = "lightgbm", True, False


@ENGINES.register
class _Xgboost:
    name, has_rounds, swap_consistent = "xgboost", True, False


@ENGINES.register
class _TwoPart:
    name, has_rounds, swap_consistent = "two_part", False, True
