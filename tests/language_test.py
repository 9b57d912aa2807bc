"""The language of docstrings, messages and pages, by docs/contributing/style.md.

What it cannot see (one fact a sentence, three parts a message), a reader must.
"""

import ast
import functools
import pathlib
import re

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_CODE = sorted(
    path
    for folder in ("impala_mp", "experiments", "tools")
    for path in (_ROOT / folder).rglob("*.py")
)
_PAGES = sorted([_ROOT / "README.md", *(_ROOT / "docs").rglob("*.md")])
_RULES = _ROOT / "docs" / "contributing" / "style.md"  # names the words it forbids

# Rule 1: a verb (functions) or a noun phrase (classes, modules) comes first.
_OPENING = re.compile(
    r"(What|Whatever|Of|That of|Those|That|As|Whether|Where|Who|Whoever|How|Which|For"
    r"|Is|Does|In|By|Because|If|From|With|At|On|To|Between|Without|So|But|And|Once|Says"
    r"|Tells)\b"
)
# Rule 3: the field's verb. Rule 4: processes and data, not people.
_WORDS = {
    r"whoever|whatever|whichever|nobody|somebody|someone|everybody": "process or data",
    r"anew|mends?|mended|thrown? away|throws? away": "restart, fix, discard",
    r"go(es|ing)? on (from|with)|gone on with": "resume",
    r"of (one|your|its|their)['’]?s? own\b": "custom, separate",
    r"hands? (it |them )?on\b|lets? go of": "pass, release",
    r"lies (in|under|there|on|beside)": "contains, stands",
    r"one's\b": "the process's, its",
}
_FORBIDDEN = re.compile("|".join(rf"\b(?:{words})" for words in _WORDS), re.IGNORECASE)
_SAYING = re.compile(r"\b(say|says|said|tells?|told)\b", re.IGNORECASE)


def _name(path):
    return str(path.relative_to(_ROOT))


@functools.cache
def _tree(path):
    return ast.parse(path.read_text())


def _docstrings(path):
    """(line, docstring) of a module, its classes and its functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(_tree(path)):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def _strings(path):
    """(line, text) of every string, the parts of f-strings included."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _comments(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := re.search(r"(?:^|\s)# (.*)$", line):
            yield number, match[1]


def _prose(path):
    """(line, text) of a page, without its code."""
    inside = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)


def _found(pattern, texts):
    return [
        f"line {line}: {match[0]!r} in {text.strip()[:70]!r}"
        for line, text in texts
        if (match := pattern.search(text))
    ]


@pytest.mark.parametrize("path", _CODE, ids=_name)
def test_a_docstring_begins_with_a_verb_or_a_noun(path):
    stiff = [
        f"line {line}: {text.splitlines()[0]}"
        for line, text in _docstrings(path)
        if _OPENING.match(text)
    ]
    assert not stiff, "\n".join(stiff)


@pytest.mark.parametrize("path", _CODE, ids=_name)
def test_code_speaks_of_processes_and_data(path):
    texts = [*_strings(path), *_comments(path)]
    found = [*_found(_FORBIDDEN, texts), *_found(_SAYING, texts)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", _PAGES, ids=_name)
def test_pages_speak_of_processes_and_data(path):
    if path != _RULES:
        found = _found(_FORBIDDEN, _prose(path)) + _found(_SAYING, _prose(path))
        assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "What a run leaves.",
        "Of each of several tasks.",
        "That of the normals.",
        "As `Encoder.adapt`.",
    ],
)
def test_the_openings_are_seen(text):
    assert _OPENING.match(text)


@pytest.mark.parametrize(
    "text",
    [
        "nobody reads it",
        "the run goes on from there",
        "a core of one's own",
        "it is thrown away",
        "begins anew",
        "the file lies in the folder",
    ],
)
def test_the_words_are_seen(text):
    assert _FORBIDDEN.search(text)
    assert _SAYING.search("it says so")
    assert not _FORBIDDEN.search("Resumes the run from its newest checkpoint.")
