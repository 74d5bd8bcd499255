from typing import Any

import pytest

from trainer.tables import TrainLines, describe_evaluation, format_count, format_seconds, table

ROW: dict[str, Any] = {
    "kind": "train",
    "step": 1250,
    "epoch": 12.1634,
    "loss": 9.7642,
    "mlm_loss": 9.0641,
    "mlm_accuracy": 0.0471,
    "nsp_loss": 0.7001,
    "nsp_accuracy": 0.484,
    "learning_rate": 4.58e-4,
    "grad_norm": 1.4371,
    "padding": 0.0213,
    "data_wait": 0.0002,
    "sequences_per_second": 312.4,
    "tokens_per_second": 37_912.0,
    "tflops_per_device": 1.234,
    "mfu": 0.412,
    "eta_seconds": 13 * 3600 + 3 * 60,
}


def test_lines_stand_in_columns() -> None:
    lines = TrainLines(next_sentence=True, has_mfu=True)
    assert lines.header == (
        "   step epoch   loss    MLM   acc    NSP   acc    rate  grad seq/s tok/s   pad  wait   MFU    ETA"
    )
    assert lines.line(ROW) == (
        "   1250 12.16  9.764  9.064  4.7%  0.700 48.4% 4.6e-04  1.44   312 37.9k  2.1%  0.0% 41.2% 13h03m"
    )


@pytest.mark.parametrize("has_mfu", [False, True])
@pytest.mark.parametrize("next_sentence", [False, True])
@pytest.mark.parametrize("max_width", [None, 80])
def test_lines_fit_whatever_the_values_are(has_mfu: bool, next_sentence: bool, max_width: int | None) -> None:
    lines = TrainLines(next_sentence=next_sentence, has_mfu=has_mfu, max_width=max_width)
    absent = {name for name in ROW if (name == "mfu" and not has_mfu) or (name.startswith("nsp") and not next_sentence)}
    extremes = [{}, {"step": 9_999_999, "epoch": 39.99, "grad_norm": 123.4, "eta_seconds": None, "mlm_accuracy": 1.0}]
    extremes += [{"learning_rate": 0.0, "tokens_per_second": 0.02, "tflops_per_device": 1e-9, "data_wait": 0.999}]
    for changes in extremes:
        row = {name: value for name, value in (ROW | changes).items() if name not in absent}
        assert len(lines.line(row)) == len(lines.header) <= (max_width or 100)
    assert ("NSP" in lines.header) == next_sentence
    assert ("MFU" in lines.header) == has_mfu


def test_numbers_and_times_are_short() -> None:
    numbers = (0, 0.012, 9.994, 9.996, 99.96, 310, 999.4, 999.6, 37_912, 1_240_000, 2.5e15)
    shown = ["0.00", "0.01", "9.99", "10.0", "100", "310", "999", "1.00k", "37.9k", "1.24M", "2.50P"]
    assert [format_count(number) for number in numbers] == shown
    times = (None, 0, 125.4, 3599.6, 7 * 3600 + 65, 86_399, 12 * 86_400 + 4 * 3600)
    assert [format_seconds(time) for time in times] == ["-", "00:00", "02:05", "1h00m", "7h01m", "23h59m", "12d04h"]


def test_evaluation_is_a_sentence() -> None:
    row = {"kind": "eval", "step": 352, "mlm_loss": 5.1565, "mlm_accuracy": 0.173, "num_samples": 1321}
    assert describe_evaluation(row) == "held out, step 352: MLM 5.157, 17.3% right; 1,321 samples"
    row |= {"mlm_baseline": 0.154, "nsp_loss": 0.6926, "nsp_accuracy": 0.515, "nsp_accuracy_by_lengths": 0.531}
    assert describe_evaluation(row) == (
        "held out, step 352: MLM 5.157, 17.3% right (15.4% by the most frequent word alone); "
        "NSP 0.693, 51.5% right (53.1% by the lengths alone); 1,321 samples"
    )
    assert describe_evaluation({"kind": "eval", "step": 3, "num_samples": 2}) == "held out, step 3: 2 samples"


def test_table_has_a_line_per_epoch_with_the_latest_evaluation() -> None:
    rows = [
        {"kind": "train", "step": 5, "loss": 9.0},
        {"kind": "epoch", "step": 10, "epoch": 1, "loss": 8.5, "mlm_loss": 7.8, "nsp_loss": 0.7},
        {"kind": "eval", "step": 10, "mlm_accuracy": 0.123, "nsp_accuracy": 0.5},
        {"kind": "epoch", "step": 15, "epoch": 1.5, "loss": 8.0, "mlm_loss": 8.0},
    ]
    lines = [line.split() for line in table(rows).splitlines()]
    assert lines[1] == ["1", "10", "8.5000", "7.8000", "0.7000", "12.3%", "50.0%"]
    assert lines[2] == ["1.5", "15", "8.0000", "8.0000", "-", "-", "-"]
