"""The binaries as a user meets them: bad input is a sentence, exit code 2, no trace."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags

from impala_mp import config as config_lib, errors
from impala_mp.cli import command_line, values
from impala_mp.config import base, fields
from impala_mp.environments import factory
from impala_mp.runtime import program

_EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"
_CATCH = f"--config={_EXPERIMENTS / 'catch.py'}"


def _call(module, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"impala_mp.cli.{module}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def _refused(done, *sentences):
    for sentence in sentences:
        assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize("module", ["train", "evaluate"])
def test_help(module):
    done = _call(module, "--help")
    assert done.returncode == 0
    assert "--workdir" in done.stdout


def test_help_all_lists_every_field():
    done = _call("train", "--help=all")
    assert done.returncode == 0
    for field in base.FIELDS:
        line = re.search(rf"^  {re.escape(field.name)}=.*$", done.stdout, re.M)[0]
        assert field.meaning.split()[0] in line


def test_help_shows_this_runs_values_and_nothing_of_absl():
    done = _call(
        "train", "catch", "--config.optimizer.learning_rate=3e-4", "--help=run"
    )
    assert done.returncode == 0
    assert re.search(r"total_agent_steps=\d+ .*default 300000", done.stdout, re.DOTALL)
    assert "optimizer." not in done.stdout
    done = _call("train", "catch", "--help=optimizer.clip_norm")
    assert len(re.findall(r"^  \w", done.stdout, re.M)) == 1
    _refused(_call("train", "--help=optimiser"), "Did you mean 'optimizer'?")
    assert "undefok" not in _call("train", "--help").stdout


def test_help_shows_a_flag_that_has_no_default_with_its_opposite():
    text = _call("play", "--help").stdout
    assert "  --[no]greedy  Take the most likely actions, or draw them" in text
    assert "  --window  " in text


@pytest.mark.parametrize("flag", ["--list", "-list", "--list=true"])
def test_presets_are_listed_and_nothing_is_trained(flag):
    done = _call("train", "catch", flag, "--config.batch_size=-3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Presets, with :VARIANT")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5M", 5_000_000),
        ("300k", 300_000),
        ("1e6", 1_000_000),
        ("2.5e3", 2500),
        ("1_000", 1000),
        ("+7", 7),
        ("-1", -1),
        ("0.0000000000000000000001e22", 1),
        ("90071992547409931", 90071992547409931),
    ],
)
def test_whole_numbers_as_people_write_them(monkeypatch, tmp_path, text, number):
    config = _parse(
        monkeypatch, tmp_path, "--config=BASE", f"--config.total_agent_steps={text}"
    )
    assert config.total_agent_steps == number
    assert values.plain(f"--n={text}", lambda name: int) == f"--n={number}"


@pytest.mark.parametrize(
    "text", ["1.5", "many", "7Q", "k", "", "1e-3", "0x10", "1e999"]
)
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(errors.BadInput, match="a whole number is required, such as"):
        values.plain(f"--n={text}", lambda name: int)


def test_booleans_as_people_write_them(monkeypatch, tmp_path):
    for text, expected in (("no", False), ("Yes", True), ("off", False), ("on", True)):
        config = _parse(
            monkeypatch, tmp_path, "--config=BASE", f"--config.vtrace.correction={text}"
        )
        assert config.vtrace.correction == expected


def test_names_of_other_frameworks_lead_to_a_field():
    for key, field in fields._ELSEWHERE.items():
        assert field in base.BY_NAME
        if key != field:
            assert (
                fields.nearest(key, list(base.BY_NAME)) == f" Did you mean {field!r}?"
            )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing to train is named"),
        (["--config=experiments/cath.py"], "does not exist"),
        ([_CATCH + ":two"], "has no variants"),
        (
            [f"--config={_EXPERIMENTS / 'recall.py'}:rnn"],
            "Choose among lstm, gru, gtrxl, none",
        ),
        ([_CATCH, "--config.batchsize=3"], "Did you mean 'batch_size'?"),
        ([_CATCH, "--config.batch_size=many"], "config.batch_size"),
        ([_CATCH, "--wrkdir=x"], "wrkdir"),
        ([_CATCH, "more"], "there is no preset 'more'"),
    ],
)
def test_flags_are_refused(arguments, sentence):
    _refused(_call("train", *arguments), sentence)


_BASE = """
from impala_mp import config as config_lib

get_config = config_lib.get_impala_config
"""


def _parse(monkeypatch, tmp_path, *arguments):
    """The config that a command line gives."""
    path = tmp_path / "base.py"
    path.write_text(_BASE)
    all_flags = flags.FlagValues()
    config = command_line.define_config(all_flags)
    flags.DEFINE_boolean("flag", False, "", flag_values=all_flags)
    arguments = [argument.replace("BASE", str(path)) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["impala-train", *arguments])
    command_line.parse(all_flags, "")
    return config.value


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config=BASE", "--config.batch_size=64", "--config.actors.count=auto"),
        ("--config", "BASE", "--config.batch_size", "64", "--config.actors.count=0"),
        ("-config", "BASE", "--config.actors.count", "auto", "-config.batch_size=64"),
        ("--config", "BASE", "--config.learner.cuda_graph", "--flag"),
        ("--config", "BASE", "--noconfig.vtrace.correction", "--flag"),
    ],
)
def test_a_space_is_as_good_as_an_equals_sign(monkeypatch, tmp_path, arguments):
    config = _parse(monkeypatch, tmp_path, *arguments)
    named = any("batch_size" in argument for argument in arguments)
    assert config.batch_size == (64 if named else 32)
    assert config.actors.count == (0 if named else 2)
    assert config.learner.cuda_graph == ("--config.learner.cuda_graph" in arguments)
    corrected = "--noconfig.vtrace.correction" not in arguments
    assert config.vtrace.correction == corrected


def test_a_space_form_is_refused_by_the_same_sentences(monkeypatch, tmp_path):
    for arguments, sentence in (
        (["--config"], "nothing to train is named"),
        (["--config", "nowhere.py"], "does not exist"),
        (["--config", "BASE", "--config.batchsize", "3"], "Did you mean 'batch_size'"),
        (["--config", "BASE", "--config.batch_size", "many"], "config.batch_size"),
    ):
        with pytest.raises(errors.BadInput, match=sentence):
            _parse(monkeypatch, tmp_path, *arguments)


def test_any_argument_of_the_environment_is_a_field(monkeypatch, tmp_path):
    prefix = "--config.environment.kwargs."
    config = _parse(
        monkeypatch,
        tmp_path,
        "--config=BASE",
        *(f"{prefix}rows=7", f"{prefix}wind=-0.5", f"{prefix}name=a level"),
        *(f"{prefix}sizes=(1, 2)", f"{prefix}on=True", f"{prefix}none=None"),
        *(f"{prefix}columns", "3", f"{prefix}text='7'"),
    )
    assert config.environment.kwargs.to_dict() == {
        "rows": 7,
        "wind": -0.5,
        "name": "a level",
        "sizes": (1, 2),
        "on": True,
        "none": None,
        "columns": 3,
        "text": "7",
    }
    with pytest.raises(errors.BadInput, match="is not an argument of Catch"):
        factory.make(config.environment, 1)
    with pytest.raises(AttributeError):
        config.environment.other = 3  # the rest is locked as ever


@pytest.mark.parametrize(
    "field",
    [
        *("environment.kwarg.x", "environment.kwargs.x.y", "environment.kwargs."),
        *("network.encoders.a.b", "environment.kwargs.a b"),
    ],
)
def test_other_new_fields_are_refused(monkeypatch, tmp_path, field):
    with pytest.raises(errors.BadInput, match="there is no field"):
        _parse(monkeypatch, tmp_path, "--config=BASE", f"--config.{field}=1")


def test_encoders_policies_and_arguments_have_any_name(monkeypatch, tmp_path):
    """Also one that is no name in Python: absl reads a field as an expression."""
    config = _parse(
        monkeypatch,
        tmp_path,
        "--config=BASE",
        *("--config.network.encoders.image=mlp", "--config.network.encoders.0=nature"),
        *("--config.network.encoders.a/b-c", "my_network:torso"),
        *("--config.environment.kwargs.lambda=0.5", "--config.evaluation.kwargs.in=1"),
        *("--config.policies.red.network.encoders.it's=mlp", "--config.seed=3"),
        *("--config.policies.red.loss.entropy_cost=0.1", "--config.policies.0.seed=2"),
    )
    assert fields.flatten(config.network.encoders) == {
        "0": "nature",
        "a/b-c": "my_network:torso",
        "image": "mlp",
    }
    assert fields.flatten(config.policies) == {
        "0.seed": 2,
        "red.loss.entropy_cost": 0.1,
        "red.network.encoders.it's": "mlp",
    }
    assert config.environment.kwargs["lambda"] == 0.5
    assert config.evaluation.kwargs["in"] == 1
    assert config.seed == 3


def test_a_policys_field_inside_a_value_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "red.py"
    path.write_text(_get_config("config.policies = {'red': {'batch_size': 3}}"))
    for field in ("policies.red.batch_size.x", "policies.red.batch_size.x.y"):
        with pytest.raises(errors.BadInput, match=f"no field config.{field}"):
            _parse(monkeypatch, tmp_path, f"--config={path}", f"--config.{field}=1")


def test_a_dict_with_a_dot_in_a_name_is_refused(monkeypatch, tmp_path):
    value = "--config.environment.kwargs.x={'a.b': 1}"
    with pytest.raises(errors.BadInput, match=r"^'a\.b' has a dot, .* Rename it\.$"):
        _parse(monkeypatch, tmp_path, "--config=BASE", value)


def _get_config(statement, result="config"):
    return (
        "from impala_mp import config as config_lib\n\n\n"
        "def get_config():\n"
        "    config = config_lib.get_impala_config()\n"
        f"    {statement}\n"
        f"    return {result}\n"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"defines no get_config\(\)"),
        ("get_config = 3", r"defines no get_config\(\)"),
        ("{", "is not a Python file with get_config.*never closed"),
        ("All work and no play", "is not a Python file"),
        ("\0", "is not a Python file.*null bytes"),
        ("def get_config(variant): ...", "needs a variant. Use --config=.*py:VARIANT"),
        (_get_config("", "None"), "returns None, which is not a config. Start from"),
        (_get_config("", "config.to_dict()"), "which is not a config"),
        (_get_config("", "config.actors"), "bad.py lacks .* more. Start from"),
        (_get_config("config.seed = None"), "bad.py lacks seed. Start from"),
        (
            _get_config("config.batch_sise = 3"),
            r"no field 'batch_sise'. Did you mean 'batch_size'\? \(.*py, line 6\)",
        ),
        (_get_config("config['xyzzy'] = 3"), r"no field 'xyzzy'. \(.*py, line 6\)"),
        (_get_config("config.actors.cont += 1"), "Did you mean 'count'?"),
        (_get_config("config.batch_size = 'x'"), "'batch_size'. x is .*'str'.*line 6"),
        (_get_config("config.loss = 3"), "'loss'. 3 is of original type <class 'int'>"),
        (_get_config("config.unlock(); config.new = 3"), "there is no field 'new'"),
        (_get_config("config.network.encoders = {'a.b': 'mlp'}"), "'a.b' has a dot"),
    ],
)
def test_a_file_that_gives_no_config_is_refused(monkeypatch, tmp_path, text, sentence):
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(errors.BadInput, match=sentence):
        _parse(monkeypatch, tmp_path, f"--config={path}")


@pytest.mark.integration
def test_the_experiment_is_executed_once_at_a_start(tmp_path):
    path, log = tmp_path / "counted.py", tmp_path / "executions"
    count = f"open({str(log)!r}, 'a').write"
    text = _get_config(f"{count}('called ')")
    path.write_text(f"{text}\n\n{count}('executed ')\n")
    # The refusal comes from the training, after all flags have been parsed.
    done = _call(
        *("train", f"--config={path}", f"--workdir={tmp_path / 'run'}"),
        *("--config.total_agent_steps=900", "--config.batch_size=33"),
    )
    _refused(done, "config.batch_size to 48")
    assert log.read_text() == "executed called "


def test_two_command_lines_share_nothing():
    first, second = (
        command_line.load([_CATCH, f"--config.seed={seed}"]) for seed in (1, 2)
    )
    assert (first.seed, second.seed) == (1, 2)


def test_such_a_file_is_refused_without_a_traceback(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(_get_config("config.batch_sise = 3"))
    _refused(_call("train", f"--config={path}"), "Did you mean 'batch_size'?")


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("1 / 0", ZeroDivisionError),
        ("config.batch_size += None", TypeError),
        ("config.batch_size.bit_size()", AttributeError),
        ("import nowhere", ModuleNotFoundError),
    ],
)
def test_a_bug_in_a_config_keeps_its_traceback(monkeypatch, tmp_path, statement, error):
    path = tmp_path / "bug.py"
    path.write_text(_get_config(statement))
    with pytest.raises(error):
        _parse(monkeypatch, tmp_path, f"--config={path}")


@pytest.mark.integration
def test_a_refused_run_leaves_nothing(tmp_path):
    workdir = tmp_path / "run"
    done = _call("train", _CATCH, f"--workdir={workdir}", "--config.batch_size=33")
    _refused(done, "config.batch_size to 64")
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"environment.id": "CartPole-v9"}, "not registered"),
        (
            {"environment.id": "tests.support.counting:Wordy-v0"},
            "observation space",
        ),
        ({"network.torso": "nature"}, "at least 36x36"),
        ({"network.torso": "mpl"}, "must be auto"),
        ({"network.torso": "nowhere:factory"}, "no module 'nowhere'"),
        ({"network.torso": "json:factory"}, "has no 'factory'"),
        ({"learner.device": "cuda:7"}, "0 CUDA devices are visible"),
        ({"learner.device": "tpu"}, "must be auto, cpu, cuda or cuda:N"),
        ({"learner.device": "meta"}, "is not supported"),
        ({"network.hidden_sizes": (10**6, 10**6)}, "of memory to be made, and"),
        ({"actors.slots": 10**9}, "MiB are available. Lower config.actors.slots"),
    ],
)
def test_runs_are_refused_before_anything_is_written(tmp_path, fields, sentence):
    config = config_lib.get_impala_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(errors.BadInput, match=sentence):
        program.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.integration
def test_a_life_of_a_run(tmp_path):
    """Trains, goes on, refuses another config, evaluates, and films."""
    workdir, film = tmp_path / "run", tmp_path / "film.gif"
    run = [_CATCH, f"--workdir={workdir}", "--config.runtime.mode=lockstep"]
    done = _call("train", *run, "--config.total_agent_steps=6400")
    assert done.returncode == 0, done.stderr
    assert "Final evaluation: mean return" in done.stdout
    assert (workdir / "learning_curve.png").exists()
    done = _call("train", *run, "--config.total_agent_steps=12800")
    assert "Resuming from update 10" in done.stdout
    assert "total_agent_steps changes from 6400 to 12800" in done.stdout
    done = _call("train", *run, "--config.loss.baseline_cost=0.25")
    _refused(done, "loss.baseline_cost is 0.5 there, 0.25 here")
    done = _call("evaluate", f"--workdir={workdir}", "--episodes=7", f"--video={film}")
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["episodes"] == 7
    assert result["agent_steps"] == 12800
    assert -1.0 <= result["min"] <= result["mean"] <= result["max"] <= 1.0
    assert film.read_bytes().startswith(b"GIF89a")
    _damage(workdir / "checkpoints")
    _refused(_call("evaluate", f"--workdir={workdir}"), "checkpoint")
    _refused(_call("train", *run, "--config.total_agent_steps=12800"), "checkpoint")
    _damage(workdir)
    _refused(_call("evaluate", f"--workdir={workdir}"), "this config is damaged")
    _refused(_call("train", *run), "this config is damaged")


def _damage(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:100])


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "one folder is required, but none is given. Use: impala-eval DIR"),
        (["--workdir=nowhere"], "has no config.json"),
        (["--workdir=nowhere", "--episodes=0"], "episodes"),
        (["--workdir=nowhere", "--video=film.mp4"], "Use a name that ends in .gif"),
        (
            ["--workdir=nowhere", "--video=no/c.gif"],
            "in the folder no, which does not exist. Make it",
        ),
    ],
)
def test_evaluations_are_refused(arguments, sentence):
    _refused(_call("evaluate", *arguments), sentence)


@pytest.mark.parametrize("secs", ["nan", "inf", "-1", "1e300"])
def test_a_pause_that_has_no_length_is_refused(secs):
    done = _call("play", "nowhere", f"--delay_secs={secs}")
    _refused(done, "--delay_secs=", "must be from 0 to 3600")


def test_a_deleted_folder_and_ascii_output_give_sentences(tmp_path):
    code = (
        "import os, sys; from impala_mp.cli import status;"
        "sys.argv = ['impala-status', sys.argv[1]];"
        "os.chdir(sys.argv[1]) or os.rmdir(os.getcwd()); status.main()"
    )
    (tmp_path / "gone").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "gone")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    _refused(done, "the current folder cannot be used")
    command = [sys.executable, "-m", "impala_mp.cli.status", f"{tmp_path}/ü\x1b[31m"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    _refused(done, r"\xfc\x1b[31m has no health.json")


def test_output_that_cannot_be_written_gives_a_sentence():
    command = [sys.executable, "-m", "impala_mp.cli.train", "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith(
        ": the output cannot be written (No space left on device).\n"
    )
    assert done.stderr.count("\n") == 1
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
