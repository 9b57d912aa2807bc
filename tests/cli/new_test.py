"""What `impala-new` writes passes its own test, and trains by its own README."""

import os
import pathlib
import shlex
import subprocess
import sys
import tomllib

import pytest

from impala_mp import errors
from impala_mp.cli import new

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_MODULES = {"impala-train": "train", "impala-play": "play"}


def _run(arguments, cwd):
    """A command in a folder of the user's, with this impala_mp."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


_KINDS = ("numbers", "dict", "pixels", "game")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new") / "pond"
    done = _run(["impala_mp.cli.new", "pond", "--name=duck_pond"], folder.parent)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(params=_KINDS[1:])
def another(request, tmp_path):
    """A project whose environment shows something else."""
    folder = tmp_path / request.param
    if request.param == "game":
        new.write(str(folder), "duck_pond", game=True)
    else:
        new.write(str(folder), "duck_pond", request.param)
    return folder


def test_files_of_a_new_project(project):
    there = {str(p.relative_to(project)) for p in project.rglob("*") if p.is_file()}
    package = ("__init__.py", "environment.py", "network.py")
    assert there == {
        *("README.md", "experiment.py", "duck_pond_test.py"),
        *(f"duck_pond/{name}" for name in package),
    }
    texts = [path.read_text() for path in project.rglob("*") if path.is_file()]
    assert not any("my_project" in text or "MyProject" in text for text in texts)
    assert any('"DuckPond-v0"' in text for text in texts)
    assert len((project / "README.md").read_text().splitlines()) <= 10


def test_a_project_of_another_kind_has_the_same_files(another, project):
    there, expected = (
        sorted(str(p.relative_to(folder)) for p in folder.rglob("*.*"))
        for folder in (another, project)
    )
    assert there == [path for path in expected if "__pycache__" not in path]
    environment = (another / "duck_pond" / "environment.py").read_text()
    other = (project / "duck_pond" / "environment.py").read_text()
    assert environment != other
    assert "DuckPond" in environment


@pytest.mark.integration
def test_its_own_test_passes(project):
    done = _run(["pytest", "-q", "-p", "no:cacheprovider"], project)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


@pytest.mark.integration
@pytest.mark.parametrize(
    "another",
    [
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in _KINDS[1:-1]),
        _KINDS[-1],
    ],
    indirect=True,
)
def test_the_test_of_another_kind_passes(another):
    done = _run(["pytest", "-q", "-p", "no:cacheprovider"], another)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def _commands(project):
    """[program, argument ...] of each command in the README that is ours."""
    lines = (project / "README.md").read_text().splitlines()
    commands = [shlex.split(line.split("#")[0]) for line in lines if line[:4] == "    "]
    return [command for command in commands if command[0] in _MODULES]


@pytest.mark.integration
def test_the_commands_of_its_readme(project):
    check, train, play = _commands(project)
    for command, more in (
        (check, []),
        (train, ["--config.total_agent_steps=6400", "--config.evaluation.episodes=5"]),
        (play, []),
    ):
        name, *arguments = command
        done = _run([f"impala_mp.cli.{_MODULES[name]}", *arguments, *more], project)
        assert done.returncode == 0, done.stdout + done.stderr
        if command is check:
            assert "FAIL" not in done.stdout
            assert "warning  rewards" not in done.stdout
    assert "the episode has ended" in done.stdout


@pytest.mark.slow
def test_its_training_reaches_the_goal(project):
    _, (_, *train), _ = _commands(project)
    train[-1] += "-whole"
    done = _run(["impala_mp.cli.train", *train], project)
    assert done.returncode == 0, done.stderr
    mean = float(done.stdout.split("mean return ")[1].split(",")[0])
    assert mean > 0.96  # four steps, of which three cost 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "best"), [("dict", 0.955), ("pixels", 0.970)])
def test_the_defaults_alone_reach_the_best(tmp_path, kind, best):
    """`best` is the mean return of shortest ways, over all starts."""
    new.write(str(tmp_path / "new"), "duck_pond", kind)
    name = "duck_pond.environment:DuckPond-v0"
    done = _run(["impala_mp.cli.train", name], tmp_path / "new")
    assert done.returncode == 0, done.stderr
    mean = float(done.stdout.split("mean return ")[1].split(",")[0])
    assert mean >= 0.95 * best


def test_every_file_of_the_template_is_packaged():
    """In `package-data`; setuptools takes only packages by itself."""
    tool = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]
    globs = tool["setuptools"]["package-data"]["impala_mp.cli"]
    for source in new._sources():
        path = source.relative_to(_ROOT / "impala_mp" / "cli")
        assert any(path.match(glob) for glob in globs), path


@pytest.mark.parametrize("name", ["My", "9lives", "my-game", "class", "", "a.b"])
def test_no_package_can_be_called_so(tmp_path, name):
    with pytest.raises(errors.BadInput, match="cannot be the name of a package"):
        new.write(str(tmp_path / "new"), name)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["json", "numpy", "impala_mp", "experiment", "sys"])
def test_a_name_that_is_taken_is_refused(tmp_path, name):
    with pytest.raises(errors.BadInput, match="is an existing module"):
        new.write(str(tmp_path / "new"), name)


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(errors.BadInput, match="is not empty"):
        new.write(str(tmp_path))
    with pytest.raises(errors.BadInput, match="is a file"):
        new.write(str(tmp_path / "mine"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("there", ["", "new"])
def test_what_cannot_be_written_is_refused_and_removed(tmp_path, monkeypatch, there):
    def write(path, text):
        if path.name == "network.py":
            path.touch()
            raise OSError(28, "No space left on device")
        return whole(path, text)

    whole = pathlib.Path.write_text
    (tmp_path / there).mkdir(exist_ok=True)
    monkeypatch.setattr(pathlib.Path, "write_text", write)
    with pytest.raises(errors.BadInput, match="new/a/b cannot be written .*No space"):
        new.write(str(tmp_path / "new" / "a" / "b"))
    assert [path.name for path in tmp_path.rglob("*")] == ([there] if there else [])


def test_an_empty_folder_will_do_and_a_name_of_an_earlier_project(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as `python -m` does
    (tmp_path / "empty").mkdir()
    (tmp_path / "my_project").mkdir()
    assert len(new.write("empty")) == 6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "one folder is required, but none is given. Use: impala-new DIR"),
        (["."], ". is not empty"),
        (["README.md/new"], "README.md/new cannot be written ([Errno 20] Not a dir"),
        (["new", "--name=json"], "--name=json is an existing module"),
        (["new", "--observations=sounds"], "--observations=sounds is unknown. Choose"),
    ],
)
def test_bad_input_is_a_sentence(arguments, sentence):
    done = _run(["impala_mp.cli.new", *arguments], _ROOT)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
