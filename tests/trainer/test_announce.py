from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertdata.data_set import DataSet
from tests.trainer.test_train import options_for, train_on
from trainer.announce import announce, describe_run, find_warnings
from trainer.data import TrainingData
from trainer.defaults import Choice, Request, choose
from trainer.phases import find_run


def choice_of(data: TrainingData, *, size: str | None = "tiny", before: Any = None, **given: Any) -> Choice:
    run = find_run(Path(given["init"])) if given.get("init") else None
    request = Request(out="run", size=size, settings=given)
    return choose(request, data=data, device_type="cpu", world_size=1, before=before, run=run)


def lines_of(data: TrainingData, choice: Choice) -> dict[str, str]:
    lines = list(describe_run(data, choice, device="cpu", num_processes=2))
    return {line[:12].strip(): line[12:] for line in lines[1:]} | {"data": lines[0]}


def test_every_value_is_said_with_its_origin(data_set: DataSet) -> None:
    data = TrainingData(data_sets=(data_set,))
    lines = lines_of(data, choice_of(data, batch_size=16, weight_decay=0.25, max_steps=20))
    assert lines["data"] == f"160 samples of {data_set.folder}, 41 held out; 2 x cpu"
    assert lines["model"] == "BERT of 2 layers, hidden size 128, 2 heads, vocabulary 120, dropout 0.1 (given)"
    assert lines["batch"] == "16 samples (given), micro-batches of 16 (default)"
    assert lines["length"] == "20 steps, 2 epochs (given)"
    assert lines["optimizer"] == (
        "AdamW, beta1 0.9, beta2 0.999, epsilon 1e-06, bias correction (default), weight decay 0.25 (given), "
        "gradients clipped at norm 1 (default)"
    )
    assert lines["rate"] == "up to 0.00075, in 2 steps, then falling linearly, from there, to 0, at step 20 (default)"
    assert lines[""] == "here: from 0.000375 at step 0 to 4.17e-05 at step 19"
    assert lines["computing"] == "fp32, not compiled, MLM and NSP (default)"
    assert lines["the rest"].startswith("seed 0, 0 loader workers, a line every 50 steps, evaluation after every epoch")
    assert find_warnings(data, choice_of(data)) == []


def test_values_of_a_preset_are_said_with_its_name_and_source(data_set: DataSet) -> None:
    data = TrainingData(data_sets=(data_set,))
    choice = choice_of(data, preset="lamb-large", adam_beta1=0.5)
    text = "\n".join(describe_run(data, choice, device="cpu", num_processes=1))
    assert "preset      lamb-large, phase 1 of 2: BERT-large with LAMB, NVIDIA's DeepLearningExamples\n" in text
    assert "source: NVIDIA/DeepLearningExamples" in text
    assert "but: phase 2 keeps the optimizer's step count" in text
    assert "LAMB (lamb-large), beta1 0.5 (given), beta2 0.999, epsilon 1e-06, bias correction, " in text
    assert "up to 0.006, in 2,000 steps, then falling as the power 0.5 of the steps left, as if from the first " in text


def test_continued_run_says_what_its_checkpoint_says(data_set: DataSet) -> None:
    data = TrainingData(data_sets=(data_set,))
    before = choice_of(data, preset="academic-24h").options.to_json()
    lines = lines_of(data, choice_of(data, size=None, before=before, max_grad_norm=2.0))
    assert lines["model"].endswith("(checkpoint)")
    assert lines["optimizer"].endswith("weight decay 0.01 (checkpoint), gradients clipped at norm 2 (given)")


def test_run_that_begins_from_another_says_so(data_set: DataSet, tmp_path: Path) -> None:
    train_on(data_set, options_for(tmp_path, max_steps=2, schedule_steps=9))
    data = TrainingData(data_sets=(data_set,))
    lines = lines_of(data, choice_of(data, size=None, init=str(tmp_path), batch_size=16))
    assert lines["begins from"] == f"{tmp_path} (given), with its optimizer's state (--init)"
    assert lines["rate"].endswith("to 0, at step 9, of which 2 are done (--init)")
    assert lines["length"] == "7 steps, 0.7 epochs (--init)"


def test_what_differs_from_a_recipe_is_a_warning(
    new_data_set: Callable[..., DataSet], data_set: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = TrainingData(data_sets=(data_set,))
    choice = choice_of(data, preset="mosaicbert-base", max_steps=700)
    announce(data, choice, device="cpu", num_processes=1)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 4
    assert all(warning.startswith("warning: mosaicbert-base: the ") for warning in warnings)
    assert "ends at step 700 of the recipe's 70,000" in warnings[3]
    assert "give --schedule-steps 700 and --warmup-steps 42, too" in warnings[3]

    published = TrainingData(data_sets=(new_data_set(max_seq_length=128),))
    assert find_warnings(published, choice_of(published, preset="bert-base")) == []
    assert find_warnings(published, choice_of(published, preset="bert-base", max_steps=900_000)) == []
    train_on(data_set, options_for(tmp_path, max_steps=2, schedule_steps=1_000_000))
    longer = TrainingData(data_sets=(new_data_set(max_seq_length=512),))
    choice = choice_of(longer, size=None, preset="bert-base", phase=2, init=str(tmp_path))
    assert find_warnings(longer, choice) == [
        "the phase before ended at step 2, the recipe's at 900,000; the schedule goes on where it ended",
        "the schedule is that of the phase before, which has --learning-rate 0.01, the recipe 0.0001; --warmup-steps 2, "
        "the recipe 10000; --decay-from peak, the recipe start",
    ]
    shorter = choice_of(longer, size=None, preset="bert-base", phase=2, init=str(tmp_path), max_steps=98)
    assert find_warnings(longer, shorter)[2:] == [
        "the run ends at step 100 of the 1,000,000 of the schedule, at a rate of 0.01; leave --max-steps out to go to "
        "its end"
    ]


@pytest.mark.parametrize(("given", "is_warned"), [({}, True), ({"pad_to_multiple": 64}, False)])
def test_graphs_of_all_shapes_are_a_warning(
    data_set: DataSet, caplog: pytest.LogCaptureFixture, given: dict[str, int], is_warned: bool
) -> None:
    data = TrainingData(data_sets=(data_set,))
    for mode in ("default", "reduce-overhead"):
        choice = choice_of(data, compile=True, compile_mode=mode, **given)
        announce(data, choice, device="cpu", num_processes=1)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert ["give --pad-to-multiple, too" in warning for warning in warnings] == [True] * is_warned
