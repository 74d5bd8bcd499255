"""Answers, held against what transformers computes with the same folders."""

import itertools
import json
import math
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertdata.errors import TokenizerError, TrainingError
from tests.trainer.asked_models import SENTENCES, ask_transformers, save_model
from trainer.answers import Answer, Row
from trainer.opening import open_model
from trainer.predict import AnswerLimits, Predictor
from trainer.questions import Question

PRE_TRAINING, MASKED = "BertForPreTraining", "BertForMaskedLM"
SEQUENCE, TOKENS, SPANS = "BertForSequenceClassification", "BertForTokenClassification", "BertForQuestionAnswering"
LABELS = {0: "bad", 1: "so so", 2: "good"}

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Callable[..., Path]:
    """Returns a function that saves a model with random weights in a folder of its own."""

    def save_one(architecture: str, **more: Any) -> Path:
        folder = tmp_path_factory.mktemp("models") / "model"
        return save_model(folder, architecture=architecture, tokenizer_file=tokenizer_file, **more)

    return save_one


def predictor_of(folder: Path, **limits: Any) -> Predictor:
    return open_model(folder, limits=AnswerLimits(**limits))


def ask(folder: Path, *texts: str, **limits: Any) -> dict[str, Any]:
    (answer,) = predictor_of(folder, **limits).iter_answers([Question(**named(*texts))])
    return answer.values


def named(text: str, text_b: str | None = None) -> dict[str, Any]:
    return {"text": text, "text_b": text_b}


def close(expected: Any) -> Any:
    return pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("architecture", [PRE_TRAINING, MASKED])
@pytest.mark.parametrize(
    "texts", [("The cat [MASK] on the mat.",), ("[MASK][MASK] river", "The old [MASK]."), ("the xyz[MASK]abc, Dog",)]
)
def test_words_for_masks(save: Callable[..., Path], architecture: str, texts: tuple[str, ...]) -> None:
    folder = save(architecture)
    found = ask(folder, *texts, top_k=7)
    inputs, outputs = ask_transformers(folder, architecture=architecture, **named(*texts))
    logits = outputs.logits if architecture == MASKED else outputs.prediction_logits
    expected = logits[0][inputs.input_ids[0] == 4].softmax(-1).topk(7)
    assert len(found["masks"]) == len(expected.indices) == " ".join(texts).count("[MASK]")
    for words, ids, probabilities in zip(found["masks"], *expected[::-1], strict=True):
        assert [word["id"] for word in words] == ids.tolist()
        assert [word["probability"] for word in words] == close(probabilities.tolist())
    if architecture == PRE_TRAINING and len(texts) == 2:
        shares = outputs.seq_relationship_logits.softmax(-1)[0].tolist()
        assert found["next_sentence"] == close(dict(zip(("IsNext", "NotNext"), shares, strict=True)))
    else:
        assert "next_sentence" not in found


def test_words_are_those_of_the_vocabulary(save: Callable[..., Path]) -> None:
    folder = save(PRE_TRAINING)
    found = ask(folder, "a [MASK]", top_k=10_000)["masks"][0]
    vocab = json.loads((folder / "tokenizer.json").read_bytes())["model"]["vocab"]
    assert {word["word"]: word["id"] for word in found} == vocab
    assert any(word["word"].startswith("##") for word in found)
    assert sum(word["probability"] for word in found) == close(1)


def test_special_tokens_but_the_mask_stay_text(save: Callable[..., Path]) -> None:
    """As a build reads them: "[SEP]" in a text is five pieces, none of which is the token."""
    text = "a [SEP] [MASK]."
    (pieces,) = predictor_of(save(PRE_TRAINING))._splitter.split([text])
    assert [text[start:stop] for start, stop in pieces.spans] == ["a", "[", "S", "E", "P", "]", "[MASK]", "."]
    assert (pieces.ids[-2], pieces.ids.count(3)) == (4, 0)


@pytest.mark.parametrize("texts", [SENTENCES[:1], SENTENCES[:2]])
def test_next_sentence_of_a_model_without_words(save: Callable[..., Path], texts: tuple[str, ...]) -> None:
    folder = save("BertForNextSentencePrediction")
    if len(texts) == 1:
        with pytest.raises(TrainingError, match="no masked-word head; give two texts"):
            ask(folder, *texts)
        return
    found = ask(folder, *texts)
    _, outputs = ask_transformers(folder, architecture="BertForNextSentencePrediction", text=texts[0], text_b=texts[1])
    assert list(found["next_sentence"].values()) == close(outputs.logits.softmax(-1)[0].tolist())
    assert "masks" not in found


@pytest.mark.parametrize("texts", [SENTENCES[:1], SENTENCES[:2]])
def test_labels(save: Callable[..., Path], texts: tuple[str, ...]) -> None:
    folder = save(SEQUENCE, id2label=LABELS)
    found = ask(folder, *texts)
    _, outputs = ask_transformers(folder, architecture=SEQUENCE, **named(*texts))
    shares = dict(zip(LABELS.values(), outputs.logits.softmax(-1)[0].tolist(), strict=True))
    assert found["probabilities"] == close(shares)
    assert found["label"] == max(shares, key=shares.__getitem__)
    assert found["probability"] == close(max(shares.values()))


def test_a_regression_gives_its_number(save: Callable[..., Path]) -> None:
    folder = save(SEQUENCE, num_labels=1)
    _, outputs = ask_transformers(folder, architecture=SEQUENCE, text=SENTENCES[0])
    assert ask(folder, SENTENCES[0]) == {"text": SENTENCES[0], "value": close(outputs.logits.item())}


@pytest.mark.parametrize("text", [*SENTENCES, "The cat, xyzzy; (dog)"])
def test_tags_are_those_of_first_pieces(save: Callable[..., Path], text: str) -> None:
    folder = save(TOKENS, id2label=LABELS)
    found = ask(folder, text)["words"]
    inputs, outputs = ask_transformers(folder, architecture=TOKENS, text=text)
    shares = outputs.logits[0].softmax(-1)
    firsts = [inputs.char_to_token(word["start"]) for word in found]
    assert [word["probability"] for word in found] == close([float(shares[row].max()) for row in firsts])
    assert [word["tag"] for word in found] == [LABELS[int(shares[row].argmax())] for row in firsts]
    assert all(text[word["start"] : word["end"]] == word["word"] for word in found)
    assert "".join(word["word"] for word in found) == "".join(text.split())


def plain_answer(scores: Sequence[Any], *, longest: int) -> tuple[int, int, float]:
    """Returns the most probable span of starts and ends, and its probability, by trying all."""
    starts, ends = scores
    spans = {
        (first, last): starts[first] + ends[last]
        for first in range(len(starts))
        for last in range(first, min(first + longest, len(ends)))
    }
    best = max(spans, key=spans.__getitem__)
    return *best, math.exp(spans[best]) / sum(map(math.exp, spans.values()))


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_answer_is_the_most_probable_span(save: Callable[..., Path], longest: int) -> None:
    for seed in range(2):
        folder = save(SPANS, seed=seed)
        found = ask(folder, SENTENCES[3], SENTENCES[5], max_answer_tokens=longest)["answer"]
        inputs, outputs = ask_transformers(folder, architecture=SPANS, text=SENTENCES[3], text_b=SENTENCES[5])
        rows = [row for row, part in enumerate(inputs.sequence_ids(0)) if part == 1]
        scores = [one[0][rows].tolist() for one in (outputs.start_logits, outputs.end_logits)]
        first, last, probability = plain_answer(scores, longest=longest)
        start, stop = inputs.token_to_chars(rows[first]).start, inputs.token_to_chars(rows[last]).end
        assert found == {
            "text": SENTENCES[5][start:stop],
            "start": start,
            "end": stop,
            "probability": close(probability),
        }


def test_answer_in_a_context_longer_than_the_model_reads(save: Callable[..., Path]) -> None:
    """Against windows that transformers' tokenizer makes, each token's spans taken from where it is not at an edge."""
    folder = save(SPANS, seed=3)
    generator = random.Random(1)
    context = " ".join(generator.choice(SENTENCES).strip(".!?") for _ in range(30))
    found = ask(folder, SENTENCES[3], context, max_seq_length=40, max_answer_tokens=4)["answer"]

    from transformers import AutoTokenizer, BertForQuestionAnswering

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertForQuestionAnswering.from_pretrained(folder).eval()
    rows = tokenizer(
        SENTENCES[3],
        context,
        truncation="only_second",
        max_length=40,
        stride=10,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    spans: dict[tuple[int, int], float] = {}
    for number, ids in enumerate(rows["input_ids"]):
        with torch.no_grad():
            out = model(torch.tensor([ids]), token_type_ids=torch.tensor([rows["token_type_ids"][number]]))
        inside = [row for row, part in enumerate(rows.sequence_ids(number)) if part == 1]
        for row in inside[5 if number else 0 : -5 if number + 1 < len(rows["input_ids"]) else None]:
            for last in range(row, min(row + 4, inside[-1] + 1)):
                place = (rows["offset_mapping"][number][row][0], rows["offset_mapping"][number][last][1])
                assert place not in spans
                spans[place] = float(out.start_logits[0, row] + out.end_logits[0, last])
    assert len(rows["input_ids"]) > 5
    best = max(spans, key=spans.__getitem__)
    assert (found["start"], found["end"]) == best
    assert found["text"] == context[slice(*best)]
    assert found["probability"] == close(math.exp(spans[best]) / sum(map(math.exp, spans.values())))


texts = st.lists(st.sampled_from([*SENTENCES, "the [MASK]", "[MASK]"]), min_size=1, max_size=4).map(" ".join)


@settings(max_examples=10)
@given(asked=st.lists(st.tuples(texts, texts | st.none()), min_size=1, max_size=40))
def test_answers_come_in_order_and_do_not_depend_on_their_batch(
    predictor: Predictor, asked: list[tuple[str, str | None]]
) -> None:
    questions = [Question(text=f"[MASK] {text}", text_b=text_b) for text, text_b in asked]
    together = list(predictor.iter_answers(questions))
    assert len(together) == len(questions)
    for question, answer in zip(questions, together, strict=True):
        (alone,) = predictor.iter_answers([question])
        assert answer.values["text"] == question.text
        assert answer.values.get("text_b") == question.text_b
        for words, expected in zip(answer.values["masks"], alone.values["masks"], strict=True):
            assert [word["probability"] for word in words] == close([word["probability"] for word in expected])
        assert answer.values.get("next_sentence") == (
            close(alone.values["next_sentence"]) if question.text_b is not None else None
        )


@pytest.fixture(scope="module")
def predictor(save: Callable[..., Path]) -> Predictor:
    return predictor_of(save(PRE_TRAINING, positions=512))


def test_questions_before_a_bad_one_are_answered(predictor: Predictor) -> None:
    questions = [Question(text=text, place=f"line {number}: ") for number, text in enumerate(["a [MASK]"] * 3 + ["b"])]
    answers: list[Answer] = []
    with pytest.raises(TrainingError, match=r"^line 3: there is no \[MASK\]"):
        answers.extend(predictor.iter_answers([*questions, *questions]))
    assert len(answers) == 3


def test_questions_may_be_an_endless_stream(predictor: Predictor) -> None:
    endless = (Question(text=f"[MASK] {number}") for number in itertools.count())
    answers = itertools.islice(predictor.iter_answers(endless), 600)
    assert [answer.values["text"] for answer in answers] == [f"[MASK] {number}" for number in range(600)]


@pytest.mark.parametrize("name", ["top_k", "max_seq_length", "max_answer_tokens"])
def test_limits_below_one_are_refused(name: str) -> None:
    with pytest.raises(TrainingError, match=f"^{name} is 0; it must be at least 1$"):
        AnswerLimits(**{name: 0})


@pytest.mark.parametrize("when", ["opened", "asked"])
def test_a_gpu_without_room_is_an_error_that_says_what_to_do(
    save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    folder = save(PRE_TRAINING)
    monkeypatch.setattr(torch.nn.Module, "to" if when == "opened" else "__call__", fail)
    with pytest.raises(TrainingError, match="^the GPU has no room for the model and its work; wait .* CUDA_VISIBLE"):
        ask(folder, "a [MASK]")


@pytest.mark.parametrize(
    ("architecture", "asked", "message"),
    [
        (PRE_TRAINING, ["The cat."], r"no \[MASK\] in the text; write \[MASK\] .* or give a second text"),
        (MASKED, ["The cat."], r"no \[MASK\] in the text; write \[MASK\] for each word"),
        (MASKED, ["The cat.", "The dog."], "has no .* next-sentence head; write"),
        (PRE_TRAINING, ["[MASK]" + "." * 70], "the text has 73 tokens .* reads at most 64; shorten"),
        (SEQUENCE, ["." * 40, "." * 40], "the two texts have 83 tokens .* reads at most 64; shorten"),
        (TOKENS, ["The cat.", "The dog."], "leave the second one out"),
        (SPANS, ["The cat."], "give the question, and then the text"),
        (SPANS, ["?" * 40, "." * 40], "the question has 40 tokens"),
        (SPANS, ["The cat?", "\u0007"], "the text to look for the answer in is empty"),
    ],
)
def test_what_cannot_be_answered(save: Callable[..., Path], architecture: str, asked: list[str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        ask(save(architecture), *asked)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["BertForMultipleChoice"]},
            "holds a BertForMultipleChoice; those that can be asked are Bert",
        ),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"id2label": {"0": "a", "1": "b"}}, r"classifier.weight of shape \[3, 24\] instead of \[2, 24\]"),
        ({"id2label": {"0": "a", "1": "a", "2": "b"}}, "id2label is .* none twice"),
        ({"id2label": {"0": "a", "2": "b"}}, "must name each label from 0 on"),
        ({"problem_type": "multi_label_classification"}, "problem_type is 'multi_label_classification' with 3 labels"),
    ],
)
def test_configurations_that_cannot_be_asked(save: Callable[..., Path], changes: dict[str, Any], message: str) -> None:
    folder = save(SEQUENCE, id2label=LABELS)
    change_config(folder, **changes)
    with pytest.raises(TrainingError, match=message):
        ask(folder, "cat")


def test_broken_folders(save: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="MODEL .*nothing is no folder; give the folder of a run"):
        ask(tmp_path / "nothing", "cat")
    with pytest.raises(TrainingError, match="holds no checkpoints and no config.json"):
        ask(tmp_path, "cat")
    folder = save(PRE_TRAINING)
    (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(TrainingError, match="no tokenizer.json and no vocab.txt.* or give --tokenizer"):
        ask(folder, "a [MASK]")
    opened = open_model(folder, tokenizer=tmp_path)
    assert len(list(opened.iter_answers([Question(text="a [MASK]")]))) == 1
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match="cannot be read as a tokenizer"):
        ask(folder, "a [MASK]")
    shutil.copyfile(tmp_path / "tokenizer.json", folder / "tokenizer.json")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(TrainingError, match="cannot be read as weights"):
        ask(folder, "a [MASK]")
    (folder / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match="MODEL .* holds neither model.safetensors"):
        ask(folder, "a [MASK]")
    (folder / "config.json").write_text("{")
    with pytest.raises(TrainingError, match="config.json cannot be read"):
        ask(folder, "a [MASK]")


def test_a_tokenizer_of_more_words_than_the_model_is_refused(save: Callable[..., Path], tmp_path: Path) -> None:
    folder = save(PRE_TRAINING)
    data = json.loads((folder / "tokenizer.json").read_bytes())
    data["model"]["vocab"]["surplus"] = len(data["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(TrainingError, match="tokenizer.json has 1[0-9]+ ids, and the model .* has 1[0-9]+; give"):
        ask(folder, "a [MASK]")


def test_a_model_without_heads_has_nothing_to_say(save: Callable[..., Path]) -> None:
    with pytest.raises(TrainingError, match="neither a masked-word head nor a next-sentence head"):
        ask(save("BertModel"), "a [MASK]")


def test_length_is_what_tokenizer_or_user_says(save: Callable[..., Path]) -> None:
    folder = save(PRE_TRAINING)
    text = "[MASK]" + "." * 20
    ask(folder, text)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 16}))
    with pytest.raises(TrainingError, match="23 tokens .* at most 16"):
        ask(folder, text)
    ask(folder, text, max_seq_length=23)
    with pytest.raises(TrainingError, match="--max-seq-length is 65, and the model has 64 positions"):
        ask(folder, text, max_seq_length=65)


def test_an_answer_as_text_is_a_table() -> None:
    rows = [Row("[MASK]", "cat", "90.0%"), Row("", "##ing", "5.1%"), Row("next", "\u6771\u4eac", "")]
    assert str(Answer(values={}, rows=rows)) == "[MASK]  cat    90.0%\n        ##ing   5.1%\nnext    \u6771\u4eac"
    assert str(Answer(values={}, rows=[])) == ""
