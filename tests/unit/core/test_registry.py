import sys

import pytest

from core.errors import InputError
from core.registry import FAMILIES, REGISTRIES, Registry, load_plugins, plugin_digest, read_plugin, read_plugins

PLUGIN = """
from core import registry

@registry.TOYS.register
class Ball:
    name = "ball"
    version = {version}
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A registry whose package has one member, kite."""
    package = tmp_path / "toy_shelf"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "kite.py").write_text(PLUGIN.replace("Ball", "Kite").replace("ball", "kite").format(version=1))
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry("toy", "toy_shelf")
    monkeypatch.setattr("core.registry.TOYS", registry, raising=False)
    monkeypatch.setattr("core.registry.REGISTRIES", (*REGISTRIES, registry))
    yield registry
    for name in [name for name in sys.modules if name.startswith(("toy_shelf", "tiebreak_plugin_"))]:
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
    assert plugin_digest(FAMILIES.get("length")) == ""


def test_an_unknown_member_is_named_with_the_nearest_one(toys):
    with pytest.raises(InputError, match=r"no toy 'kit'. Fix: did you mean 'kite'\?.*--plugin FILE"):
        toys.get("kit")


def test_two_modules_cannot_register_one_name(toys, tmp_path):
    load_plugins(plugin(tmp_path / "one.py"))
    with pytest.raises(
        InputError, match="tiebreak_plugin_two: the name 'ball' of a toy is taken by tiebreak_plugin_one"
    ):
        load_plugins(plugin(tmp_path / "two.py"))


def test_a_name_of_the_project_is_not_a_plugins_to_take(toys, tmp_path):
    source = plugin(tmp_path / "mine.py")
    load_plugins({name: text.replace("ball", "kite") for name, text in source.items()})
    for _ in range(2):  # a registry that failed to load is not half loaded
        with pytest.raises(InputError, match=r"plugin_mine: the name 'kite' of a toy is taken by toy_shelf\.kite"):
            toys.names()


def test_two_plugin_files_need_two_names(toys, tmp_path):
    paths = []
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        paths.append(str(tmp_path / folder / "ball.py"))
        plugin(tmp_path / folder / "ball.py", version=len(folder))
    with pytest.raises(InputError, match=r"second/ball\.py: another plugin's file has this name\. Fix: rename"):
        read_plugins(paths)
    assert len(read_plugins([paths[0], paths[0]])) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1 / 0", "plugin bad: ZeroDivisionError: division by zero"),
        ("from core.errors import InputError; raise InputError('no luck', 'here')", "here: no luck"),
    ],
)
def test_a_plugin_that_fails_is_bad_input_each_time_and_leaves_no_member(toys, tmp_path, line, reason):
    path = tmp_path / "bad.py"
    path.write_text(f"{PLUGIN.format(version=1)}\n{line}\n")
    for _ in range(2):
        with pytest.raises(InputError, match=reason):
            load_plugins(read_plugin(str(path)))
    assert toys.names() == ["kite"]


def test_a_plugin_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_plugin(str(tmp_path / "none.py"))


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The module of an installed package with an entry point."""
    distribution = tmp_path / "toy_shop-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-shop\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[tiebreak.plugins]\ntoys = toy_shop\n")
    monkeypatch.setattr("core.registry.load_entry_points", sys.modules["core.registry"].load_entry_points.__wrapped__)
    yield tmp_path / "toy_shop.py"
    sys.modules.pop("toy_shop", None)


def test_installed_packages_bring_members_whose_code_is_in_fingerprints(toys, shop):
    shop.write_text(PLUGIN.format(version=3))
    assert toys.names() == ["kite", "ball"]
    before = plugin_digest(toys.get("ball"))
    shop.write_text(PLUGIN.format(version=4))
    assert plugin_digest(toys.get("ball")) != before != ""


def test_an_installed_plugin_that_fails_is_bad_input(toys, shop):
    shop.write_text("import no_such_module")
    with pytest.raises(InputError, match=r"the installed plugin toys \(toy_shop\): ModuleNotFoundError.*uninstall"):
        toys.names()
