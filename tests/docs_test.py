"""What README and docs show runs as it stands there, and every flag exists."""

import ast
import contextlib
import importlib
import io
import pathlib
import re
import shlex
import sys

import pytest
from absl import flags as flags_lib

from impala_mp import config as config_lib
from impala_mp.cli import command_line
from impala_mp.config import fields as fields_lib
from impala_mp.evaluation import evaluate, export, player
from impala_mp.runtime import preflight, program, signals

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_DOCS = sorted((_ROOT / "docs").glob("*.md"))
_TEMPLATE = _ROOT / "impala_mp" / "cli" / "template" / "README.md"
_PAGES = [_ROOT / "README.md", _TEMPLATE, *_DOCS]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _name(path):
    return str(path.relative_to(_ROOT))


def _commands(text):
    """Every `impala-...` command line of a page, as words."""
    blocks = [code for kind, code in _BLOCK.findall(text) if kind != "python"]
    indented = re.findall(r"^    (impala-.*)$", text, re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`(impala-[a-z]+ [^`]*)`", _BLOCK.sub("", text))
    found = [*lines, *indented, *(code.replace("\n", " ") for code in inline)]
    return [shlex.split(line, comments=True) for line in found if line[:7] == "impala-"]


# Flags.


def _scripts():
    """{program: module} of the console scripts in setup.py."""
    tree = ast.parse((_ROOT / "setup.py").read_text())
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    scripts = [str(text).split(" = ") for text in texts if " = impala_mp." in str(text)]
    return {name: entry.partition(":")[0] for name, entry in scripts}


@pytest.fixture(scope="module")
def flags_of():
    """{program: names of its flags}, as --help tells them."""
    flags = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals, "exit_on_signals", lambda leave: None)
        patch.setattr(sys, "argv", ["impala", "--help"])
        for name, module in _scripts().items():
            said = io.StringIO()
            with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
                importlib.import_module(module).main()
            flags[name] = set(
                re.findall(r"^ +--(?:\[no\])?(\w+)", said.getvalue(), re.M)
            )
    return flags


def _flags(words):
    """Names of the flags in a command; [--x] is one that may be left out."""
    return [
        re.split("[=.]", word.strip("[]")[2:])[0]
        for word in words
        if word.startswith(("--", "[--"))
    ]


@pytest.mark.parametrize("path", _PAGES, ids=_name)
def test_every_command_takes_the_flags_that_are_shown(path, flags_of):
    for words in _commands(path.read_text()):
        assert words[0] in flags_of, words
        unknown = set(_flags(words)) - flags_of[words[0]]
        assert not unknown, f"{words[0]} has no {unknown}: {' '.join(words)}"


@pytest.mark.parametrize("path", _PAGES, ids=_name)
def test_every_field_that_is_named_is_there(path):
    fields = fields_lib.flatten(config_lib.get_base_config())
    kwargs = ("NAME", "noise", "agent_view_size")
    known = {*fields, *(f"environment.kwargs.{name}" for name in kwargs)}
    parts = [field.split(".") for field in fields]
    groups = {".".join(p[:i]) for p in parts for i in range(1, len(p) + 1)}
    groups |= {"environment.kwargs", "network.encoders", "FIELD"}
    others = {"py", "get_base_config"}  # a file, and a function in it
    for name in re.findall(r"config\.([a-zA-Z_]\w*(?:\.\w+)*)", path.read_text()):
        assert name in known | groups | others, name


def test_the_readme_names_every_program_and_page(flags_of):
    text = (_ROOT / "README.md").read_text()
    for name in flags_of:
        assert f"`{name}" in text or f"\n{name} " in text, name
    for page in _DOCS:
        assert f"(docs/{page.name})" in text, page.name


def test_links_lead_somewhere():
    for path in _PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{_name(path)}: {target}"


# Code.


def _train(monkeypatch, arguments):
    """The config of a command line, small, in this process."""
    values = flags_lib.FlagValues()
    config = command_line.define_config(values)
    workdir = flags_lib.DEFINE_string("workdir", None, "", flag_values=values)
    check = flags_lib.DEFINE_boolean("check", False, "", flag_values=values)
    monkeypatch.setattr(sys, "argv", ["impala-train", *arguments])
    command_line.parse(values, "")
    made = config.value
    made.runtime.mode, made.evaluation.episodes = "lockstep", 2
    made.total_agent_steps = 10 * made.batch_size * made.unroll_length
    if check.value:
        assert preflight.check(made, None)
    else:
        program.train(made, workdir.value)


def _run(monkeypatch, words):
    """What a command does, in this process."""
    name, *arguments = words
    settings = dict(a[2:].split("=") for a in arguments if "=" in a)
    if name == "impala-train":
        _train(monkeypatch, arguments)
    elif name == "impala-export":
        form = settings.get("format", "torch")
        export.export(arguments[0], form, settings.get("output"))
    elif name == "impala-play":
        player.play(arguments[0], 1, None, False, None, sleep=lambda secs: None)
    elif name == "impala-eval":
        evaluate.evaluate(settings["workdir"], 2, video=settings.get("video"))


def _in_order(text):
    """(kind, code) of the blocks of a page."""
    return [(kind or "commands", code) for kind, code in _BLOCK.findall(text)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder with our experiments, from where modules are imported."""
    (tmp_path / "experiments").symlink_to(_ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("path", [_ROOT / "README.md", *_DOCS], ids=_name)
def test_the_code_of_a_page_runs_in_order(path, place, monkeypatch):
    namespace = {}
    for kind, code in _in_order(path.read_text()):
        if named := re.match(r"# (\w+\.py)\n", code):
            (place / named.group(1)).write_text(code)
            exec(compile(code, named.group(1), "exec"), {"__name__": "checked"})
        elif kind == "python":
            exec(compile(code, str(path), "exec"), namespace)
        elif path.parent.name == "docs":
            for words in _commands(f"```\n{code}```"):
                _run(monkeypatch, words)
