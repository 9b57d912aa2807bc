"""Tables of names: whole names only, and one writer after the other."""

import pytest

from impala_mp.transport import name_tables
from tests.support import forks


def test_a_reader_sees_names_in_their_order():
    tables = name_tables.NameTables(2, 4)
    writer, reader = tables.tables[1], tables.tables[1]
    assert reader.names() == []
    for name in ("lives", "größe", "x" * 48):
        writer.append(name)
    assert reader.names() == ["lives", "größe", "x" * 48]
    assert len(reader) == 3
    assert tables.tables[0].names() == []


@pytest.mark.integration
def test_a_name_of_a_writer_that_died_is_not_announced():
    tables = name_tables.NameTables(1, 4)
    table = tables.tables[0]

    def write_and_die():
        table.append("whole")
        table._barrier = forks.die
        table.append("half")

    with forks.child(write_and_die) as pid:
        forks.wait(pid)
    assert table.names() == ["whole"]
    table.append("next")
    assert table.names() == ["whole", "next"]
