"""What ``skinfl data`` prints about readers, checks and patients."""

from __future__ import annotations

from skinfl import data_commands
from skinfl.data import all_readers


def test_the_list_goes_over_the_registry(capsys):
    data_commands.list_sources()
    text = capsys.readouterr().out
    for reader in all_readers():
        assert f"{reader.source.name}: " in text and reader.source.page in text


def test_a_check_says_how_to_train_on_what_it_read(ham, tmp_path, capsys):
    data_commands.check(str(ham), metadata=None)
    assert capsys.readouterr().out.splitlines()[-1] == f"no problems: it can be trained on with --data {ham}"
    table = (ham / "HAM10000_metadata.csv").rename(tmp_path / "the table.csv")
    data_commands.check(str(ham), metadata=str(table))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"no problems: it can be trained on with --data {ham} --metadata '{table}'"
