"""Archives, good and hostile, and packing."""

from __future__ import annotations

import gzip
import importlib
import io
import itertools
import os
import shutil
import stat
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manymodels.errors import BadArtifact, LoadFailed
from manymodels.store import Limits, pack, unpack

LIMITS = Limits(members=200, bytes=1 << 20)
MiB = 1 << 20


def member(name: str, data: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=tarfile.DIRTYPE)


def tar(*members: tuple[tarfile.TarInfo, bytes], layout: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Unpack bytes and return the files; nothing else may be left beside them."""

    def run(content: bytes, limits: Limits = LIMITS) -> dict[str, bytes]:
        archive = tmp_path / "m.tar.gz"
        archive.write_bytes(content)
        into = tmp_path / "into"
        try:
            unpack(archive, into, limits)
        except Exception:
            assert os.listdir(tmp_path) == ["m.tar.gz"]
            raise
        assert sorted(os.listdir(tmp_path)) == ["into", "m.tar.gz"]
        return {str(path.relative_to(into)): path.read_bytes() for path in into.rglob("*") if path.is_file()}

    return run


Unpacked = Callable[..., dict[str, bytes]]


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_of_all_kinds(unpacked: Unpacked, layout: int) -> None:
    long = "/".join(["folder" * 10] * 10) + "/model.joblib"
    content = tar(
        member("./a.json", b"1"), member("modèle", b"2"), member(long, b"3"), folder("./empty"), layout=layout
    )
    assert unpacked(gzip.compress(content)) == {"a.json": b"1", "modèle": b"2", long: b"3"}


def test_an_archive_of_the_tar_command(unpacked: Unpacked, tmp_path: Path) -> None:
    source = tmp_path / "source" / "code"
    source.mkdir(parents=True)
    (source / "inference.py").write_bytes(b"1")
    (source.parent / "model.bin").write_bytes(os.urandom(100_000))
    made = subprocess.run(["tar", "-czf", "-", "-C", source.parent, "."], check=True, capture_output=True).stdout
    expected = {"code/inference.py": b"1", "model.bin": (source.parent / "model.bin").read_bytes()}
    shutil.rmtree(source.parent)
    assert unpacked(made) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["export/model.bin", "export/code/inference.py"], {"model.bin", "code/inference.py"}),
        (["export/export/model.bin"], {"export/model.bin"}),
        (["._export", "export/model.bin"], {"model.bin"}),
        (["code/inference.py"], {"code/inference.py"}),
        (["export/model.bin", "other.bin"], {"export/model.bin", "other.bin"}),
        (["model.bin"], {"model.bin"}),
    ],
)
def test_one_extra_top_folder(unpacked: Unpacked, names: list[str], expected: set[str]) -> None:
    assert set(unpacked(gzip.compress(tar(*map(member, names))))) == expected


def test_permissions_are_ordinary(tmp_path: Path, unpacked: Unpacked) -> None:
    private = member("model.bin", mode=0o6000)
    unpacked(gzip.compress(tar(member("folder", b"", type=tarfile.DIRTYPE, mode=0), private, member("folder/x"))))
    for name, bits in {"model.bin": 0o600, "folder": 0o700}.items():
        mode = stat.S_IMODE((tmp_path / "into" / name).stat().st_mode)
        assert mode & 0o7000 == 0
        assert mode & 0o700 == bits


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (member("x", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "'x', which is neither a file nor"),
        (member("x", b"", type=tarfile.SYMTYPE, linkname="ok"), "'x', which is neither a file nor"),
        (member("x", b"", type=tarfile.LNKTYPE, linkname="ok"), "'x', which is neither a file nor"),
        (member("x", b"", type=tarfile.CHRTYPE), "'x', which is neither a file nor"),
        (member("x", b"", type=tarfile.BLKTYPE), "'x', which is neither a file nor"),
        (member("x", b"", type=tarfile.FIFOTYPE), "'x', which is neither a file nor"),
        (member("x", b"", type=tarfile.GNUTYPE_SPARSE), "'x', which is neither a file nor"),
        (member("x", pax_headers={"GNU.sparse.map": "0,1"}), "sparse file"),
        (member("../x"), "'../x' has a '.' or '..' segment"),
        (member("a/../../x"), "'.' or '..' segment"),
        (folder(".."), "'.' or '..' segment"),
        (member("/etc/x"), "'/etc/x' is an absolute path"),
        (member("x", pax_headers={"path": "/etc/x"}), "'/etc/x' is an absolute path"),
        (member("C:\\x"), "backslash"),
        (member("C:x"), "absolute"),
        (member("x", pax_headers={"path": "a\0b"}), "NUL"),
        (member("a/" * 65 + "x"), "more than 64 segments"),
        (member("ok"), "'ok' twice"),
        (member("ok/x"), "'ok' twice"),
        (member("x", pax_headers={"comment": "y" * 20_000}), "has a header of"),
    ],
)
def test_hostile_members_are_named(unpacked: Unpacked, info: tuple[tarfile.TarInfo, bytes], reason: str) -> None:
    with pytest.raises(BadArtifact) as caught:
        unpacked(gzip.compress(tar(member("ok"), info)))
    assert "'m.tar.gz'" in str(caught.value)
    assert reason in str(caught.value)


def test_a_name_that_is_not_utf8(unpacked: Unpacked) -> None:
    content = tar(member("x\udcff"), layout=tarfile.GNU_FORMAT)
    with pytest.raises(BadArtifact, match="not valid UTF-8"):
        unpacked(gzip.compress(content))


def test_members_are_counted_with_their_folders(unpacked: Unpacked) -> None:
    members = [member(str(n), pax_headers={"mtime": "1.5"}) for n in range(200)]
    assert len(unpacked(gzip.compress(tar(*members)))) == 200


@pytest.mark.parametrize(
    "members",
    [
        [member(str(n)) for n in range(201)],
        [member("a/" * 60 + "x"), member("b/" * 60 + "x"), member("c/" * 60 + "x"), member("d/" * 60 + "x")],
        [folder("a")] * 201,
    ],
)
def test_too_many_members(unpacked: Unpacked, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(BadArtifact, match="holds more than 200 files and folders"):
        unpacked(gzip.compress(tar(*members)))


def test_100_000_members_stop_at_the_limit(unpacked: Unpacked) -> None:
    block = tar(member("x", b""))[:512]
    with pytest.raises(BadArtifact, match="holds 'x' twice"):
        unpacked(gzip.compress(block * 100_000, 1))
    header, _ = folder("x")
    block = header.tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(BadArtifact, match="holds more than 10000 files"):
        unpacked(gzip.compress(block * 100_000, 1), Limits())


def test_a_chain_of_extended_headers(unpacked: Unpacked) -> None:
    info, _ = member("././@LongLink", type=tarfile.GNUTYPE_LONGNAME)
    link = info.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")
    with pytest.raises(BadArtifact, match="more than 8 extended headers"):
        unpacked(gzip.compress(link * 5_000))
    assert unpacked(gzip.compress(link * 8 + tar(member("x")))) == {"a": b"x"}


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("size", [10 << 30, -512])
def test_the_size_of_an_extended_header_is_not_believed(unpacked: Unpacked, kind: bytes, size: int) -> None:
    info, _ = member("x", type=kind, size=size)
    tracemalloc.start()
    try:
        with pytest.raises(BadArtifact, match=f"a header of {size} bytes"):
            unpacked(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))
        assert tracemalloc.get_traced_memory()[1] < 16 * MiB
    finally:
        tracemalloc.stop()


def test_a_negative_size(unpacked: Unpacked) -> None:
    info, _ = member("x", size=-1024)
    with pytest.raises(BadArtifact, match="negative size"):
        unpacked(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) * 3))


@pytest.mark.parametrize(
    "record", [b"9 path=x", b"99999 path=x\n", b"0 path=x\n", b"path=x\n", b"7 path=x\n", b"1" * 9000]
)
def test_damaged_pax_records(unpacked: Unpacked, record: bytes) -> None:
    info, _ = member("x", record, type=tarfile.XHDTYPE)
    padded = record + bytes(-len(record) % 512)
    with pytest.raises(BadArtifact, match="bad pax header"):
        unpacked(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + padded + tar(member("y"))))


def test_as_many_bytes_as_the_limit(unpacked: Unpacked) -> None:
    assert unpacked(gzip.compress(tar(member("x", bytes(MiB)))))["x"] == bytes(MiB)


@pytest.mark.parametrize(
    "content",
    [
        tar(member("x", bytes(MiB + 1))),
        tar(member("x", bytes(MiB // 2 + 1)), member("y", bytes(MiB // 2))),
        # Behind the end of the archive, where only the checksum is looked for.
        tar(member("x")) + bytes(2 * MiB),
        # 10 GB claimed and not there, in an old header and in a pax one.
        member("x", size=10 << 30)[0].tobuf(tarfile.GNU_FORMAT),
        member("x", size=10 << 30)[0].tobuf(tarfile.PAX_FORMAT),
    ],
)
def test_over_the_byte_limit(unpacked: Unpacked, content: bytes) -> None:
    with pytest.raises(BadArtifact, match="unpacks to more than 1048576 bytes"):
        unpacked(gzip.compress(content))


def test_the_ratio_counts_above_its_floor(unpacked: Unpacked) -> None:
    limits = Limits(bytes=10 << 30, ratio=10)
    assert len(unpacked(gzip.compress(tar(member("x", bytes(64 * MiB)))), limits)["x"]) == 64 * MiB


def test_a_bomb_is_stopped_by_its_ratio(unpacked: Unpacked) -> None:
    content = member("x", size=10 << 30)[0].tobuf(tarfile.PAX_FORMAT) + bytes(MiB)
    with pytest.raises(BadArtifact, match="more than 200 times its size"):
        unpacked(gzip.compress(content), Limits(bytes=20 << 30))


GOOD = gzip.compress(tar(member("model.bin", os.urandom(5_000)), member("b", b"2")), mtime=0)


def test_every_truncation_is_noticed(unpacked: Unpacked) -> None:
    for length in [*range(2, 40), *range(40, len(GOOD), 97), *range(len(GOOD) - 12, len(GOOD))]:
        with pytest.raises(BadArtifact, match="is truncated"):
            unpacked(GOOD[:length])


def test_a_tar_cut_between_members_is_noticed(unpacked: Unpacked) -> None:
    plain = gzip.decompress(GOOD)
    for length in (512, 512 + 5_000, 512 + 5_120, 512 + 5_120 + 512, 512 + 5_120 + 1024):
        with pytest.raises(BadArtifact, match="is truncated"):
            unpacked(gzip.compress(plain[:length]))


@pytest.mark.parametrize("padding", [b"", bytes(1), bytes(600)], ids=len)
@pytest.mark.parametrize("at_a_time", [1, 7, 512, 256 << 10])
def test_gzip_streams_one_after_the_other(
    unpacked: Unpacked, monkeypatch: pytest.MonkeyPatch, at_a_time: int, padding: bytes
) -> None:
    monkeypatch.setattr(importlib.import_module("manymodels.store.unpack"), "_CHUNK", at_a_time)
    plain = gzip.decompress(GOOD)
    streams = [gzip.compress(plain[start : start + 700]) for start in range(0, len(plain), 700)]
    with pytest.raises(BadArtifact, match="is truncated"):
        unpacked(padding.join(streams)[:-1])
    with pytest.raises(BadArtifact, match="is not a gzip archive"):
        unpacked(padding.join([*streams, b"x"]))
    with pytest.raises(BadArtifact, match="is not a gzip archive"):
        unpacked(b"\0" + padding.join(streams))
    files = unpacked(padding.join([*streams, b""]))
    assert files["b"] == b"2"
    assert len(files["model.bin"]) == 5_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"PK\3\4 a zip file", "is not a gzip archive"),
        (tar(member("x")), "is not a gzip archive"),
        (gzip.compress(b""), "is truncated"),
        (gzip.compress(b"no tar" * 200), "is damaged"),
        (gzip.compress(tar()), "holds no files"),
        (gzip.compress(tar(folder("a"))), "holds no files"),
        (GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], "is damaged .*incorrect data check"),
        (GOOD + b"garbage", "is not a gzip archive, or is damaged"),
        (gzip.compress(tar(member("x")).replace(b"ustar", b"uster")), "is damaged"),
        (gzip.compress(tar(member("x"))[:1024] + b"no header".ljust(512) + bytes(1024)), "is damaged"),
    ],
    ids=itertools.count(),  # the bytes hold the time, and those who run tests in parallel compare names
)
def test_corrupt_archives(unpacked: Unpacked, content: bytes, reason: str) -> None:
    with pytest.raises(BadArtifact, match=reason):
        unpacked(content)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(gzip.decompress(GOOD)) - 1), byte=st.integers(0, 255), zip_it=st.booleans())
def test_a_changed_byte_gives_an_answer_or_an_error_of_ours(
    tmp_path: Path, position: int, byte: int, zip_it: bool
) -> None:
    content = bytearray(gzip.decompress(GOOD) if zip_it else GOOD)
    content[position % len(content)] = byte
    archive = tmp_path / "m.tar.gz"
    archive.write_bytes(gzip.compress(content, 1) if zip_it else content)
    try:
        unpack(archive, tmp_path / "into", LIMITS)
    except BadArtifact as error:
        assert "'m.tar.gz'" in str(error)  # noqa: PT017
    else:
        assert sorted(os.listdir(tmp_path)) == ["into", "m.tar.gz"]
        shutil.rmtree(tmp_path / "into")


def test_a_file_that_cannot_be_written(unpacked: Unpacked) -> None:
    with pytest.raises(LoadFailed, match="cannot be unpacked: File name too long"):
        unpacked(gzip.compress(tar(member("x" * 300))))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for name in ("model.bin", "code/inference.py", "code/__pycache__/inference.pyc", ".git/config", ".DS_Store"):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return source


def test_what_is_packed_is_unpacked(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.tar.gz"
    assert pack(source, output) == ["code/inference.py", "model.bin"]
    unpack(output, tmp_path / "into", LIMITS)
    assert (tmp_path / "into/model.bin").read_bytes() == b"model.bin"
    assert (tmp_path / "into/code/inference.py").read_bytes() == b"code/inference.py"
    with tarfile.open(output) as archive:
        assert archive.getnames() == ["code/inference.py", "model.bin"]
    assert sorted(os.listdir(tmp_path)) == ["into", "m.tar.gz", "source"]


def test_packing_again_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "a.tar.gz")
    os.utime(source / "model.bin", (1, 1))
    (source / "model.bin").chmod(0o600)
    pack(source, tmp_path / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_the_output_may_lie_in_the_source(source: Path) -> None:
    pack(source, source / "model.tar.gz")
    assert pack(source, source / "model.tar.gz") == ["code/inference.py", "model.bin"]


def test_packing_a_single_file(source: Path, tmp_path: Path) -> None:
    assert pack(source / "model.bin", tmp_path / "m.tar.gz") == ["model.bin"]


def test_links_are_packed_as_files_or_refused(source: Path, tmp_path: Path) -> None:
    (source / "link").symlink_to("model.bin")
    pack(source, tmp_path / "m.tar.gz")
    with tarfile.open(tmp_path / "m.tar.gz") as archive:
        assert archive.getmember("link").isreg()
    (source / "link").unlink()
    (source / "link").symlink_to("/etc/passwd")
    before = (tmp_path / "m.tar.gz").read_bytes()
    with pytest.raises(BadArtifact, match="'link', a link that is broken or leads out"):
        pack(source, tmp_path / "m.tar.gz")
    assert (tmp_path / "m.tar.gz").read_bytes() == before


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_nothing_to_pack(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadArtifact, match=r"holds no files|is neither a file nor a folder"):
        pack(tmp_path / name, tmp_path / "m.tar.gz")
    assert not (tmp_path / "m.tar.gz").exists()
