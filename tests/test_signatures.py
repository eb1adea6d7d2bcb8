"""Signed artifacts: what is taken, and what is refused before anything of it is read."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import joblib
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from installed import besides
from sklearn.dummy import DummyRegressor

from manymodels.artifact import SIGNATURE
from manymodels.cli import cli
from manymodels.cli.parts import open_store
from manymodels.endpoint import Container
from manymodels.errors import BadArtifact, ManyModelsError, NotTrusted, SettingsError
from manymodels.plugins import Plugins
from manymodels.server.workers import create
from manymodels.settings import Settings, load
from manymodels.store import DiskCache, Limits, Store, TrustedStore, pack, read_keys, unpack, verify
from manymodels.store.pack import digests
from manymodels.store.signatures import fingerprint, read_private_key, sign

#: Plugins that these tests have no use for, and would import.
OTHERS = besides("sklearn")
RUNNER = CliRunner(env={"MANYMODELS_BLOCK_PLUGINS": OTHERS})
PEM = serialization.Encoding.PEM
OPENSSH = serialization.Encoding.OpenSSH


def write_keys(folder: Path, name: str = "key") -> Path:
    """Write a key pair as ssh-keygen does; return the private one."""
    key = Ed25519PrivateKey.generate()
    private = folder / name
    private.write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()),
    )
    (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(OPENSSH, serialization.PublicFormat.OpenSSH))
    return private


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_keys(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    joblib.dump(DummyRegressor(strategy="constant", constant=1.0).fit([[0]], [1]), folder / "model.joblib")
    (folder / "data" / "ü.csv").write_text("1,2\n")
    return folder


@pytest.fixture
def store(tmp_path: Path, model: Path, key: Path) -> Path:
    """A store with a signed archive and a signed folder."""
    root = tmp_path / "store"
    root.mkdir()
    package(model, root / "a.tar.gz", "--sign", key)
    unpack(root / "a.tar.gz", root / "folder", Limits())
    return root


def package(folder: Path, output: Path, *arguments: str | Path) -> str:
    done = RUNNER.invoke(cli, ["package", str(folder), "-o", str(output), *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def settings(keys: Path) -> Settings:
    return load(trusted_keys=str(keys))


@pytest.fixture
def opened(tmp_path: Path, store: Path, key: Path) -> Store:
    return open_store(store, DiskCache(tmp_path / "cache"), settings(key.with_suffix(".pub")), Plugins())


def fetch(store: Store, name: str) -> Path:
    return store.open(store.find(name))


def refused(store: Store, name: str) -> str:
    with pytest.raises(NotTrusted) as caught:
        fetch(store, name)
    return str(caught.value)


# -- Keys --


def test_keys_of_ssh_keygen_and_openssl(tmp_path: Path) -> None:
    made = []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "the team's", "-f", tmp_path / "ssh"], check=True
    )
    made.append(read_private_key(tmp_path / "ssh"))
    shown = subprocess.run(["ssh-keygen", "-l", "-f", tmp_path / "ssh"], capture_output=True, check=True, text=True)
    assert fingerprint(made[0].public_key()) == shown.stdout.split()[1]
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "pem"], check=True)
    made.append(read_private_key(tmp_path / "pem"))
    public = subprocess.run(
        ["openssl", "pkey", "-in", tmp_path / "pem", "-pubout"], capture_output=True, check=True
    ).stdout
    (tmp_path / "trusted").write_bytes(b"# both\n\n" + (tmp_path / "ssh.pub").read_bytes() + public)
    read = [fingerprint(key) for key in read_keys(tmp_path / "trusted")]
    assert sorted(read) == sorted(fingerprint(key.public_key()) for key in made)


def test_a_key_with_a_passphrase_is_asked_for_it(model: Path, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    for number, kind in enumerate((serialization.PrivateFormat.OpenSSH, serialization.PrivateFormat.PKCS8)):
        (tmp_path / "locked").write_bytes(
            key.private_bytes(PEM, kind, serialization.BestAvailableEncryption(b"open sesame"))
        )
        arguments = ["package", str(model), "-o", str(tmp_path / "a.tgz"), "--sign", str(tmp_path / "locked")]
        done = RUNNER.invoke(cli, arguments, input="open sesame\n")
        assert done.exit_code == 0, done.output
        unpack(tmp_path / "a.tgz", tmp_path / str(number), Limits())
        verify(tmp_path / str(number), "a", [key.public_key()])
        done = RUNNER.invoke(cli, arguments, input="wrong\n")
        assert isinstance(done.exception, SettingsError)
        assert "locked' cannot be read" in str(done.exception)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"ssh-ed25519 AAAA\n", b"\xff\x00", b"ssh-ed25519"])
def test_a_file_without_good_keys_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(SettingsError, match=r"the file of trusted keys .*KEY\.pub"):
        read_keys(tmp_path / "keys")


def test_keys_of_another_kind_are_refused(tmp_path: Path, key: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "keys").write_bytes(
        other.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(SettingsError, match="a key of another kind"):
        read_keys(tmp_path / "keys")
    (tmp_path / "private").write_bytes(
        other.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(SettingsError, match="is not an Ed25519 key"):
        read_private_key(tmp_path / "private")
    with pytest.raises(SettingsError, match=r"'.*\.pub' is no private key; sign with KEY"):
        read_private_key(key.with_suffix(".pub"))


# -- What is taken --


def test_signed_archives_and_folders_are_taken(opened: Store, model: Path) -> None:
    for name in ("a.tar.gz", "folder"):
        assert (fetch(opened, name) / "model.joblib").read_bytes() == (model / "model.joblib").read_bytes()
    assert list(opened.list()) == ["a.tar.gz", "folder"]


def test_any_of_several_keys_will_do(tmp_path: Path, store: Path, key: Path) -> None:
    other = write_keys(tmp_path, "other")
    (tmp_path / "trusted").write_bytes(b"".join(path.with_suffix(".pub").read_bytes() + b"\n" for path in (other, key)))
    assert fetch(
        open_store(store, DiskCache(tmp_path / "cache"), settings(tmp_path / "trusted"), Plugins()), "a.tar.gz"
    )


def test_the_signature_can_be_checked_by_openssl(store: Path, key: Path, tmp_path: Path) -> None:
    envelope = json.loads((store / "folder" / SIGNATURE).read_bytes())
    payload = base64.b64decode(envelope["payload"])
    assert {subject["name"] for subject in json.loads(payload)["subject"]} == {"model.joblib", "data/ü.csv"}
    kind = envelope["payloadType"].encode()
    (tmp_path / "message").write_bytes(b" ".join([b"DSSEv1", b"%d" % len(kind), kind, b"%d" % len(payload), payload]))
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    public = read_private_key(key).public_key()
    (tmp_path / "pub").write_bytes(public.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    command = "openssl pkeyutl -verify -pubin -inkey pub -rawin -in message -sigfile sig"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Signature Verified Successfully" in done.stdout, done.stderr


# -- What is refused --


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: change(folder / "model.joblib"), "'model.joblib' of 'folder' is not the file that was signed"),
        (lambda folder: change(folder / "data" / "ü.csv"), "'data/ü.csv' of 'folder' is not the file"),
        (lambda folder: (folder / "model.joblib").unlink(), "lacks 'model.joblib', which was signed"),
        (lambda folder: (folder / "code").mkdir() or (folder / "code" / "inference.py").touch(), "'code/inference.py'"),
        (lambda folder: (folder / SIGNATURE).unlink(), "'folder' is not signed"),
        (lambda folder: (folder / SIGNATURE).write_text("{}"), "cannot be read"),
        (lambda folder: (folder / SIGNATURE).write_bytes(b"[" * 100_000), "cannot be read"),
        (lambda folder: os.truncate(folder / SIGNATURE, 17 << 20), "is no file of at most"),
    ],
)
def test_what_is_not_as_it_was_signed(opened: Store, store: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(store / "folder")
    assert said in refused(opened, "folder")


@pytest.mark.parametrize("name", [".hidden", "__pycache__/inference.cpython-311.pyc", "a/.b/c"])
def test_hidden_files_of_an_archive_are_looked_at_too(tmp_path: Path, store: Path, key: Path, name: str) -> None:
    """The store leaves them out of what it copies, but an archive is unpacked whole."""
    path = store / "folder" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(NotTrusted, match=r"which is not signed"):
        verify(store / "folder", "m", [read_private_key(key).public_key()])


def test_an_empty_folder_is_refused(store: Path, key: Path) -> None:
    """Python imports one as a package, and ``package`` writes none."""
    (store / "folder" / "a" / "b").mkdir(parents=True)
    with pytest.raises(NotTrusted, match=r"holds 'a/b/', which is not signed"):
        verify(store / "folder", "m", [read_private_key(key).public_key()])


def test_links_are_refused(tmp_path: Path, store: Path, key: Path) -> None:
    """Even to what was signed: a link can be turned elsewhere later."""
    keys = [read_private_key(key).public_key()]
    (tmp_path / "elsewhere").write_bytes((store / "folder" / "model.joblib").read_bytes())
    (store / "folder" / "model.joblib").unlink()
    (store / "folder" / "model.joblib").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadArtifact, match=r"'model.joblib', which is neither a file nor a folder"):
        verify(store / "folder", "m", keys)
    shutil.move(store / "folder" / SIGNATURE, tmp_path / SIGNATURE)
    (store / "folder" / SIGNATURE).symlink_to(tmp_path / SIGNATURE)
    with pytest.raises(NotTrusted, match="is no file"):
        verify(store / "folder", "m", keys)


def test_what_others_signed_is_refused(tmp_path: Path, store: Path, model: Path, opened: Store) -> None:
    other = write_keys(tmp_path, "other")
    package(model, store / "b.tar.gz", "--sign", other)
    print_ = fingerprint(read_private_key(other).public_key())
    assert f"is signed by no key that this server trusts (it says: {print_!r})" in refused(opened, "b.tar.gz")


@pytest.mark.parametrize(
    "content",
    [
        lambda payload: (payload, "text/plain"),
        lambda payload: (payload.replace(b"urn:manymodels:artifact:v1", b"urn:another"), None),
        lambda payload: (payload.replace("data/ü.csv".encode(), b"model.joblib"), None),
        lambda payload: (payload.replace(b"sha256", b"sha512"), None),
    ],
    ids=["payload", "predicate", "twice", "digest"],
)
def test_what_was_signed_for_another_purpose_is_refused(
    content: Callable[[bytes], tuple[bytes, str | None]], store: Path, key: Path
) -> None:
    path = store / "folder" / SIGNATURE
    envelope = json.loads(path.read_bytes())
    payload, kind = content(base64.b64decode(envelope["payload"]))
    kind = kind or envelope["payloadType"]
    signature = read_private_key(key).sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload))
    signatures = [{"sig": base64.b64encode(signature).decode()}]
    path.write_text(
        json.dumps({"payloadType": kind, "payload": base64.b64encode(payload).decode(), "signatures": signatures})
    )
    with pytest.raises(NotTrusted, match="is signed, but not a list of files"):
        verify(store / "folder", "m", [read_private_key(key).public_key()])


def test_bare_files_are_refused(opened: Store, store: Path, model: Path) -> None:
    shutil.copy(model / "model.joblib", store / "bare.joblib")
    assert "is not signed" in refused(opened, "bare.joblib")
    assert "bare.joblib" not in list(opened.list())


def test_a_folder_is_served_from_the_copy_that_was_verified(opened: Store, store: Path) -> None:
    path = fetch(opened, "folder")
    assert not path.is_relative_to(store)
    before = (path / "model.joblib").read_bytes()
    change(store / "folder" / "model.joblib")
    assert (path / "model.joblib").read_bytes() == before
    assert "is not the file that was signed" in refused(opened, "folder")


def test_what_is_refused_does_not_stay_in_use(opened: Store, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as the server runs, it could make no room."""

    def unreadable(*_: object) -> None:
        raise BadArtifact("'a.tar.gz' cannot be read: Too many open files")

    monkeypatch.setattr("manymodels.store.trusted.verify", unreadable)
    with pytest.raises(BadArtifact):
        fetch(opened, "a.tar.gz")
    change(store / "folder" / "model.joblib")
    monkeypatch.undo()
    refused(opened, "folder")
    assert not opened.cache._uses


def test_a_copy_that_was_changed_is_made_anew(opened: Store) -> None:
    path = fetch(opened, "a.tar.gz")
    change(path / "model.joblib")
    (path / "left.pyc").touch()
    assert fetch(opened, "a.tar.gz") == path
    assert not (path / "left.pyc").exists()


def test_no_plugin_is_shown_what_is_not_verified(tmp_path: Path, store: Path, model: Path, key: Path) -> None:
    shutil.copytree(model, store / "unsigned")
    asked = []

    class Nosy:
        """Notes what it is shown."""

    from manymodels import Artifact, hookimpl

    @hookimpl
    def claim(artifact: Artifact) -> None:
        asked.append(artifact.name)

    nosy = Nosy()
    nosy.claim = claim  # type: ignore[attr-defined]
    opened = open_store(
        store, DiskCache(tmp_path / "cache"), settings(key.with_suffix(".pub")), Plugins([("nosy", nosy)])
    )
    assert list(opened.list()) == ["a.tar.gz", "folder"]
    refused(opened, "unsigned")
    assert asked == []


def test_without_trusted_keys_nothing_has_to_be_signed(tmp_path: Path, store: Path) -> None:
    change(store / "folder" / "model.joblib")
    plain = open_store(store, DiskCache(tmp_path / "cache"), load(), Plugins())
    assert not isinstance(plain, TrustedStore)
    assert fetch(plain, "folder") == store / "folder"


def test_a_container_verifies_what_it_is_told_to_load(store: Path, model: Path, key: Path) -> None:
    chosen = load(trusted_keys=str(key.with_suffix(".pub")), block_plugins=OTHERS)
    container = Container(create(chosen), Plugins.installed(chosen.block_plugins), chosen)
    assert container._bind("m", store / "folder").plugin == "sklearn"
    with pytest.raises(NotTrusted, match="'m' is not signed"):
        container._bind("m", model)


# -- Packing --


def test_what_is_packed_beside_the_files_is_signed_too(model: Path, key: Path, tmp_path: Path) -> None:
    private, beside = read_private_key(key), {"golden.jsonl": b"{}"}
    signature = sign(digests(model, tmp_path / "a.tgz", beside), private)
    pack(model, tmp_path / "a.tgz", {**beside, SIGNATURE: signature})
    unpack(tmp_path / "a.tgz", tmp_path / "a", Limits())
    verify(tmp_path / "a", "a", [private.public_key()])
    assert (tmp_path / "a" / "golden.jsonl").exists()


def test_signing_again_replaces_a_signature(store: Path, tmp_path: Path) -> None:
    other = write_keys(tmp_path, "other")
    package(store / "folder", tmp_path / "b.tgz", "--sign", other)
    unpack(tmp_path / "b.tgz", tmp_path / "b", Limits())
    verify(tmp_path / "b", "b", [read_private_key(other).public_key()])


def test_a_name_that_no_signature_can_hold(model: Path, key: Path, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(model) + b"/\xff.csv")).touch()
    done = RUNNER.invoke(cli, ["package", str(model), "-o", str(tmp_path / "a.tgz"), "--sign", str(key)])
    assert isinstance(done.exception, ManyModelsError)
    assert "is not valid UTF-8" in str(done.exception)


def test_an_empty_list_of_files_is_signed_as_such(tmp_path: Path, key: Path) -> None:
    private = read_private_key(key)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / SIGNATURE).write_bytes(sign({}, private))
    verify(tmp_path / "none", "none", [private.public_key()])
