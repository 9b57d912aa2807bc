"""Code and commands of README and docs run; flags, fields, files and links exist."""

import contextlib
import importlib
import importlib.util
import io
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
from absl import flags as flags_lib

import impala_mp as im
from impala_mp import config as config_lib
from impala_mp.cli import command_line, new, what
from impala_mp.config import fields as fields_lib
from impala_mp.evaluation import evaluate, export, player
from impala_mp.monitoring import report_page, status
from impala_mp.runtime import preflight, program, signals

pytestmark = pytest.mark.usefixtures("_without_pictures")

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_README = _ROOT / "README.md"
_DOCS = sorted((_ROOT / "docs").rglob("*.md"))
_TEMPLATE = _ROOT / "impala_mp" / "cli" / "template" / "README.md"
_PAGES = [_README, _TEMPLATE, *_DOCS]
_PROGRAM = r"impala-[a-z]+|python tools/[a-z]+\.py"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _name(path):
    return str(path.relative_to(_ROOT))


def _commands(text):
    """Every `impala-...` and `python tools/...` command line of a page, as words."""
    blocks = [code for kind, code in _BLOCK.findall(text) if kind != "python"]
    indented = re.findall(r"^    (impala-.*)$", text, re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    inline = re.findall(rf"`((?:{_PROGRAM}) [^`]*)`", _BLOCK.sub("", text))
    found = [*lines, *indented, *(code.replace("\n", " ") for code in inline)]
    return [
        shlex.split(line.removeprefix("python "), comments=True)
        for line in found
        if re.match(_PROGRAM, line)
    ]


# Flags.


def _scripts():
    """{program: module} of the console scripts in pyproject.toml."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    entries = project["scripts"].items()
    return {name: entry.partition(":")[0] for name, entry in entries}


@pytest.fixture(scope="module")
def flags_of():
    """{program: names of its flags}, as --help shows them."""
    flags = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals, "exit_on_signals", lambda leave: None)
        patch.setattr(sys, "argv", ["impala", "--help"])
        for name, module in _scripts().items():
            said = io.StringIO()
            with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
                importlib.import_module(module).main()
            found = re.findall(r"--(\[no\])?(\w+)", said.getvalue())
            flags[name] = {flag for _, flag in found}
            flags[name] |= {f"no{flag}" for no, flag in found if no}
    return flags


def _flags_of_tool(path):
    """Names in its source: of absl's flags as they are, of argparse's with dashes."""
    text = (_ROOT / path).read_text()
    return {"config", "check", *re.findall(r'"(?:--)?(\w+)"', text)}


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
        is_tool = words[0].startswith("tools/")
        known = _flags_of_tool(words[0]) if is_tool else flags_of[words[0]]
        unknown = set(_flags(words)) - known - {"change"}
        assert not unknown, f"{words[0]} has no {unknown}: {' '.join(words)}"


@pytest.mark.parametrize("path", _PAGES, ids=_name)
def test_every_field_that_is_named_is_there(path):
    fields = fields_lib.flatten(config_lib.get_base_config())
    kwargs = ("NAME", "noise", "agent_view_size", "opening")
    known = {*fields, *(f"environment.kwargs.{name}" for name in kwargs)}
    parts = [field.split(".") for field in fields]
    groups = {".".join(p[:i]) for p in parts for i in range(1, len(p) + 1)}
    groups |= {"environment.kwargs", "evaluation.kwargs", "network.encoders", "FIELD"}
    groups |= {"environment.policies.NAME", "policies"}
    others = {
        "py",
        "md",
        "json",
        "yaml",
        "field",
        "get_base_config",
    }  # files and the like
    for name in re.findall(r"config\.([a-zA-Z_]\w*(?:\.\w+)*)", path.read_text()):
        own = fields_lib.without_policy(name)  # of a single policy
        assert own in known | groups | others, name


@pytest.mark.parametrize("path", _PAGES, ids=_name)
def test_every_file_that_is_named_is_there(path):
    places = "impala_mp|tests|tools|experiments|docs"
    files = rf"\b((?:{places})/[\w./-]*\.(?:py|sh|md|png))\b"
    for name in re.findall(files, _outside_links(path.read_text())):
        if "NAME" not in name:
            assert (_ROOT / name).exists(), name


def _outside_links(text):
    return re.sub(r"\]\([^)]*\)", "]", text)


def test_messages_name_pages_that_are_there():
    for path in (_ROOT / "impala_mp").rglob("*.py"):
        for name in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text()):
            assert (_ROOT / name).exists(), f"{_name(path)}: {name}"


@pytest.mark.parametrize("path", _PAGES, ids=_name)
def test_every_test_command_selects_tests_in_each_place(path):
    pattern = r"`bash tools/test\.sh ([^`\n]*tests/[^`\n]*)`"
    for command in re.findall(pattern, path.read_text()):
        words = shlex.split(command)
        wanted = words[words.index("-k") + 1] if "-k" in words else ""
        for place in (_ROOT / word for word in words if word.startswith("tests/")):
            files = place.rglob("*_test.py") if place.is_dir() else [place]
            text = "".join(file.read_text() for file in files)
            assert re.search(rf"def test_\w*{wanted}", text), f"{place}: {command}"


def test_the_readme_is_short_and_names_every_program(flags_of):
    text = _README.read_text()
    assert len(text.splitlines()) <= 200
    for name in flags_of:
        assert f"`{name}" in text or f"\n{name} " in text, name


# Links.


def _links(path):
    """(page, anchor) of the links to other places of the repository."""
    for target in re.findall(r"\]\(([^)]+)\)", _BLOCK.sub("", path.read_text())):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            yield (path.parent / name).resolve() if name else path, anchor


def _anchors(path):
    """Of the headings, as python-markdown and GitHub make them."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", path.read_text()), re.M)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"\s", "-", heading) for heading in plain}


@pytest.mark.parametrize("path", _PAGES, ids=_name)
def test_links_lead_somewhere(path):
    inside = _ROOT / "docs" if path in _DOCS else _ROOT  # what the site contains
    for page, anchor in _links(path):
        assert page.exists(), page
        assert page.is_relative_to(inside), page
        assert not anchor or anchor in _anchors(page), f"{page}#{anchor}"


def test_every_page_is_reached_from_the_readme_and_has_its_place_in_the_site():
    reached, left = set(), [_README]
    while left:
        page = left.pop()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            left += [target for target, _ in _links(page)]
    assert set(_DOCS) <= reached
    navigation = re.findall(r": (\S+\.md)$", (_ROOT / "mkdocs.yml").read_text(), re.M)
    names = [str(path.relative_to(_ROOT / "docs")) for path in _DOCS]
    assert sorted(navigation) == sorted(names)


def test_the_generated_pages_are_up_to_date():
    command = [sys.executable, "tools/docs.py", "--check"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="the extra `docs` is missing"
)
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    command += ["--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for path in _DOCS:
        name = path.relative_to(_ROOT / "docs").with_suffix("")
        folder = name if path.stem != "index" else name.parent
        assert (tmp_path / "site" / folder / "index.html").exists(), name


# Code.


def _train(monkeypatch, arguments):
    """The config of a command line, small, in this process."""
    named, changes, arguments = what.take(arguments)
    monkeypatch.setattr(sys, "argv", ["impala-train", *arguments])
    values = flags_lib.FlagValues()
    config = command_line.define_config(values)
    workdir = flags_lib.DEFINE_string("workdir", None, "", flag_values=values)
    check = flags_lib.DEFINE_boolean("check", False, "", flag_values=values)
    start_from = flags_lib.DEFINE_string("start_from", "", "", flag_values=values)
    command_line.parse(values, "")
    made = config.value
    several = made.learner.ranks > 1 or made.learner.processes != 1
    if not several:
        made.runtime.mode = "lockstep"
    made.evaluation.episodes = 2
    made.total_agent_steps = 5 * (made.batch_size or 8) * made.unroll_length
    path = workdir.value or named.workdir or what.new_workdir(made)
    if check.value or several:  # processes, which lockstep does not have
        assert preflight.check(made, None)
    else:
        program.train(made, path, changes=changes, start_from=start_from.value)


def _run(monkeypatch, words):
    """What a command does, in this process."""
    name, *arguments = words
    settings = dict(a[2:].split("=") for a in arguments if "=" in a)
    policy = settings.get("policy", "")
    if name == "impala-train":
        _train(monkeypatch, arguments)
    elif name == "impala-export":
        form = settings.get("format", "torch")
        export.export(arguments[0], form, settings.get("output"), name=policy)
    elif name == "impala-play":
        folder, still = arguments[0], lambda secs: None
        player.play(folder, 1, None, False, None, sleep=still, policy=policy)
    elif name == "impala-eval":
        folder = settings.get("workdir", arguments[0])
        evaluate.evaluate(folder, 2, video=settings.get("video"), policy=policy)
    elif name == "impala-status":
        assert status.read(arguments[0]).healthy
    elif name == "impala-report":
        report_page.write(arguments[0], settings.get("output"))
    else:
        assert name == "impala-new", name
        new.write(arguments[0], settings["name"])


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


def _steps(given, small):
    """Few steps in lockstep; a resumed run keeps its settings."""
    if "change" in given:
        return {"total_agent_steps": 320}
    return {**small, "total_agent_steps": 160}


@pytest.fixture
def small_trainings(monkeypatch):
    """im.train takes few steps, in lockstep."""
    train = im.train
    small = {"runtime.mode": "lockstep", "unroll_length": 10, "batch_size": 8}

    def few(*args, **kwargs):
        return train(*args, **({"workdir": "run"} | kwargs | _steps(kwargs, small)))

    monkeypatch.setattr(im, "train", few)


@pytest.mark.integration
def test_the_cells_of_the_notebook_run_in_order(place, small_trainings):
    notebook = json.loads((_ROOT / "docs/guides/python.ipynb").read_text())
    cells = [each for each in notebook["cells"] if each["cell_type"] == "code"]
    namespace = {"__name__": "__main__"}
    for cell in cells:
        assert cell["outputs"] or "class " in "".join(cell["source"])  # it is executed
        exec("".join(cell["source"]), namespace)
    assert (place / "runs/treasure/video.gif").exists()


@pytest.mark.integration
@pytest.mark.parametrize("path", [_README, *_DOCS], ids=_name)
def test_the_code_of_a_page_runs_in_order(path, place, monkeypatch, small_trainings):
    namespace = {}
    for kind, code in _BLOCK.findall(path.read_text()):
        if named := re.match(r"# (\w+\.py)\n", code):
            (place / named.group(1)).write_text(code)
            exec(compile(code, named.group(1), "exec"), {"__name__": "checked"})
        elif kind == "python":
            exec(compile(code, str(path), "exec"), namespace)
        elif kind in ("", "bash"):  # a block of text is output, or a form
            for words in _commands(f"```\n{code}```"):
                if words[0].startswith("impala-"):
                    _run(monkeypatch, words)
