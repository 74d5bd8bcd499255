"""Locked files: who holds one keeps it, and what nobody holds may be removed."""

from bertdata.file_locks import LockedFile, remove_if_unlocked


def test_remove_if_unlocked_keeps_what_somebody_holds(tmp_path):
    path = tmp_path / "held"
    for exclusive in (False, True):
        with LockedFile(path) as file:
            assert file.try_lock(exclusive=exclusive)
            assert not remove_if_unlocked(path)
            assert path.exists()


def test_remove_if_unlocked_removes_what_was_given_back(tmp_path):
    path = tmp_path / "left"
    with LockedFile(path) as file:
        file.lock(exclusive=True)
    assert remove_if_unlocked(path)
    assert not path.exists()


def test_remove_if_unlocked_says_that_nothing_is_left_where_nothing_was(tmp_path):
    assert remove_if_unlocked(tmp_path / "nothing")
