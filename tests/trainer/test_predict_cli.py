"""`bert-predict` as a user runs it: on runs, in a process of its own, and on lines."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bertdata.data_set import DataSet
from tests.trainer.asked_models import save_model
from tests.trainer.test_train import ENVIRONMENT
from trainer.cli import main as train_main
from trainer.predict_cli import _iter_questions, main

COMMAND = [sys.executable, "-c", "from trainer.predict_cli import main; main(prog_name='bert-predict')"]


def invoke(*arguments: object, **more: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="bert-predict", **more)


def start(*arguments: object) -> "subprocess.Popen[str]":
    command = [*COMMAND, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, bufsize=1, env=ENVIRONMENT, **pipes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Path:
    out = tmp_path_factory.mktemp("models") / "model"
    return save_model(out, architecture="BertForPreTraining", tokenizer_file=tokenizer_file)


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that trains for two steps on a data set; the session's ones have text of no sense."""

    def train_two_steps(data_set: DataSet) -> Path:
        fixed = ("--model", "tiny", "--batch-size", 8, "--max-steps", 2)
        arguments = ("--shards", data_set.folder, "--out", tmp_path / "run", *fixed)
        result = CliRunner().invoke(train_main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.stderr
        return tmp_path / "run"

    return train_two_steps


def asked_of(place: Path, *texts: str) -> dict[str, Any]:
    result = invoke(place, *texts, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def change_facts(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    facts = json.loads((run / "run.json").read_text())
    change(facts)
    (run / "run.json").write_text(json.dumps(facts))


def test_a_run_is_asked_by_its_export_or_else_its_checkpoint(train: Callable[..., Path], data_set: DataSet) -> None:
    run = train(data_set)
    texts = ("a [MASK] b", "c")
    expected = asked_of(run, *texts)
    assert set(expected) == {"text", "text_b", "masks", "next_sentence"}
    assert asked_of(run / "hf", *texts) == expected

    def stop(facts: dict[str, Any]) -> None:
        facts["starts"][-1]["end"]["is_finished"] = False

    change_facts(run, stop)
    for name in ("hf", "gone"):  # with an export of an earlier end, and with none
        (run / "hf").rename(run / name)
        result = invoke(run, *texts, "--json")
        assert json.loads(result.stdout) == expected
        assert "has not ended; asking its checkpoint of step 2" in result.stderr
    change_facts(run, lambda facts: facts["data"][0].update(place="elsewhere"))
    result = invoke(run, *texts)
    assert result.exit_code == 1
    assert "no tokenizer.json and no vocab.txt" in result.stderr
    assert json.loads(invoke(run, *texts, "--json", "--tokenizer", data_set.folder).stdout) == expected


def test_an_untrained_head_is_not_asked(train: Callable[..., Path], new_data_set: Callable[..., DataSet]) -> None:
    run = train(new_data_set(next_sentence="none"))
    assert "next_sentence" not in asked_of(run, "a [MASK] b", "c")
    result = invoke(run, "a", "c")
    assert result.exit_code == 1
    assert "no (trained) next-sentence head" in result.stderr


def test_labels_are_those_of_the_data(train: Callable[..., Path], new_data_set: Callable[..., DataSet]) -> None:
    run = train(new_data_set(next_sentence="sop"))
    assert set(asked_of(run, "a", "c")["next_sentence"]) == {"in order", "swapped"}


def test_samples_longer_than_those_of_training_are_warned_of_once(
    train: Callable[..., Path], new_data_set: Callable[..., DataSet]
) -> None:
    run = train(new_data_set(max_seq_length=24))
    long = "[MASK] " + "a " * 30
    result = invoke(run, "-", input=f"{long}\n{long}\n")
    assert result.exit_code == 0
    assert result.stderr.count("a text has 33 tokens, and the model was trained on samples of up to 24") == 1
    assert "trained on" not in invoke(run, "[MASK]").stderr


def test_answers_for_people(folder: Path) -> None:
    result = invoke(folder, "the [MASK] and [MASK]", "a cat", "--top-k", 2)
    heads = [line[:8].strip() for line in result.stdout.splitlines()]
    assert heads == ["[MASK] 1", "", "[MASK] 2", "", "next", ""]
    assert all(line.endswith("%") for line in result.stdout.splitlines())
    assert len({len(line) for line in result.stdout.splitlines()}) == 1
    assert invoke(folder, "the [MASK]").stdout.count("\n") == 5


def test_lines_of_stdin(folder: Path) -> None:
    lines = ["the [MASK]", "a\tb", "the [MASK] and [MASK]\tb\r", "[MASK]"]
    wanted = [line.removesuffix("\r").split("\t") for line in lines]
    for given in ((), ("-",)):
        result = invoke(folder, *given, "--json", input="\n".join(lines))
        assert result.exit_code == 0, result.stderr
        found = [json.loads(line) for line in result.stdout.splitlines()]
        assert [[one["text"], *([one["text_b"]] if "text_b" in one else [])] for one in found] == wanted
    for one, texts in zip(found, wanted, strict=True):
        alone = asked_of(folder, *texts)
        assert alone.keys() == one.keys()
        for words, expected in zip(one["masks"], alone["masks"], strict=True):
            assert [word["probability"] for word in words] == pytest.approx(
                [word["probability"] for word in expected], rel=1e-5
            )
    blocks = invoke(folder, input="\n".join(lines)).stdout.split("\n\n")
    assert [block.splitlines()[0] for block in blocks[:-1]] == [" | ".join(texts) for texts in wanted]


def test_empty_lines_of_stdin_are_passed_over_and_told(folder: Path) -> None:
    result = invoke(folder, "--json", input=b"[MASK] 1\n\n \r\n[MASK] 4\n\n")
    assert result.exit_code == 0
    assert [json.loads(one)["text"] for one in result.stdout.splitlines()] == ["[MASK] 1", "[MASK] 4"]
    assert re.findall(r"line (\d) is empty", result.stderr) == ["2", "3", "5"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"no mask", r"line 3: there is no [MASK] in the text"),
        (b"[MASK]\t ", "line 3: a text is empty"),
        (b"[MASK]\tb\tc", "line 3: it has 2 tabs"),
        (b"[MASK] \xff", "line 3: it is not UTF-8"),
        (b"[MASK] " + b"." * 100, "line 3: the text has 103 tokens with the special ones, and the model reads"),
    ],
)
def test_a_bad_line_is_named_after_the_answers_before_it(folder: Path, line: bytes, message: str) -> None:
    result = invoke(folder, "--json", input=b"[MASK] 1\n[MASK] 2\n" + line + b"\n[MASK] 4\n")
    assert result.exit_code == 1
    assert [json.loads(one)["text"] for one in result.stdout.splitlines()] == ["[MASK] 1", "[MASK] 2"]
    assert result.stderr.startswith(f"error: {message}")


class Pieces(io.RawIOBase):
    """A stream that gives bytes in given pieces, as a pipe does."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def read1(self, _: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def texts_of(stream: Any) -> Iterator[list[str]]:
    return ([question.text for question in questions] for questions in _iter_questions(stream))


def test_lines_are_asked_as_they_come() -> None:
    assert list(texts_of(Pieces(b"a\nb", b"c\n", b"d", b"e\nf\n", b"g"))) == [["a"], ["bc"], ["de", "f"], ["g"]]
    many = [f"line {number}" for number in range(1000)]
    assert list(texts_of(Pieces("\n".join(many).encode()))) == [many[:-1], many[-1:]]
    assert list(texts_of(Pieces())) == []


def test_an_answer_comes_before_the_next_line_is_written(folder: Path) -> None:
    with start(folder, "--json") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(f"[MASK] {number}\n")
            assert json.loads(process.stdout.readline())["text"] == f"[MASK] {number}"
        process.stdin.write("nothing\n")
        output, errors = process.communicate()
    assert (process.returncode, output) == (1, "")
    assert errors.startswith("error: line 4: there is no [MASK]")


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_traceback(folder: Path) -> None:
    with start(folder) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("[MASK]\n")
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write("[MASK]\n")
        process.stdin.close()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 1


def test_usage_errors_exit_with_2(folder: Path) -> None:
    for arguments in (
        (),
        (folder, "-", "b"),
        (folder, ""),
        (folder, "a", " "),
        (folder, "a", "--top-k", 0),
        (folder, "\udce9 [MASK]"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2, arguments
        assert result.stdout == ""
    assert invoke(folder / "nothing", "[MASK]").exit_code == 1


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom trainer.predict_cli import main\n"
        "result = CliRunner().invoke(main, ['--help'])\n"
        "print('torch' in sys.modules, result.output)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.startswith("False Usage:")
    for word in ("Example: bert-predict run/", "[default: 5", "[default: 30", "IsNext", "stdin"):
        assert word in output
