"""Plugins and a Ray that runs already."""

import pytest
import ray

from core import ray_session
from core.errors import InputError
from core.run import Run
from core.settings.loader import load_settings


def test_a_plugin_that_running_workers_lack_is_refused(monkeypatch):
    run = Run(load_settings("run: r\nboosters: [{name: small, engine: linear}]", "c.yaml"))
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    ray_session.connect(run)
    monkeypatch.setattr(ray_session, "_plugins", {"tiebreak_plugin_x": "name = 1"})
    with pytest.raises(InputError, match=r"its workers lack the plugin\. Fix: call ray\.shutdown\(\) first"):
        ray_session.connect(run)
    monkeypatch.setattr(ray_session, "_plugins_of_workers", {"tiebreak_plugin_x": "name = 1"})
    ray_session.connect(run)
