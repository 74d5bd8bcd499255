import fcntl
import hashlib
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bertdata.cli import main
from bertdata.config import LATEST
from bertdata.download import database_name, fetch_file, find_dump
from bertdata.errors import DownloadError, OutputError
from bertdata.web import Http
from tests.bertdata.dump_server import SUFFIX, DumpServer, serve_dumps

DATA = random.Random(1).randbytes(1_000_000)
NAME = f"simplewiki-20261101-{SUFFIX}"


@pytest.fixture
def server():
    with serve_dumps() as running:
        yield running


class Waits:
    """Waits no time, and remembers for how long it should have."""

    def __init__(self):
        self.seconds = []

    def __call__(self, seconds):
        self.seconds.append(seconds)


@pytest.fixture
def waits():
    return Waits()


@pytest.fixture
def http(waits):
    return Http(timeout=10, sleep=waits)


def fetch(server: DumpServer, folder: Path, http: Http, *, wiki: str = "simple", date: str = LATEST, root: str = ""):
    files = find_dump(wiki, date=date, mirror=server.url + root, http=http)
    return [fetch_file(file, folder=folder, http=http) for file in files]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def part_of(folder: Path, content: bytes) -> Path:
    """Leaves an unfinished file, as a killed process does."""
    part = folder / f".{NAME}.{hashlib.sha1(DATA).hexdigest()}.part"
    part.write_bytes(content)
    return part


@pytest.mark.parametrize(
    ("wiki", "database"),
    [
        *(("simple", "simplewiki"), ("en", "enwiki"), ("zh-min-nan", "zh_min_nanwiki"), ("enwiki", "enwiki")),
        *(("dewiktionary", "dewiktionary"), ("commonswiki", "commonswiki"), ("be-x-old", "be_x_oldwiki")),
    ],
)
def test_database_name_is_that_of_the_dumps(wiki, database):
    assert database_name(wiki) == database


@pytest.mark.parametrize("wiki", ["", "../etc", "EN", "en/20261101", "a b", "é", "-", "x" * 80])
def test_database_name_refuses_what_is_none(wiki):
    with pytest.raises(DownloadError, match="it must be a language code"):
        database_name(wiki)


def test_download_fetches_newest_dump_that_is_complete(server, http, tmp_path, caplog):
    for date, status in [
        ("20261001", "done"),
        ("20261101", "done"),
        ("20261115", "in-progress"),
        ("20261120", "waiting"),
    ]:
        server.add_dump("simplewiki", date, DATA if date == "20261101" else b"other", status=status)
    (path,) = fetch(server, tmp_path / "dumps", http)
    assert path == tmp_path / "dumps" / NAME
    assert path.read_bytes() == DATA
    assert names_in(tmp_path / "dumps") == [NAME]
    assert server.ranges_of() == [None]


def test_download_fetches_the_dump_of_a_date(server, http, tmp_path):
    server.add_dump("simplewiki", "20261001", DATA)
    server.add_dump("simplewiki", "20261101", b"newer")
    (path,) = fetch(server, tmp_path, http, date="20261001")
    assert path.read_bytes() == DATA
    with pytest.raises(DownloadError, match="20260901/ has no complete multistream dump"):
        fetch(server, tmp_path, http, date="20260901")


@pytest.mark.parametrize(("with_status", "with_sums"), [(True, False), (False, True)])
def test_download_takes_mirrors_under_a_path_that_lack_a_file(server, http, tmp_path, with_status, with_sums):
    server.add_dump("simplewiki", "20261101", DATA, root="/pub/dumps", with_status=with_status, with_sums=with_sums)
    (path,) = fetch(server, tmp_path, http, root="/pub/dumps/")
    assert path.read_bytes() == DATA


def test_download_passes_over_a_dump_without_published_sums(server, http, tmp_path):
    server.add_dump("simplewiki", "20261001", DATA)
    server.add_dump("simplewiki", "20261101", b"other", with_status=False, with_sums=False)
    (path,) = fetch(server, tmp_path, http)
    assert path.name == f"simplewiki-20261001-{SUFFIX}"


def test_download_fetches_parts_where_there_is_no_whole(server, http, tmp_path):
    stem = "pages-articles-multistream"
    parts = {
        f"{stem}2.xml-p10p2000.bz2": b"two",
        f"{stem}10.xml-p2001p3000.bz2": b"ten",
        f"{stem}1.xml-p1p9.bz2": b"one",
    }
    others = {f"{stem}-index1.txt-p1p9.bz2": b"index", "pages-meta-history.xml.bz2": b"history"}
    server.add_dump("enwiki", "20261101", parts | others)
    assert [path.read_bytes() for path in fetch(server, tmp_path, http, wiki="en")] == [b"one", b"two", b"ten"]
    server.add_dump("enwiki", "20261101", parts | others | {SUFFIX: DATA})
    assert [path.name for path in fetch(server, tmp_path, http, wiki="en")] == [f"enwiki-20261101-{SUFFIX}"]


@pytest.mark.parametrize(
    ("wiki", "mirror", "message"),
    [
        (
            "nosuch",
            "",
            r"has no wiki 'nosuchwiki' \(.*status 404\)\); https://dumps.wikimedia.org/backup-index.html lists",
        ),
        ("simple", "ftp://x", "--mirror is 'ftp://x'; it must be an address that begins with https://"),
        ("simple", "http://[", "it must be an address"),
        ("simple", "http://host:port", "it must be an address"),
        ("simple", "http://a b", "it must be an address"),
        ("parts", "", "partswiki/ has no complete multistream dump"),
        ("old", "", "oldwiki/ has no complete multistream dump; try another --mirror"),
    ],
)
def test_find_dump_says_what_is_not_there(server, http, wiki, mirror, message):
    server.add_dump("simplewiki", "20261101", DATA)
    server.add_dump("oldwiki", "20261101", DATA, status="failed")
    part = {"pages-articles-multistream1.xml-p1p9.bz2": b"one"}
    server.add_dump("partswiki", "20261101", part, with_status=False)  # there may be more of them to come
    with pytest.raises(DownloadError, match=message):
        find_dump(wiki, date=LATEST, mirror=mirror or server.url, http=http)


def test_find_dump_gives_up_soon_where_no_server_answers(http, waits):
    with pytest.raises(DownloadError, match="and 3 tries in a row failed"):
        find_dump("simple", date=LATEST, mirror="http://127.0.0.1:1", http=http)
    assert waits.seconds == [1, 2]


def test_find_dump_refuses_a_date_that_is_none(server, http):
    with pytest.raises(DownloadError, match="--date is '2026-11-01'; it must be eight digits"):
        find_dump("simple", date="2026-11-01", mirror=server.url, http=http)


@pytest.mark.parametrize("status", [b"not json", b"[]", b'{"jobs": {"a": {}}}'])
def test_find_dump_names_a_status_that_is_none(server, http, status):
    server.add_dump("simplewiki", "20261101", DATA)
    server.files["/simplewiki/20261101/dumpstatus.json"] = status
    with pytest.raises(DownloadError, match=r"dumpstatus.json is not what a dump's status looks like"):
        find_dump("simple", date=LATEST, mirror=server.url, http=http)


def test_download_goes_on_where_the_connection_dropped(server, http, waits, tmp_path):
    server.add_dump("simplewiki", "20261101", DATA)
    server.cut_after = [0, 100_000, 1, 300_000]
    (path,) = fetch(server, tmp_path, http)
    assert path.read_bytes() == DATA
    assert server.ranges_of() == [None, None, "bytes=100000-", "bytes=100001-", "bytes=400001-"]
    assert server.num_bytes == len(DATA)
    assert waits.seconds == [1, 2, 4, 8]


def test_download_waits_as_long_as_the_server_asks(server, http, waits, tmp_path):
    server.add_dump("simplewiki", "20261101", DATA)
    server.failures, server.retry_after = [503, 429, 0, 500], "17"
    (path,) = fetch(server, tmp_path, http)
    assert path.read_bytes() == DATA
    assert waits.seconds == [17, 17, 4, 17]


def test_download_gives_up_after_some_failures_and_keeps_what_came(server, http, waits, tmp_path):
    server.add_dump("simplewiki", "20261101", DATA)
    server.failures = [503] * 100
    (file,) = find_dump("simple", date=LATEST, mirror=server.url, http=http)
    part_of(tmp_path, DATA[:400_000])
    with pytest.raises(
        DownloadError, match="status 503, and 9 tries in a row failed. What came is kept; run the same command"
    ):
        fetch_file(file, folder=tmp_path, http=http)
    assert waits.seconds == [1, 2, 4, 8, 16, 32, 64, 120]
    assert (tmp_path / f".{NAME}.{file.sha1}.part").read_bytes() == DATA[:400_000]
    assert names_in(tmp_path) == [f".{NAME}.{file.sha1}.part"]


@pytest.mark.parametrize("status", [401, 403, 410])
def test_download_says_that_it_is_refused(server, http, waits, tmp_path, status):
    server.add_dump("simplewiki", "20261101", DATA)
    server.failures = [status]
    with pytest.raises(DownloadError, match=rf"{SUFFIX}: the server refuses it \(status {status}"):
        fetch(server, tmp_path, http)
    assert waits.seconds == []


def test_download_gives_up_where_the_server_breaks_off_at_the_same_place(server, http, waits, tmp_path):
    server.add_dump("simplewiki", "20261101", DATA)
    server.cut_after, server.ignore_range = [600_000] * 100, True
    with pytest.raises(DownloadError, match="the connection ended at byte 600,000 of 1,000,000, and 9 tries in a row"):
        fetch(server, tmp_path, http)


def test_download_forgets_failures_when_more_has_come(server, http, waits, tmp_path):
    data = DATA * 12
    server.add_dump("simplewiki", "20261101", data)
    server.cut_after = [1_100_000] * 10
    assert fetch(server, tmp_path, http)[0].read_bytes() == data
    assert waits.seconds == [1] * 10


@pytest.mark.parametrize("without_length", [False, True])
def test_download_starts_anew_where_the_server_cannot_go_on(server, http, tmp_path, without_length):
    server.add_dump("simplewiki", "20261101", DATA)
    server.cut_after, server.ignore_range, server.without_length = [600_000], True, without_length
    (path,) = fetch(server, tmp_path, http)
    assert path.read_bytes() == DATA
    assert server.num_bytes == len(DATA) + 600_000


def test_download_fetches_a_broken_file_again(server, http, tmp_path):
    server.add_dump("simplewiki", "20261101", DATA)
    server.corrupt = 1
    (path,) = fetch(server, tmp_path, http)
    assert path.read_bytes() == DATA
    assert names_in(tmp_path) == [NAME]
    assert server.num_bytes == 2 * len(DATA)


def test_download_keeps_nothing_that_is_wrong_twice(server, http, tmp_path):
    server.add_dump("simplewiki", "20261101", DATA)
    server.corrupt = 2
    with pytest.raises(DownloadError, match=f"came twice with a wrong SHA-1, .* {hashlib.sha1(DATA).hexdigest()}"):
        fetch(server, tmp_path, http)
    assert names_in(tmp_path) == []
    assert fetch(server, tmp_path, http)[0].read_bytes() == DATA


@pytest.mark.parametrize("with_status", [True, False])
@pytest.mark.parametrize(
    ("content", "ranges"),
    [
        (DATA[:700_000], ["bytes=700000-"]),
        (b"wrong" + DATA[5:700_000], ["bytes=700000-", None]),
    ],
)
def test_download_goes_on_with_an_unfinished_file(server, http, tmp_path, content, ranges, with_status):
    server.add_dump("simplewiki", "20261101", DATA, with_status=with_status)
    part_of(tmp_path, content)
    (path,) = fetch(server, tmp_path, http)
    assert path.read_bytes() == DATA
    assert server.ranges_of() == ranges
    assert names_in(tmp_path) == [NAME]


@pytest.mark.parametrize(
    ("content", "with_status", "ranges"),
    [
        (DATA, True, []),
        (DATA, False, [f"bytes={len(DATA)}-"]),
        (DATA + b"more", True, [None]),
        (DATA + b"more", False, [f"bytes={len(DATA) + 4}-", None]),
    ],
)
def test_download_goes_on_with_a_file_that_is_complete_or_too_long(
    server, http, tmp_path, content, with_status, ranges
):
    server.add_dump("simplewiki", "20261101", DATA, with_status=with_status)
    part_of(tmp_path, content)
    (path,) = fetch(server, tmp_path, http)
    assert path.read_bytes() == DATA
    assert server.ranges_of() == ranges


def test_download_never_goes_on_with_another_version(server, http, tmp_path):
    server.add_dump("simplewiki", "20261101", b"x" * 2_000_000)
    first = find_dump("simple", date=LATEST, mirror=server.url, http=http)[0]
    (tmp_path / f".{NAME}.{first.sha1}.part").write_bytes(b"x" * 500_000)
    server.add_dump("simplewiki", "20261101", DATA)
    (path,) = fetch(server, tmp_path, http)
    assert path.read_bytes() == DATA
    assert server.ranges_of() == [None]


def test_download_fetches_nothing_that_is_there_and_right(server, http, tmp_path, capsys):
    server.add_dump("simplewiki", "20261101", DATA)
    (tmp_path / NAME).write_bytes(DATA)
    assert fetch(server, tmp_path, http) == [tmp_path / NAME]
    assert server.ranges_of() == []
    assert f"checking {NAME} 1.0 / 1.0 MB" in capsys.readouterr().err
    (tmp_path / NAME).write_bytes(b"wrong")
    assert fetch(server, tmp_path, http)[0].read_bytes() == DATA


def test_download_refuses_where_another_process_fetches(server, http, tmp_path):
    server.add_dump("simplewiki", "20261101", DATA)
    with part_of(tmp_path, b"").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another process is fetching"):
            fetch(server, tmp_path, http)


def test_download_refuses_without_room(server, http, tmp_path, monkeypatch):
    server.add_dump("simplewiki", "20261101", DATA)
    part_of(tmp_path, DATA[:400_000])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 599_999))
    with pytest.raises(OutputError, match="needs 600,000 bytes more, and .* has 599,999 free"):
        fetch(server, tmp_path, http)


def test_download_names_a_folder_that_cannot_be_written_to(server, http, tmp_path):
    server.add_dump("simplewiki", "20261101", DATA)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        fetch(server, tmp_path / "file", http)


def _heed_interrupts():
    """Undoes what a shell does to those that it runs in the background, and they to their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_download_command_goes_on_after_a_signal(server, tmp_path, number):
    server.add_dump("simplewiki", "20261101", DATA)
    server.cut_after = [500_000, *[0] * 5]
    command = [
        sys.executable,
        "-m",
        "bertdata",
        "download",
        "--wiki",
        "simple",
        "--out",
        tmp_path,
        "--mirror",
        server.url,
    ]

    # Connections break off; the process waits before it tries again, and is stopped.
    with subprocess.Popen(
        [*map(str, command)], stderr=subprocess.PIPE, text=True, preexec_fn=_heed_interrupts
    ) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "trying again" in line)
        assert "the connection ended at byte 500,000 of 1,000,000" in line
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode != 0
    assert ("the same command goes on" in rest) == (number == signal.SIGINT)
    assert "Traceback" not in rest
    server.cut_after.clear()
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    assert result.stdout == f"{tmp_path / NAME}\n"
    assert (tmp_path / NAME).read_bytes() == DATA
    assert server.ranges_of()[0] is None
    assert set(server.ranges_of()[1:]) == {"bytes=500000-"}


def test_download_command_tells_the_server_who_fetches(server, tmp_path):
    server.add_dump("simplewiki", "20261101", DATA)
    command = ["download", "--wiki", "simple", "--out", str(tmp_path), "--mirror", server.url]
    result = CliRunner().invoke(main, [*command, "--contact", "me@example.org"])
    assert result.exit_code == 0
    assert len(server.user_agents) == 1
    assert re.fullmatch(r"bertdata/\S+ \(me@example.org\) Python-urllib", *server.user_agents)
    server.failures = [403]
    (tmp_path / NAME).unlink()
    assert "say who you are with --contact" in CliRunner().invoke(main, command).output
    assert "--contact is 'a\\nb'" in CliRunner().invoke(main, [*command, "--contact", "a\nb"]).output


def test_download_command_prints_errors_and_help(server, tmp_path):
    result = CliRunner().invoke(main, ["download", "--wiki", "no", "--out", str(tmp_path), "--mirror", server.url])
    assert result.exit_code == 1
    assert "has no wiki 'nowiki'" in result.output
    assert CliRunner().invoke(main, ["download", "--out", str(tmp_path)]).exit_code == 2
