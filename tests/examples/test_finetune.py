"""Fine-tuning: the readers of the common formats, our own data, and each script from end to end on a few rows."""

import dataclasses
import hashlib
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from click import ClickException, UsageError
from click.testing import CliRunner
from transformers.trainer_utils import PredictionOutput

from trainer.predict_cli import main as predict

from .conftest import FINETUNE

SUFFIXES = {"sentences": "tsv", "pairs": "tsv", "tokens": "txt", "questions": "json"}
CLASSES = {
    "sentences": "BertForSequenceClassification",
    "pairs": "BertForSequenceClassification",
    "tokens": "BertForTokenClassification",
    "questions": "BertForQuestionAnswering",
}


@pytest.fixture(scope="module")
def data(scripts, tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    scripts["make_data"].write_data(out, num_training=dict.fromkeys(SUFFIXES, 40), num_test=20)
    return out


@pytest.fixture(scope="module")
def encoder(tokenizer_file, tmp_path_factory):
    """A folder as bert-train exports it, of a tiny model with random weights."""
    out = tmp_path_factory.mktemp("encoder")
    specials = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **specials,
    )
    tokenizer.save_pretrained(out)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(5)
    transformers.BertForPreTraining(transformers.BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(out)
    return out


@pytest.fixture
def run(scripts, data, encoder, capsys):
    """Runs a script on a few rows, and returns what it printed."""

    def run(name, out, *more):
        options = {"--model": encoder, "--out": out, "--epochs": 1, "--max-seq-length": 64}
        options |= {f"--{split}": data / name / f"{split}.{SUFFIXES[name]}" for split in ("train", "test")}
        arguments = [str(word) for option in options.items() for word in option]
        scripts[name].main.main([*arguments, *map(str, more)], standalone_mode=False)
        return capsys.readouterr().out

    return run


def write(path, text, **options):
    path.write_text(text, newline="", **({"encoding": "utf-8"} | options))
    return path


def test_table_reads_sst2(scripts, tmp_path):
    path = write(tmp_path / "dev.tsv", "sentence\tlabel\nit 's a \"charming journey .\t1\nno , no .\t0\n")
    rows = scripts["tables"].read_table(path, columns=["sentence", "label"])
    assert rows == [("it 's a \"charming journey .", "1"), ("no , no .", "0")]


def test_table_reads_mrpc_with_its_byte_order_mark(scripts, tmp_path):
    text = 'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t70\t71\tHe said "yes .\tHe agreed .\r\n'
    path = write(tmp_path / "train.tsv", text, encoding="utf-8-sig")
    columns = ["#1 String", "#2 String", "Quality"]
    assert scripts["tables"].read_table(path, columns=columns) == [('He said "yes .', "He agreed .", "1")]


def test_table_reads_qnli_and_csv_and_files_without_names(scripts, tmp_path):
    read_table = scripts["tables"].read_table
    qnli = write(tmp_path / "qnli.tsv", "index\tquestion\tsentence\tlabel\n0\tWho?\tShe did.\tentailment\n")
    assert read_table(qnli, columns=["question", "sentence", "label"]) == [("Who?", "She did.", "entailment")]
    comma = write(tmp_path / "own.csv", 'label,sentence\ngood,"Well, well\nwell"\n')
    assert read_table(comma, columns=["sentence", "label"]) == [("Well, well\nwell", "good")]
    cola = write(tmp_path / "cola.tsv", "gj04\t1\t\tOur friends left.\ngj05\t0\t*\tFriends our left.\n")
    rows = read_table(cola, columns=["sentence", "label"], header="source,label,mark,sentence")
    assert rows == [("Our friends left.", "1"), ("Friends our left.", "0")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text\tlabel\nA.\t1\n", "no column 'sentence'; there are: text, label\nname yours with --text-column"),
        ("index\tsentence\n0\tA.\n", "name yours with --label-column; or give a file with labels, such as dev.tsv"),
        ("gj04\t1\t\tOur friends left.\n", "if its first line is a row already, name all columns with --header"),
        ("The film is a joy to watch.\tgood\n", "name all columns with --header"),
        (
            "sentence;label\nA.;1\n",
            "there are: sentence;label\nname yours with --text-column; or divide the columns by tabs",
        ),
        ("sentence\tlabel\nA.\t1\nB.\n", "line 3: 1 fields under 2 columns"),
        ("sentence\tlabel\n", "has no rows"),
        ("", "has no rows"),
    ],
)
def test_table_says_what_is_wrong(scripts, tmp_path, text, message):
    with pytest.raises(ClickException, match=re.escape(message)):
        scripts["tables"].read_table(write(tmp_path / "a.tsv", text), columns=["sentence", "label"])


def test_names_of_columns_are_taken_for_names(scripts, tmp_path):
    path = write(tmp_path / "a.tsv", "Quality\t#1 ID\t#1 String\n1\t70\tHe agreed .\n")
    with pytest.raises(ClickException) as raised:
        scripts["tables"].read_table(path, columns=["sentence1", "Quality"], text_option="--text-columns")
    assert raised.value.message.endswith("\nname yours with --text-columns")


def test_table_passes_over_empty_lines_and_wants_utf_8(scripts, tmp_path):
    read_table, columns = scripts["tables"].read_table, ["sentence", "label"]
    path = write(tmp_path / "a.csv", "sentence,label\nA.,1\n\nB.,0\n\n")
    assert read_table(path, columns=columns) == [("A.", "1"), ("B.", "0")]
    path = write(tmp_path / "b.tsv", "sentence\tlabel\nCafé.\t1\n", encoding="latin-1")
    with pytest.raises(ClickException, match=r"b\.tsv is not UTF-8"):
        read_table(path, columns=columns)
    path = write(tmp_path / "c.txt", "Café O\n", encoding="latin-1")
    with pytest.raises(ClickException, match=r"c\.txt is not UTF-8"):
        scripts["tokens"].read_conll(path)


def test_labels_have_numbers_in_their_order(scripts):
    number_labels = scripts["tables"].number_labels
    assert number_labels([("a", "1"), ("b", "0")], [("c", "1")]) == {"0": 0, "1": 1}
    with pytest.raises(ClickException, match="no training row has the label 'bad'; they have: fair, good"):
        number_labels([("a", "good"), ("b", "fair")], [("c", "bad")])
    with pytest.raises(ClickException, match="test row 2 has an empty label, as have 1 in all"):
        number_labels([("a", "good")], [("b", "good"), ("c", " ")])


def test_share_of_the_most_frequent_label_is_that_of_the_rows(scripts):
    assert scripts["tables"].most_frequent([("a", "1"), ("b", "0"), ("c", "1"), ("d", "1")]) == 0.75


CONLL = "-DOCSTART- -X- -X- O\n\nU.N. NNP B-NP B-ORG\nofficial NN I-NP O\n\n\nBonn NNP B-NP B-LOC\n. . O O"


def test_conll_reads_words_and_a_column_of_tags(scripts, tmp_path):
    path = write(tmp_path / "eng.testa", CONLL)
    read_conll = scripts["tokens"].read_conll
    assert read_conll(path) == [[("U.N.", "B-ORG"), ("official", "O")], [("Bonn", "B-LOC"), (".", "O")]]
    assert read_conll(path, tag_column=1)[1] == [("Bonn", "NNP"), (".", ".")]


@pytest.mark.parametrize(
    ("text", "message"), [("Bonn\n", "line 1: no tag"), ("A O\nB O\n", "line 1"), ("\n", "no sent")]
)
def test_conll_says_what_is_wrong(scripts, tmp_path, text, message):
    with pytest.raises(ClickException, match=message):
        scripts["tokens"].read_conll(write(tmp_path / "a.txt", text), tag_column=2 if "O" in text else -1)


def squad_file(path, *rows, context="Mara Quill lived in Bonn."):
    questions = [
        {
            "id": f"q{number}",
            "question": "Where?",
            "answers": [{"text": text, "answer_start": start} for text, start in row],
        }
        for number, row in enumerate(rows)
    ]
    return write(
        path, json.dumps({"version": "v2.0", "data": [{"paragraphs": [{"context": context, "qas": questions}]}]})
    )


def test_squad_reads_answers_and_none(scripts, tmp_path):
    path = squad_file(tmp_path / "dev.json", [("Bonn", 20), ("in Bonn", 17)], [])
    first, second = scripts["squad"].read_squad(path)
    assert (first.id, first.text, first.answers) == ("q0", "Where?", [("Bonn", 20), ("in Bonn", 17)])
    assert second.answers == []


def test_squad_refuses_an_answer_that_is_not_where_it_says(scripts, tmp_path):
    with pytest.raises(ClickException, match="q0: no 'Bonn' at character 19 of its text"):
        scripts["squad"].read_squad(squad_file(tmp_path / "dev.json", [("Bonn", 19)]))


def test_data_are_the_same_bytes_everywhere(data):
    files = sorted(path for path in data.rglob("*.*"))
    assert [str(path.relative_to(data)) for path in files] == sorted(
        f"{name}/{split}.{suffix}" for name, suffix in SUFFIXES.items() for split in ("train", "test")
    )
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    assert digest == "a6d38718eb77d1d6943163c4789c2f51e03f07a18a181105de037362b1a3bf45"


def test_data_test_rows_share_no_row_and_no_name_or_thing_with_training_rows(scripts, data):
    read_table, read_conll = scripts["tables"].read_table, scripts["tokens"].read_conll
    for name, columns in (("sentences", ["sentence"]), ("pairs", ["sentence1", "sentence2"])):
        train, test = (read_table(data / name / f"{split}.tsv", columns=columns) for split in ("train", "test"))
        assert len({*train}) == len(train) == 40
        assert len({*test}) == len(test) == 20
        assert not {*train} & {*test}
    things = []
    for split in ("train", "test"):
        sentences = read_conll(data / "tokens" / f"{split}.txt")
        words = [" ".join(word if tag != "O" else "/" for word, tag in sentence) for sentence in sentences]
        things.append({thing.strip() for row in words for thing in row.split("/")} - {""})
    assert len(things[0]) > 40
    assert not things[0] & things[1]


def test_first_piece_of_a_word_has_its_tag_and_no_other(scripts, data, encoder, run, tmp_path, monkeypatch):
    tasks = []
    monkeypatch.setattr(scripts["tokens"], "run", lambda task, **_: tasks.append(task))
    run("tokens", tmp_path)
    (task,) = tasks
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    sentence = scripts["tokens"].read_conll(data / "tokens" / "test.txt")[3]
    labels = iter(task.test[3]["labels"])
    assert next(labels) == -100
    for word, tag in sentence:
        pieces = tokenizer(word, add_special_tokens=False)["input_ids"]
        assert [next(labels) for _ in pieces] == [task.labels.index(tag)] + [-100] * (len(pieces) - 1)
    assert [*labels] == [-100]


@pytest.fixture
def asked(scripts, encoder):
    """A question on a text that is several windows long, and its windows."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    context = " ".join(f"word{number}" for number in range(40))
    answer = ("word17 word18", context.index("word17"))
    question = scripts["squad"].Question(id="q", text="which one?", context=context, answers=[answer])
    windows = [*scripts["squad"].iter_windows([question], tokenizer, length=64)]
    assert len(windows) > 3
    return question, windows


def test_windows_have_each_piece_of_the_text_as_a_start_once(asked):
    _, windows = asked
    starts = [window.spans[place] for window in windows for place in window.starts]
    assert None not in starts
    assert starts == sorted({span for window in windows for span in window.spans if span})


def test_windows_teach_the_answer_where_they_show_all_of_it(scripts, asked):
    question, windows = asked
    shown = 0
    for window in windows:
        row = scripts["squad"].encode(window, question)
        first, last = row["start_positions"], row["end_positions"]
        ((text, start),) = question.answers
        seen = [span for span in window.spans if span]
        if seen[0][0] <= start and seen[-1][1] >= start + len(text):
            assert question.context[window.spans[first][0] : window.spans[last][1]] == text
            shown += 1
        else:
            assert (first, last) == (0, 0)
    assert shown


def test_answer_with_white_space_at_its_ends_is_taught_without(scripts, asked):
    question, windows = asked
    spaced = dataclasses.replace(question, answers=[(" word17 word18 ", question.answers[0][1] - 1)])
    encode = scripts["squad"].encode
    assert [encode(window, spaced) for window in windows] == [encode(window, question) for window in windows]


@pytest.mark.parametrize("text", ["{", "[]", '{"data": [{}]}', '{"data": []}'])
def test_file_that_is_not_squad_is_refused(scripts, tmp_path, text):
    with pytest.raises(ClickException, match=r"is no file as of SQuAD|has no questions"):
        scripts["squad"].read_squad(write(tmp_path / "a.json", text))


@pytest.mark.parametrize("may_lack", [False, True])
def test_best_answer_is_the_most_probable_of_all_spans(scripts, asked, may_lack):
    question, windows = asked
    generator = np.random.default_rng(0)
    for _ in range(5):
        scores = [tuple(generator.normal(size=(2, 64)).astype(np.float32) * 2) for _ in windows]
        shares = {"": sum(math.exp(min(first[0] + last[0] for first, last in scores)) for _ in range(may_lack))}
        for window, (first_T, last_T) in zip(windows, scores, strict=True):
            for first in window.starts:
                for last in range(first, min(first + 30, len(window.spans) - 1)):
                    text = question.context[window.spans[first][0] : window.spans[last][1]]
                    place = (window.question, window.spans[first][0], text) if text else ""
                    shares[place] = shares.get(place, 0.0) + math.exp(first_T[first] + last_T[last])
        place, share = max(shares.items(), key=lambda pair: pair[1])
        found, probability = scripts["questions"].best_answer(windows, scores, question, may_lack=may_lack)
        assert found == (place[2] if place else "")
        assert probability == pytest.approx(share / sum(shares.values()), rel=1e-5)


def test_best_answer_may_be_none(scripts, asked):
    question, windows = asked
    scores = [(np.zeros(64, np.float32), np.zeros(64, np.float32)) for _ in windows]
    for first_T, _ in scores:
        first_T[0] = 20
    best_answer = scripts["questions"].best_answer
    assert best_answer(windows, scores, question, may_lack=True)[0] == ""
    assert best_answer(windows, scores, question, may_lack=False)[0] != ""


def test_scores_are_the_usual_ones(scripts):
    logits = np.eye(2)[[1, 1, 0, 0, 1]]
    output = PredictionOutput(predictions=logits, label_ids=np.array([1, 0, 0, 1, 1]), metrics=None)
    assert scripts["sentences"].score(output) == {"accuracy": 0.6, "matthews": pytest.approx(1 / 6)}
    assert scripts["pairs"].score(output) == {"accuracy": 0.6, "F1": pytest.approx(2 / 3)}


def test_defaults_are_the_published_ones(scripts):
    for name in SUFFIXES:
        defaults = {option.name: option.default for option in scripts[name].main.params}
        assert 2e-5 <= defaults["learning_rate"] <= 5e-5
        assert 2 <= defaults["epochs"] <= 4
        assert defaults["batch_size"] in (16, 32)


def test_learning_rate_rises_over_a_tenth_of_the_steps_and_falls_to_nothing(scripts, run, tmp_path, monkeypatch):
    seen = []

    class Watching(transformers.Trainer):
        def training_step(self, *args, **kwargs):
            seen.append(self.optimizer.param_groups[0]["lr"])
            return super().training_step(*args, **kwargs)

        def train(self):
            super().train()
            groups = self.optimizer.param_groups
            assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
            assert all(parameter.ndim == 1 for parameter in groups[1]["params"])

    monkeypatch.setattr("transformers.Trainer", Watching)
    run("sentences", tmp_path, "--epochs", "4", "--batch-size", "8", "--learning-rate", "1e-4")
    assert seen == pytest.approx([*(1e-4 * np.arange(2) / 2), *(1e-4 * np.arange(18, 0, -1) / 18)])


@pytest.mark.parametrize(("name", "texts"), [("sentences", ["rye " * 600]), ("pairs", ["rye " * 300] * 2)])
def test_long_texts_are_cut_at_the_end_as_in_training(run, tmp_path, name, texts):
    assert re.search(r"\d\.\d%$", run(name, tmp_path, "--text", *texts))


def test_parts_of_speech_are_measured_by_word(run, tmp_path):
    path = write(tmp_path / "tags.txt", "The DT\nrye NN\n. .\n\nSee VB\nit PRP\n" * 8)
    printed = run("tokens", tmp_path / "out", "--train", path, "--test", path)
    assert re.search(r"tags\.txt: accuracy \d+\.\d%\n", printed)


ASKED = {
    "sentences": ["--text", "The baker asked for the sieve and for rye."],
    "pairs": ["--text", "The baker asked for rye.", "The fiddler asked for brass."],
    "tokens": ["--text", "The rye is dear , said Hanne Larch ."],
    "questions": ["--ask", "Who has rye?", "Hanne Larch of Elmgate has the rye."],
}


def check(name, printed, out):
    """What each of the scripts prints and leaves."""
    lines = printed.splitlines()
    assert re.fullmatch(r"\d+ rows to train on, \d+ to measure on; [2-9] steps an epoch", lines[0])
    assert re.fullmatch(r"epoch 1  loss \d+\.\d{4}", lines[1])
    assert re.match(r".*test\.\w+: .+ -?\d+\.\d%", lines[2])
    assert (" by the most frequent label alone), " in lines[2]) == (name in ("sentences", "pairs"))
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == [CLASSES[name]]
    if name != "questions":
        assert "LABEL_0" not in config["id2label"].values()
    assert {"model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= {path.name for path in out.iterdir()}
    if name != "tokens":  # a model that knows nothing may find no name
        assert re.search(r"\d\.\d%$", lines[-1])


@pytest.mark.parametrize("name", ASKED)
def test_script_trains_measures_keeps_and_asks_as_bert_predict_does(run, tmp_path, name):
    printed = run(name, tmp_path, *ASKED[name])
    check(name, printed, tmp_path)
    texts = ASKED[name][1:]
    result = CliRunner().invoke(predict, [str(tmp_path), *texts, "--json"])
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    if name == "tokens":
        model = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path)
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
        inputs = tokenizer(texts[0].split(), is_split_into_words=True, return_tensors="pt")
        shares = model(**inputs).logits.detach().softmax(-1)[0]
        assert [word["word"] for word in answer["words"]] == texts[0].split()
        for number, word in enumerate(answer["words"]):
            first = shares[inputs.word_ids().index(number)]
            assert word["tag"] == model.config.id2label[int(first.argmax())]
            assert word["probability"] == pytest.approx(float(first.max()), rel=1e-4)
    else:
        found = answer.get("answer", answer)
        assert printed.splitlines()[-1].split("  ")[1:] == [
            found.get("label", found.get("text")),
            f"{found['probability']:.1%}",
        ]


def test_questions_without_an_answer_are_learned_and_measured(scripts, run, encoder, tmp_path):
    train = squad_file(tmp_path / "train.json", *[[]] * 32)
    test = squad_file(tmp_path / "test.json", [], [("Bonn", 20)])
    more = ["--train", train, "--test", test, "--learning-rate", "0.05", "--epochs", "10", "--batch-size", "8"]
    printed = run("questions", tmp_path / "out", *more)
    assert "exact match 50.0%, F1 50.0%" in printed
    assert printed.splitlines()[-1].startswith("  no answer  ")


def test_compare_trains_from_both_beginnings_with_each_seed(run, tmp_path):
    printed = run("sentences", tmp_path, "--compare", "2", "--learning-rate", "0.01")
    scores = json.loads((tmp_path / "comparison.json").read_text())
    assert {name: len(rows) for name, rows in scores.items()} == {"pre-trained": 2, "random": 2}
    losses = [line for line in printed.splitlines() if line.startswith("epoch")]
    assert len({*losses}) == 4
    table = printed.splitlines()[-3:]
    assert "seeds: 2" in table[0]
    for line, (name, rows) in zip(table[1:], scores.items(), strict=True):
        mean = sum(row["accuracy"] for row in rows) / 2
        assert line.split()[:2] == [name, f"{mean:.1%}"]
    assert not (tmp_path / "config.json").exists()


def test_from_scratch_keeps_nothing_of_the_encoder(scripts, run, tmp_path):
    run("sentences", tmp_path / "kept", "--learning-rate", "0")
    run("sentences", tmp_path / "new", "--learning-rate", "0", "--from-scratch")
    kept, new = (
        transformers.AutoModel.from_pretrained(tmp_path / name).embeddings.word_embeddings.weight
        for name in ("kept", "new")
    )
    assert kept.shape == new.shape
    assert (kept[1:] != new[1:]).float().mean() > 0.99  # row 0 is that of [PAD], and 0


def test_same_seed_gives_the_same_weights(run, tmp_path):
    for name in ("one", "again"):
        run("pairs", tmp_path / name, "--seed", 1)
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (
        tmp_path / "again" / "model.safetensors"
    ).read_bytes()


def test_words_that_do_not_fit_are_told_of(run, tmp_path):
    assert re.search(
        r"[1-9]\d* words of .*test.txt lie beyond --max-seq-length", run("tokens", tmp_path, "--max-seq-length", 16)
    )


def test_longer_texts_than_the_model_sees_are_refused(run, tmp_path):
    with pytest.raises(UsageError, match="--max-seq-length is 513; this model takes 16 to 512"):
        run("sentences", tmp_path / "out", "--max-seq-length", 513)


SLOW_TO_IMPORT = ["torch", "transformers", "accelerate", "datasets", "sklearn", "seqeval", "torchmetrics"]


def test_help_and_wrong_paths_cost_no_import(tmp_path):
    code = "import runpy, sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(','))); sys.argv.pop(0); "
    code += "sys.path.insert(0, sys.argv[0].rpartition('/')[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
    for name in SUFFIXES:
        command = [sys.executable, "-c", code, ",".join(SLOW_TO_IMPORT), FINETUNE / f"{name}.py"]
        assert "Usage: " in subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    wrong = subprocess.run([*command, "--train", tmp_path / "no"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.splitlines()[-1][-19:]) == (2, "no' does not exist.")


@pytest.mark.parametrize("name", SUFFIXES)
def test_files_and_folders_are_looked_at_before_the_imports(run, tmp_path, monkeypatch, name):
    for module in SLOW_TO_IMPORT:
        monkeypatch.setitem(sys.modules, module, None)
    empty = write(tmp_path / "a.tsv", "")
    with pytest.raises(ClickException, match=r"has no (rows|sentences)|is no file as of SQuAD"):
        run(name, tmp_path / "out", "--test", empty)
    with pytest.raises(UsageError, match="is not empty; give --out another folder, or --overwrite"):
        run(name, tmp_path)
    with pytest.raises(ClickException, match="import of torch halted.*README beside this script says what to install"):
        run(name, tmp_path / "out")


def test_two_columns_of_text_are_two(run, tmp_path):
    with pytest.raises(UsageError, match="--text-columns takes the names of two columns"):
        run("pairs", tmp_path, "--text-columns", "text")


def test_model_in_out_is_kept_unless_it_may_be_replaced(run, tmp_path):
    run("sentences", tmp_path)
    kept = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="is not empty"):
        run("sentences", tmp_path, "--seed", 1)
    assert (tmp_path / "model.safetensors").read_bytes() == kept
    run("sentences", tmp_path, "--seed", 1, "--overwrite")
    assert (tmp_path / "model.safetensors").read_bytes() != kept


def test_what_happens_is_told_at_once_and_bars_are_for_terminals(scripts, run, tmp_path, monkeypatch, capsys):
    told = []
    monkeypatch.setattr(scripts["recipe"].click, "echo", lambda text, **options: told.append((text, options)))
    run("sentences", tmp_path / "file")
    assert told[0] == ("loading torch and transformers", {"err": True})
    monkeypatch.undo()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    capsys.readouterr()
    bars = []
    make = scripts["recipe"].progress
    monkeypatch.setattr(
        scripts["recipe"], "progress", lambda *rows, **options: bars.append(make(*rows, **options)) or bars[-1]
    )
    run("sentences", tmp_path / "terminal")
    assert [(bar.desc, bar.n, bar.total) for bar in bars] == [("training", 2, 2), ("measuring", 1, 1)]


def test_folder_without_a_model_is_refused(run, tmp_path):
    with pytest.raises(UsageError, match="has no config.json"):
        run("sentences", tmp_path / "out", "--model", tmp_path)
