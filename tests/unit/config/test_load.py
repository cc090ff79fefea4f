"""Layers: which are read, which wins, where paths start, and where each value is said to come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.config import MODEL
from trtd.config.flags import Override, model_overrides
from trtd.config.schema import leaves, schema, unit
from trtd.config.show import show
from trtd.errors import InvalidConfig, Usage


def test_nothing_at_all_is_a_configuration_of_defaults(config_dir):
    """Without any file, variable or flag every value is a default and there is no tenant."""
    loaded = config_dir.load()
    assert loaded.config.tenants == {}
    assert loaded.config.log.level == "info"
    assert {str(origin) for origin in loaded.origins.values()} == {"default"}
    assert loaded.files == ()


def test_each_layer_wins_over_the_one_below(config_dir):
    """Vendor file, system file, conf.d by name, tenants.d, environment, flag: each later one overrides the earlier."""
    key = ("tenants", "a", "weight")

    def weight(**sources):
        loaded = config_dir.load(**sources)
        return loaded.config.tenants["a"].weight, str(loaded.origins[key]).replace(f"{config_dir.root}/", "")

    config_dir.write("vendor.toml", MODEL + "[tenants.a]\nweight = 1\n")
    assert weight() == (1, "vendor.toml:4")
    config_dir.write("etc/trtd.toml", "[tenants.a]\nweight = 2\n")
    assert weight() == (2, "etc/trtd.toml:2")
    config_dir.write("etc/conf.d/20-b.toml", "\ntenants.a.weight = 4\n")
    assert weight() == (4, "etc/conf.d/20-b.toml:2")
    config_dir.write("etc/conf.d/10-a.toml", "tenants = { a = { weight = 3 } }\n")
    assert weight() == (4, "etc/conf.d/20-b.toml:2")
    config_dir.write("etc/tenants.d/a.toml", "weight = 5\n")
    assert weight() == (5, "etc/tenants.d/a.toml:1")
    environ = {"TRTD_TENANTS__A__WEIGHT": "6"}
    assert weight(environ=environ) == (6, "environment TRTD_TENANTS__A__WEIGHT")
    assert weight(environ=environ, overrides=(Override("--weight", key, 7),)) == (7, "flag --weight")


def test_tables_merge_key_by_key(config_dir):
    """Two files that both define a tenant give one tenant, and each value keeps the origin of its own file."""
    config_dir.write("etc/trtd.toml", MODEL + "max_batch = 8\n[tenants.a]\nweight = 2\nslots = 3\n")
    config_dir.write("etc/tenants.d/a.toml", "weight = 9\n[models.m]\nmax_delay_s = 0.5\n")
    loaded = config_dir.load()
    tenant = loaded.config.tenants["a"]
    assert (tenant.weight, tenant.slots, tenant.models["m"].max_batch, tenant.models["m"].max_delay_s) == (9, 3, 8, 0.5)
    lines = {
        path[2:]: str(origin).rpartition("/")[2] for path, origin in loaded.origins.items() if origin.line is not None
    }
    assert lines == {
        ("models", "m", "path"): "trtd.toml:2",
        ("models", "m", "max_batch"): "trtd.toml:3",
        ("slots",): "trtd.toml:6",
        ("weight",): "a.toml:1",
        ("models", "m", "max_delay_s"): "a.toml:3",
    }


def test_files_are_reported_in_the_order_they_were_read(config_dir):
    """`files` names what was read in rising order; hidden files and other suffixes are passed over."""
    names = ["vendor.toml", "etc/trtd.toml", "etc/conf.d/1.toml", "etc/conf.d/2.toml", "etc/tenants.d/a.toml"]
    for name in reversed(names):
        config_dir.write(name, MODEL.replace("tenants.a.", "") if "tenants.d" in name else "")
    config_dir.write("etc/conf.d/.1.toml.swp", "x")
    config_dir.write("etc/conf.d/.#1.toml", "x")
    config_dir.write("etc/conf.d/README", "x")
    assert list(config_dir.load().files) == [config_dir.root / name for name in names]


def test_the_config_flag_replaces_the_system_files(config_dir):
    """With `--config FILE` the system's layers are not read, those beside FILE and the vendor's are."""
    config_dir.write("vendor.toml", "[log]\nlevel = 'warning'\n")
    config_dir.write("etc/trtd.toml", "[log]\nformat = 'json'\n")
    config_dir.write("etc/conf.d/x.toml", "[daemon]\nbeat_every_s = 0.3\n")
    mine = config_dir.write("work/mine/trtd.toml", MODEL)
    config_dir.write("work/mine/conf.d/x.toml", "tenants.a.weight = 5")
    config_dir.write("work/mine/tenants.d/b.toml", "[models.n]\npath = 'n.onnx'")
    for config_file in (mine, mine.relative_to(config_dir.root / "work")):
        config = config_dir.load(config_file=config_file).config
        assert (config.log.level, config.log.format, config.daemon.beat_every_s) == ("warning", "auto", 0.1)
        assert config.tenants["a"].weight == 5
        assert config.tenants["b"].models["n"].path == str(mine.parent / "tenants.d" / "n.onnx")


def test_the_system_files_can_be_left_out(config_dir):
    """Without a system file named, a daemon lives from the vendor's file, variables and flags alone."""
    config_dir.write("etc/trtd.toml", "nonsense")
    assert config_dir.load(system_file=None).files == ()


def test_relative_paths_start_where_they_were_written(config_dir):
    """A path in a file starts at that file's directory, one in a variable or flag at the working directory."""
    config_dir.write("etc/trtd.toml", MODEL + 'probe = { path = "p.npz" }\n[router]\ncurve_secret_key_file = "k"\n')
    config_dir.write(
        "etc/conf.d/b.toml",
        '[tenants.b.models.m]\npath = "../b.onnx"\n[tenants.b.tensorrt]\nplugin_libraries = ["b.so", "/c.so"]\n',
    )
    loaded = config_dir.load(
        environ={"TRTD_TENANTS__C__MODELS__M__PATH": "c.onnx", "TRTD_DAEMON__RUNTIME_DIR": "run"},
        overrides=model_overrides(["d=sub/d.onnx", "e=/e.onnx"]),
    )
    tenants = loaded.config.tenants
    work = config_dir.root / "work"
    assert tenants["a"].models["m"].path == str(config_dir.etc / "m.onnx")
    assert tenants["a"].models["m"].probe.path == str(config_dir.etc / "p.npz")
    assert loaded.config.router.curve_secret_key_file == str(config_dir.etc / "k")
    assert tenants["b"].models["m"].path == str(config_dir.etc / "conf.d" / "../b.onnx")
    assert tenants["b"].tensorrt.plugin_libraries == (str(config_dir.etc / "conf.d" / "b.so"), "/c.so")
    assert tenants["c"].models["m"].path == str(work / "c.onnx")
    assert tenants["default"].models["d"].path == str(work / "sub/d.onnx")
    assert tenants["default"].models["e"].path == "/e.onnx"
    assert loaded.config.daemon.runtime_dir == str(work / "run")


@pytest.mark.parametrize(
    ("uid", "environ", "expected"),
    [
        (0, {"XDG_RUNTIME_DIR": "/run/user/0"}, "/run/trtd"),
        (1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}, "/run/user/1000/trtd"),
        (1000, {}, "/tmp/trtd-1000"),
    ],
)
def test_the_runtime_directory_has_a_default_for_each_user(config_dir, uid, environ, expected):
    """Where no layer names a runtime directory the configuration holds the user's own, and calls it a default."""
    loaded = config_dir.load('[daemon]\nruntime_dir = ""\n', uid=uid, environ=environ)
    assert loaded.config.daemon.runtime_dir == expected
    assert str(loaded.origins["daemon", "runtime_dir"]) == "default"


def test_a_later_scalar_replaces_a_table_as_a_whole(config_dir):
    """A value of another kind replaces what was below it, and the problem names the file that brought it."""
    config_dir.write("etc/conf.d/x.toml", "\nlog = 5")
    assert config_dir.problems('[log]\nlevel = "info"\n') == ["conf.d/x.toml:2: log: must be a table, not 5"]
    config_dir.write("etc/conf.d/x.toml", '[log]\nlevel = "info"\n')
    assert config_dir.load("log = 5").config.log.level == "info"


def test_what_a_replaced_table_held_is_forgotten(config_dir):
    """A table that a later value replaced leaves neither values nor origins behind."""
    config_dir.write("vendor.toml", '[log]\nlevel = "debug"\n')
    config_dir.write("etc/conf.d/x.toml", '[log]\nformat = "json"\n')
    loaded = config_dir.load("log = 5")
    assert (loaded.config.log.level, loaded.config.log.format) == ("info", "json")
    assert str(loaded.origins["log", "level"]) == "default"


def test_model_flags_make_one_tenant(config_dir):
    """`--model NAME=FILE`, repeated, is one tenant `default` with those models in that order."""
    loaded = config_dir.load(system_file=None, overrides=model_overrides(["b=x=y.onnx", "a=a.onnx"]))
    models = loaded.config.tenants["default"].models
    assert {name: Path(model.path).name for name, model in models.items()} == {"b": "x=y.onnx", "a": "a.onnx"}
    assert list(models) == ["b", "a"]
    assert str(loaded.origins["tenants", "default", "models", "a", "path"]) == "flag --model"


@pytest.mark.parametrize(
    "models", [["a"], ["=a.onnx"], ["a="], [".onnx"], ["dir/"], ["é.onnx"], ["a=x", "a=y"], ["a=x", "b/a.onnx"]]
)
def test_model_flags_of_another_form_are_refused(models):
    """A `--model` without name or file, or with a name that came before, is a usage error in one line."""
    with pytest.raises(Usage, match="--model"):
        model_overrides(models)


def test_a_bad_model_name_on_the_command_line_names_the_flag(config_dir):
    """What is wrong with a flag's value is told like any problem, with the flag as its origin."""
    (problem,) = config_dir.problems(overrides=model_overrides(["res net=x"]))
    assert problem.startswith('flag --model: tenants.default.models."res net": cannot be a name; it must be 1 to 63 ')


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("ResNet50.v2.onnx", "ResNet50.v2"),
        ("/srv/models/mlp.plan", "mlp"),
        ("dir.d/yolo (1).onnx", "yolo-1"),
        ("_hidden_.onnx", "hidden"),
        ("m" * 100 + ".onnx", "m" * 63),
    ],
)
def test_a_model_without_a_name_is_called_as_its_file(config_dir, file, name):
    """Capitals and dots stay, what no name may have is replaced, and the name can be served."""
    loaded = config_dir.load(system_file=None, overrides=model_overrides([file]))
    models = loaded.config.tenants["default"].models
    assert list(models) == [name]
    assert models[name].path.endswith(file)


def test_models_are_called_as_people_call_them(config_dir):
    """Capitals and dots are part of a model's name, as a table or as what clients ask for; a tenant has neither."""
    text = '[tenants.a.models."ResNet50.v2"]\npath = "a.onnx"\n[tenants.a.models.b]\npath = "b.onnx"\nname = "B.1"\n'
    models = config_dir.load(text).config.tenants["a"].models
    assert list(models) == ["ResNet50.v2", "b"]
    assert models["b"].name == "B.1"
    (problem,) = config_dir.problems(text.replace("tenants.a", "tenants.A"))
    assert "tenants.A: cannot be a name" in problem


def test_an_error_says_how_many_problems_there_are(config_dir):
    """The message is the first problem and the number of others; `problems` has all, one line each."""
    with pytest.raises(InvalidConfig) as caught:
        config_dir.load('[log]\nlevel = 1\nlvl = 2\n[x]\n"a\\nb" = 1\n')
    assert len(caught.value.problems) == 3
    assert caught.value.message == f"{caught.value.problems[0]} (and 2 more)"
    assert not any("\n" in problem for problem in caught.value.problems)


def test_quantities_may_have_a_unit(config_dir):
    """In files and in the environment, for every key in bytes or seconds; the number is what is in force."""
    config_dir.write("etc/tenants.d/a.toml", '[models.m]\npath = "m"\nmax_delay_s = "5ms"\n[queue]\nmax_bytes = "1GiB"')
    environ = {"TRTD_DAEMON__DRAIN_TIMEOUT_S": "2m", "TRTD_ROUTER__MEMORY_LIMIT_BYTES": "1.5 GB"}
    loaded = config_dir.load(environ=environ)
    tenant = loaded.config.tenants["a"]
    assert (tenant.models["m"].max_delay_s, tenant.queue.max_bytes) == (0.005, 1024**3)
    assert (loaded.config.daemon.drain_timeout_s, loaded.config.router.memory_limit_bytes) == (120.0, 1_500_000_000)
    assert "drain_timeout_s = 120.0" in show(loaded.config, loaded.origins, with_origin=False)


def test_every_quantity_takes_a_unit(config_dir):
    """No key in bytes or seconds is left out."""
    word = {"bytes": "1GiB", "seconds": "0.01s"}
    keys = {path: word[unit(path)] for path, leaf in leaves(schema()) if unit(path) and leaf.type in (int, float)}
    assert len(keys) > 30
    for path, text in keys.items():
        names = iter(["a", "m"])
        key = ".".join(next(names) if part == "NAME" else part for part in path)
        config_dir.write("etc/trtd.toml", f'tenants.a.models.m.path = "m"\n{key} = "{text}"\n')
        # Some have narrower bounds, or do not fit others; but none is refused as a string.
        wrong = [] if is_loadable(config_dir) else config_dir.problems()
        assert not [problem for problem in wrong if text in problem]


def is_loadable(config_dir) -> bool:
    """Whether nothing is wrong with the files."""
    try:
        config_dir.load()
    except InvalidConfig:
        return False
    return True


@pytest.mark.parametrize("text", ["256", "5 minutes", "256M", "-1MiB", "MiB"])
def test_a_quantity_that_is_none_is_one_clear_line(config_dir, text):
    """The key, what it takes, what came and which units there are."""
    (problem,) = config_dir.problems(f'[router]\nmemory_limit_bytes = "{text}"')
    assert problem == (
        f'trtd.toml:2: router.memory_limit_bytes: must be a whole number from 0 to {2**50}, not "{text}"; a string has'
        " to be a number with one of the units B, KiB, MiB, GiB, TiB, PiB, kB, MB, GB, TB, PB"
    )
