"""Page of a report: one file, nothing from outside, nothing executed."""

import html.parser
import json
import os
import re

import pytest

from impala_mp import errors
from impala_mp.monitoring import report, report_page
from tests.support import records, run_folder


class _Reader(html.parser.HTMLParser):
    """Tags, attributes and text; fails on a tag that is not closed."""

    _EMPTY = ("meta", "br", "img")

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts, self._open = set(), [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in self._EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        if "style" not in self._open:
            self.texts.append(data)

    def close(self):
        super().close()
        assert self._open == []


def _page(folder):
    text = report_page.render(report.read(str(folder)))
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return text, reader


def _sections(text):
    return re.findall("<h2>(.*?)</h2>", text)


@pytest.fixture
def folder(tmp_path):
    run_folder.write(tmp_path)
    return tmp_path


def test_every_part_is_there(folder):
    text, reader = _page(folder)
    assert _sections(text) == [
        "Warnings",
        "Learning curve",
        "Diagnostics",
        "Evaluations",
        "Film",
        "Config",
        "Processes",
        "Changes during the run",
        "Lineage",
        "Commands",
        "Versions and machine",
    ]
    words = " ".join(" ".join(reader.texts).split())
    for expected in (
        "Catch",
        "algorithm impact",
        "seed 0",
        "1,000,000 of 1,000,000 agent steps (100 %)",
        "98.5 95.5 to 102 (95 %), 100 games",
        "There are no warnings in the records.",
        "success_rate 1",
        "random policy",
        "total_agent_steps 1000000 300000",
        "learner 0 ended 0 0 exit code 0",
        "400,000 entropy_cost 0.01 0.002 impala-ctl",
        "/runs/parent 900 288,000 1 of 2 arrays",
        f"impala-train {folder}",
        "impala_mp 0.1.0",
    ):
        assert expected in words, expected


def test_nothing_is_loaded_or_executed(folder):
    text, reader = _page(folder)
    assert not reader.tags & {"script", "link", "iframe", "object", "embed", "base"}
    for name, value in reader.attributes:
        assert not name.startswith("on"), name
        assert name not in ("href", "srcset", "xlink:href"), value
        assert name != "src" or value.startswith("data:image/gif;base64,")
    assert not re.search(r"https?:|@import|url\((?!#plot)", text)


_EVIL = '"><script>alert(1)</script>\x1b[31m&amp;'


def test_text_from_files_is_only_text(folder):
    """In every string of every JSON file."""
    for name in ("evaluations.jsonl", "evaluation.json", "changes.jsonl"):
        _spoil(folder / name)
    _spoil(folder / "lineage.json")
    _spoil(folder / "health.json")
    made = records.make(
        20, **{f"env__{_EVIL}": 3.0, f"episode__return_mean__{_EVIL}": 1}
    )
    run_folder.write_lines(folder / "metrics.jsonl", made)
    (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace('"Catch"', json.dumps(_EVIL))
    )
    text, reader = _page(folder)
    assert text.count("&lt;script&gt;") > 15
    assert "script" not in reader.tags
    assert "\x1b" not in text


def _spoil(path):
    """Appends the evil text to every string of a JSON file, keys excepted."""

    def worse(node):
        if isinstance(node, dict):
            return {k: worse(v) for k, v in node.items()}
        if isinstance(node, list):
            return [worse(v) for v in node]
        return f"{node}{_EVIL}" if isinstance(node, str) else node

    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else None
    found = map(json.loads, lines or [path.read_text()])
    run_folder.write_lines(path, [worse(each) for each in found])


def test_passwords_and_the_environment_are_not_shown(folder, monkeypatch):
    monkeypatch.setenv("SOME_VARIABLE", "from the environment")
    run_folder.write(
        folder, environment__kwargs={"api_key": "hunter2", "size": 7}, unroll_length=9
    )
    text, _ = _page(folder)
    assert "hunter2" not in text
    assert "environment.kwargs.api_key" in text
    assert "(not shown)" in text
    assert "from the environment" not in text


@pytest.mark.parametrize(
    "value",
    [[{"password": "hunter2"}], ({"a": [{"api_key": "hunter2"}]},), {"token": 7}],
)
def test_passwords_in_any_container_are_not_shown(folder, value):
    run_folder.write(folder, environment__kwargs={"options": value})
    text, _ = _page(folder)
    assert "hunter2" not in text
    assert "environment.kwargs.options" in text
    assert "(not shown)" in text


def test_the_code_of_a_notebook_has_its_name_alone(folder):
    run_folder.write(folder, environment__id=f"by_value_{'0a' * 16}:make")
    text, _ = _page(folder)
    assert "<title>by_value:make</title>" in text
    assert "0a0a" not in text


def test_the_best_checkpoint_has_the_return_of_other_seeds(folder):
    evaluations = folder / "evaluations.jsonl"
    before = evaluations.read_text()
    assert "75" in _best_tile(folder)
    again = {
        "purpose": "best",
        "policy": "greedy",
        "agent_steps": 750_000,
        "updates": 750,
        "time_secs": 75.0,
        "episodes": 100,
        "low": 60.0,
        "high": 62.0,
        "mean": 61.0,
    }
    older = {**again, "agent_steps": 250_000, "mean": 99.0}
    evaluations.write_text(f"{before}{json.dumps(again)}\n{json.dumps(older)}\n")
    assert "61" in _best_tile(folder)


def _best_tile(folder):
    text, _ = _page(folder)
    return re.search("best evaluation</span><b>(.*?)</b>", text)[1]


def test_there_is_a_best_checkpoint_only_if_it_was_kept(folder):
    assert "best checkpoint</span>" not in _page(folder)[0]
    (folder / "checkpoints" / "best").mkdir(parents=True)
    text, _ = _page(folder)
    assert "best checkpoint</span>" in text
    assert "best evaluation</span>" not in text


def test_of_evaluations_at_the_same_steps_one_is_a_dot(folder):
    before = _page(folder)[0].count("<circle")
    evaluations = folder / "evaluations.jsonl"
    *_, last = map(json.loads, evaluations.read_text().splitlines())
    final = {**last, "purpose": "final", "mean": 73.25, "episodes": 500}
    run_folder.write_lines(evaluations, [final, last])
    text, _ = _page(folder)
    assert "73.2 at 750,000 steps, greedy" in text
    assert "75 at 750,000 steps, greedy" not in text
    assert "73.2" in _best_tile(folder)
    assert before > text.count("<circle")


def test_the_events_of_a_long_run_do_not_fill_the_page(folder):
    change = {"name": "entropy_cost", "from": 0.01, "to": 0.002}
    changes = [{**change, "agent_steps": 10 * n} for n in range(5000)]
    run_folder.write_lines(folder / "changes.jsonl", changes)
    path = folder / "evaluations.jsonl"
    *_, last = map(json.loads, path.read_text().splitlines())
    found = [{**last, "agent_steps": 10 * n} for n in range(5000)]
    run_folder.write_lines(path, found)
    text, _ = _page(folder)
    assert text.count('class="mark"') == 401  # and "resumed" is among them
    assert "<title>resumed</title>" in text
    assert text.count('class="dot"') == 400
    assert len(text) < 250_000


def test_warnings_come_first_with_their_cure(tmp_path):
    run_folder.write(tmp_path, records.make(health__bad_data=3, vtrace__kl=0.9))
    text, _ = _page(tmp_path)
    assert text.index("3 unrolls were discarded") < text.index("Learning curve")
    assert '<div class="card finding warning"><b>warning</b>' in text
    assert "impala-train --check" in text


def test_a_run_that_has_just_begun(tmp_path):
    run_folder.write(tmp_path, [{"agent_steps": 0, "updates": 0}])
    for name in ("evaluations.jsonl", "evaluation.json"):
        (tmp_path / name).unlink()
    text, _ = _page(tmp_path)
    assert "No game has ended yet." in text
    assert "0 of 1,000,000 agent steps (0 %)" in text


def test_versions_and_machine_are_the_runs(folder):
    own = "The versions and the machine are those of this report."
    assert own in _page(folder)[0]
    (folder / "machine.json").write_text(json.dumps({"torch": "2.7.1", "GPU": "H99"}))
    text, _ = _page(folder)
    assert "2.7.1" in text
    assert "H99" in text
    assert own not in text


def test_policies_with_a_device_of_their_own_are_named(folder):
    config = json.loads((folder / "config.json").read_text())
    config["learner"]["device"] = "cpu"
    config["policies"] = {"prey": {"learner": {"device": "cuda:1"}}}
    (folder / "config.json").write_text(json.dumps(config))
    assert "The learner used cpu, cuda:1 for prey." in _page(folder)[0]


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "health.json"])
def test_a_damaged_file_is_a_sentence(folder, name):
    (folder / name).write_bytes(b"\xff{")
    text, _ = _page(folder)
    assert (name in text) == (name != "metrics.jsonl"), "its bad lines are no records"
    assert "Versions and machine" in _sections(text)


@pytest.mark.parametrize("value", [[], [1.0], [0, 0], 7, -1e299, "x", None, {}])
def test_values_of_any_type(tmp_path, value):
    """In every place but the agent steps, without which a line is no record."""
    keys = [k for k in records.make(1)[0] if k != "agent_steps"]
    made = records.make(30, **{key.replace("/", "__"): 0 for key in keys})
    run_folder.write(tmp_path, [{**r, **dict.fromkeys(keys, value)} for r in made])
    for name in ("evaluations.jsonl", "changes.jsonl"):
        line = json.loads((tmp_path / name).read_text().splitlines()[0])
        run_folder.write_lines(
            tmp_path / name,
            [{**line, key: value} for key in line] + [dict.fromkeys(line, value)],
        )
    lineage = json.loads((tmp_path / "lineage.json").read_text())
    (tmp_path / "lineage.json").write_text(json.dumps(dict.fromkeys(lineage, value)))
    final = dict.fromkeys(("greedy", "sampled"), dict.fromkeys(lineage, value))
    (tmp_path / "evaluation.json").write_text(json.dumps(final))
    text, _ = _page(tmp_path)
    assert "Versions and machine" in _sections(text)


@pytest.mark.parametrize(
    "record",
    [
        {"agent_steps": 0, "episode/return_mean": 0.0},
        {"agent_steps": 1e299, "episode/return_mean": -1e299},
        {"agent_steps": -5, "episode/return_mean": 1e-300},
    ],
)
def test_extreme_numbers(tmp_path, record):
    run_folder.write(tmp_path, [record, record])
    text, _ = _page(tmp_path)
    assert not re.search(r'(d|x|y|cx|cy)="[^"]*(nan|inf)', text)


def test_a_report_is_written(folder):
    path = report_page.write(str(folder))
    assert path == os.path.join(folder, "report.html")
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    other = report_page.write(str(folder), str(folder / "other.html"))
    assert other == str(folder / "other.html")
    assert (folder / "other.html").exists()


def test_a_report_that_cannot_be_written(folder):
    with pytest.raises(errors.BadInput, match="--output=.*does not exist"):
        report_page.write(str(folder), str(folder / "missing" / "r.html"))
    (folder / "report.html").mkdir()
    with pytest.raises(errors.BadInput, match="Name another file by --output=FILE"):
        report_page.write(str(folder))
