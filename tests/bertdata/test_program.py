import signal

import click
import pytest
from click.testing import CliRunner

from bertdata.cli import main as bertdata
from bertdata.errors import BertDataError, ShardError
from bertdata.program import SETTINGS, ending
from trainer.cli import main as bert_train
from trainer.predict_cli import main as bert_predict


def end(error, *advice):
    @click.command()
    def program():
        with ending(), ending(*advice):
            raise error

    result = CliRunner().invoke(program)
    assert result.stdout == ""
    return result.exit_code, result.stderr


def test_ending_says_an_error_once():
    assert end(ShardError("a.tar is damaged; build it again"), "all is kept") == (
        1,
        "error: a.tar is damaged; build it again\n",
    )


def test_ending_says_what_an_interruption_has_left():
    assert end(KeyboardInterrupt()) == (130, "stopped\n")
    assert end(KeyboardInterrupt(), "all is kept") == (130, "stopped; all is kept\n")
    assert end(KeyboardInterrupt(signal.SIGTERM)) == (143, "stopped\n")


def test_ending_leaves_mistakes_of_the_program_alone():
    with pytest.raises(ZeroDivisionError), ending():
        raise ZeroDivisionError
    with pytest.raises(SystemExit) as raised, ending():
        raise SystemExit(3)
    assert raised.value.code == 3


@pytest.mark.parametrize("program", [bertdata, bert_train, bert_predict], ids=["bertdata", "train", "predict"])
@pytest.mark.parametrize(("error", "code"), [(BertDataError("no"), 1), (KeyboardInterrupt(), 130)], ids=["no", "^C"])
def test_all_programs_end_alike(monkeypatch, program, error, code):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(program, "callback", fail)
    arguments = {bertdata: ["verify", "x"], bert_train: ["--shards", "x"], bert_predict: ["x"]}[program]
    result = CliRunner().invoke(program, arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == ("error: no\n" if code == 1 else "stopped\n")
    assert program.context_settings == SETTINGS
