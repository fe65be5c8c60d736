import sys

import pytest

from core.errors import InputError
from core.registry import Registry, load_plugins, plugin_digest, read_plugin

PLUGIN = """
from core import registry

@registry.TOYS.register
class Ball:
    name = "ball"
    version = {version}
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A registry whose package has one member."""
    package = tmp_path / "toy_room"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "kite.py").write_text(PLUGIN.replace("Ball", "Kite").replace("ball", "kite").format(version=1))
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry("toy", "toy_room")
    monkeypatch.setattr("core.registry.TOYS", registry, raising=False)
    yield registry
    for name in [name for name in sys.modules if name.startswith(("toy_room", "tiebreak_plugin_"))]:
        del sys.modules[name]


def plugin(path, version=1):
    path.write_text(PLUGIN.format(version=version))
    return read_plugin(str(path))


def test_members_come_from_the_package_and_from_plugins(toys, tmp_path):
    assert toys.names() == ["kite"]
    load_plugins(plugin(tmp_path / "my-ball.py"))
    assert toys.names() == ["kite", "ball"]
    assert toys.get("ball").version == 1
    assert type(toys.get("ball")).__module__ == "tiebreak_plugin_my_ball"


def test_a_plugin_is_loaded_once_and_again_when_its_source_changes(toys, tmp_path):
    source = plugin(tmp_path / "ball.py")
    load_plugins(source)
    first, digest = toys.get("ball"), plugin_digest(toys.get("ball"))
    load_plugins(source)
    assert toys.get("ball") is first
    load_plugins(plugin(tmp_path / "ball.py", version=2))
    assert toys.get("ball").version == 2
    assert plugin_digest(toys.get("ball")) != digest != ""
    assert plugin_digest(toys.get("kite")) == ""


def test_an_unknown_member_is_named_with_the_nearest_one(toys):
    with pytest.raises(InputError, match=r"no toy 'kit'. Fix: did you mean 'kite'\?.*--plugin FILE"):
        toys.get("kit")


def test_two_modules_cannot_register_one_name(toys, tmp_path):
    load_plugins(plugin(tmp_path / "one.py"))
    with pytest.raises(InputError, match="two toys are named 'ball'"):
        load_plugins(plugin(tmp_path / "two.py"))


def test_a_plugin_that_fails_or_is_not_there_is_bad_input(toys, tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(InputError, match="plugin bad: ZeroDivisionError: division by zero"):
        load_plugins(read_plugin(str(tmp_path / "bad.py")))
    with pytest.raises(InputError, match="No such file"):
        read_plugin(str(tmp_path / "none.py"))


def test_installed_packages_bring_members_by_entry_point(toys, tmp_path, monkeypatch):
    distribution = tmp_path / "toy_shop-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-shop\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[tiebreak.plugins]\ntoys = toy_shop\n")
    (tmp_path / "toy_shop.py").write_text(PLUGIN.format(version=3))
    monkeypatch.setattr("core.registry.load_entry_points", sys.modules["core.registry"].load_entry_points.__wrapped__)
    assert toys.names() == ["kite", "ball"]
