"""Which tests share a worker of pytest-xdist: those of one Ray cluster, else those of a file."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for `--dist loadgroup`.

    All files that use the fixture `ray_cluster` are one group, so there is one such cluster however many workers there
    are. Tests that start processes of their own run next to them: they mostly wait.
    """
    ours = [item for item in items if isinstance(item, pytest.Function) and "integration" in item.path.parts]
    with_cluster = {item.path for item in ours if "ray_cluster" in item.fixturenames}
    for item in ours:
        item.add_marker(pytest.mark.xdist_group("ray_cluster" if item.path in with_cluster else item.path.name))
