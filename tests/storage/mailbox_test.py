"""Questions that no run answers."""

import pytest

from impala_mp import errors
from impala_mp.storage import mailbox, workdir
from tests.support import builders


def test_a_question_that_is_not_answered_is_withdrawn(tmp_path, monkeypatch):
    box = mailbox.Mailbox(str(tmp_path))
    monkeypatch.setattr(workdir, "is_live", lambda path: True)
    with pytest.raises(mailbox.NoAnswer):
        mailbox.ask(str(tmp_path), {"get": []}, 0.0)
    assert box.take() == []
    left = tmp_path / "questions" / "1.question"
    left.write_text('{"set": {"epsilon": 1.0}}')
    assert mailbox.Mailbox(str(tmp_path)).take() == []  # it was meant for another run
    assert not left.exists()


def test_a_run_is_alive_while_it_holds_its_folder(tmp_path):
    path = str(tmp_path / "run")
    assert not workdir.is_live(path)
    run = workdir.Workdir(path)
    run.open(builders.config())
    assert workdir.is_live(path)
    run.close()
    assert not workdir.is_live(path)
    with pytest.raises(errors.BadInput, match="is not alive"):
        mailbox.ask(path, {"get": []}, 1.0)
