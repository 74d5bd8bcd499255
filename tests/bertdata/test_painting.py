import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertdata.blocks import Sample
from bertdata.painting import Painter, paint, printable, wrap
from bertdata.wordpiece import new_bert_tokenizer

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "tree", "##s"]
ROLES = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
SAMPLE = Sample(
    tokens=[2, 5, 6, 9, 3, 7, 6, 3],
    segment_ids=[0, 0, 0, 0, 0, 1, 1, 1],
    next_sentence_label=1,
    document_keys=(1, 255),
    mask_sets=[([2], [4]), ([1, 5, 6], [4, 8, 6]), ([], [])],
)


def painter_of(*, next_sentence="balanced", width=None) -> Painter:
    tokenizer = new_bert_tokenizer({token: n for n, token in enumerate(VOCAB)}, lowercase=True, strip_accents=True)
    return Painter(tokenizer, roles=ROLES, next_sentence=next_sentence, width=width)


def test_description_marks_one_mask_set():
    assert [click.unstyle(line) for line in painter_of().describe(SAMPLE)] == [
        "  A          [CLS] the «[MASK]|cat» ##s [SEP]",
        "  B          sat cat [SEP]",
        "  label      1 NotNext",
        "  documents  0000000000000001 00000000000000ff",
    ]
    lines = [click.unstyle(line) for line in painter_of().describe(SAMPLE, mask_set=1)]
    assert lines[:2] == ["  A          [CLS] «[MASK]|the» cat ##s [SEP]", "  B          «tree|sat» «cat» [SEP]"]


def test_description_without_mask_sets_or_second_segment():
    single = Sample(tokens=[2, 5, 3], segment_ids=[0, 0, 0], next_sentence_label=0, document_keys=(1, 1), mask_sets=[])
    lines = [click.unstyle(line) for line in painter_of(next_sentence="none").describe(single)]
    assert lines == ["  A          [CLS] the [SEP]", "  documents  0000000000000001 0000000000000001"]


@pytest.mark.parametrize(("mode", "name"), [("balanced", "NotNext"), ("google", "NotNext"), ("sop", "swapped")])
def test_label_is_named_as_the_mode_means_it(mode, name):
    assert painter_of(next_sentence=mode).label_name(SAMPLE) == name
    assert painter_of(next_sentence="none").label_name(SAMPLE) is None


def test_kinds_of_pieces_differ_in_colour():
    painter = painter_of()
    masked, replaced, kept = (word.partition(":")[2] for word in painter.predictions(SAMPLE, mask_set=1))
    assert [click.unstyle(word) for word in (masked, replaced, kept)] == ["«[MASK]|the»", "«tree|sat»", "«cat»"]
    assert len({word.partition("«")[0] for word in (masked, replaced, kept)}) == 3
    a, b = painter.describe(SAMPLE)[:2]
    assert paint("[CLS]", "special") in a
    assert paint("##", "special") + "s" in a
    assert paint("cat", "B") in b
    assert paint("cat", "B") != "cat"


def test_shown_positions_are_counted_by_kind():
    assert painter_of().count_shown(SAMPLE, mask_set=1) == "3 predicted: 1 masked, 1 replaced, 1 kept"
    assert painter_of().count_shown(SAMPLE, mask_set=2) == "0 predicted: 0 masked, 0 replaced, 0 kept"


def test_legend_says_what_descriptions_use():
    legend = click.unstyle(painter_of().legend())
    assert all(mark in legend for mark in ("«[MASK]|label»", "«other|label»", "«label»"))


words = st.lists(st.text("ab漢̀«", min_size=1, max_size=12), min_size=1, max_size=30)


@given(words, st.integers(10, 40), st.booleans())
@example(["漢" * 5, "a"], 10, False)
def test_wrapping_cuts_no_word_and_fills_lines(words, width, coloured):
    text = wrap([paint(word, "masked") if coloured else word for word in words], head="A  ", width=width)
    lines = click.unstyle(text).split("\n")
    assert [word for line in lines for word in line[3:].split(" ")] == words
    assert lines[0].startswith("A  ")
    assert all(line.startswith("   ") for line in lines[1:])
    for line, following in zip(lines, [*lines[1:], None], strict=True):
        assert columns(line) <= width or " " not in line[3:]
        if following is not None:
            assert columns(line) + 1 + columns(following[3:].split(" ")[0]) > width


def columns(text):
    """One for a letter, two for a Chinese character, none for an accent that is put on the one before."""
    return len(text) + text.count("漢") - text.count("̀")


def test_wrapping_without_width_gives_one_line():
    assert wrap(["word"] * 1000, head="> ", width=None) == "> " + " ".join(["word"] * 1000)


def test_control_characters_are_shown_and_not_obeyed():
    assert printable("a\x1b[31mb\tc\nd\x7fé") == "a\\x1b[31mb\\tc\nd\\x7fé"
