"""Signatures of artifacts: the SHA-256 digests of all files, signed by an Ed25519 key that the operator holds.

The file is an envelope of DSSE around a statement of in-toto, so that other programs can read it as well.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..artifact import SIGNATURE
from ..errors import BadArtifact, NotTrusted, SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: Bytes of a signature file: some 100 for each of the artifact's files.
LIMIT = 16 << 20
_CHUNK = 256 << 10
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "urn:manymodels:artifact:v1"
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----\n?", re.DOTALL)
_SIGN = f"sign it: manymodels package FOLDER --sign KEY writes an archive with {SIGNATURE}"


class _Signature(msgspec.Struct):
    sig: bytes
    keyid: str = ""


class _Envelope(msgspec.Struct, rename="camel"):
    payload_type: str
    payload: bytes
    signatures: list[_Signature]


class _Subject(msgspec.Struct):
    name: str
    digest: dict[str, str]


class _Statement(msgspec.Struct, rename={"type": "_type", "predicate_type": "predicateType"}):
    type: str
    subject: list[_Subject]
    predicate_type: str


class Locked(Exception):
    """The private key is encrypted, and no passphrase was given."""


# -- Keys --


def read_keys(path: Path) -> list[Ed25519PublicKey]:
    """Return the public keys of a file: lines as of ssh-keygen, or PEM blocks as of openssl.

    :raises SettingsError: if it cannot be read, or holds none, or anything else.
    """
    serialization = _cryptography()
    what = f"the file of trusted keys {str(path)!r}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{what} cannot be read: {error.strerror}") from error
    lines = [line.strip() for line in _PEM.sub(b"", content).splitlines()]
    try:
        keys = [
            *(_ed25519(serialization.load_pem_public_key(block[0])) for block in _PEM.finditer(content)),
            *(_ed25519(serialization.load_ssh_public_key(line)) for line in lines if line and line[:1] != b"#"),
        ]
    except Exception as error:  # cryptography raises what its parsers do, and names no common base
        raise SettingsError(
            f"{what} is not one of public Ed25519 keys ({error}); "
            "put the content of KEY.pub there, which ssh-keygen -t ed25519 -f KEY makes"
        ) from error
    if not keys:
        raise SettingsError(f"{what} holds no key; put the content of KEY.pub there")
    return keys


def read_private_key(path: Path, passphrase: bytes | None = None) -> Ed25519PrivateKey:
    """Return the private key of a file, as ssh-keygen or openssl writes it.

    :raises Locked: if it is encrypted and no passphrase was given.
    :raises SettingsError: if it cannot be read, or is no Ed25519 key, or the passphrase is wrong.
    """
    serialization = _cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        content = path.read_bytes()
        if b"PRIVATE KEY-----" not in content:
            raise SettingsError(
                f"{str(path)!r} is no private key; sign with KEY, which ssh-keygen -t ed25519 -f KEY makes"
            )
        is_ssh = b"BEGIN OPENSSH PRIVATE KEY" in content
        read = serialization.load_ssh_private_key if is_ssh else serialization.load_pem_private_key
        key = read(content, passphrase)
    except OSError as error:
        raise SettingsError(f"the key {str(path)!r} cannot be read: {error.strerror}") from error
    except TypeError as error:  # it is encrypted; or not, and a passphrase was given
        if passphrase is None:
            raise Locked from error
        raise SettingsError(f"the key {str(path)!r} cannot be read: {error}") from error
    except SettingsError:
        raise
    except Exception as error:  # as in `read_keys`
        raise SettingsError(f"the key {str(path)!r} cannot be read: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"the key {str(path)!r} is not an Ed25519 key; make one: ssh-keygen -t ed25519 -f KEY")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the fingerprint that ``ssh-keygen -l`` shows of a key."""
    serialization = _cryptography()
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _ed25519(key: Any) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("a key of another kind")
    return key


def _cryptography() -> Any:
    """Return what reads keys.

    :raises SettingsError: if it is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise SettingsError(
            f"signatures need the package cryptography ({error}); pip install 'manymodels[signing]'"
        ) from error
    return serialization


# -- Signatures --


def sign(digests: Mapping[str, str], key: Ed25519PrivateKey) -> bytes:
    """Return the content of an artifact's signature file.

    :param digests: SHA-256 in hexadecimal of each file, by its name.
    """
    statement = _Statement(
        _STATEMENT, [_Subject(name, {"sha256": digests[name]}) for name in sorted(digests)], _PREDICATE
    )
    payload = msgspec.json.encode(statement)
    signature = _Signature(key.sign(_signed(_PAYLOAD, payload)), fingerprint(key.public_key()))
    return msgspec.json.encode(_Envelope(_PAYLOAD, payload, [signature]))


def verify(folder: Path, name: str, keys: Sequence[Ed25519PublicKey]) -> None:
    """Check that a folder holds just the files that one of the keys has signed.

    :param name: the artifact's name, for messages.
    :raises NotTrusted: if it is not so.
    """
    signed = _statement(folder, name, keys)
    found = dict(_files(folder, name))
    found.pop(SIGNATURE, None)
    for file, path in found.items():
        if file not in signed:
            raise NotTrusted(f"{name!r} holds {file!r}, which is not signed; take it out, or {_SIGN}")
        try:
            same = digest(path) == signed[file]
        except OSError as error:
            raise NotTrusted(f"{file!r} of {name!r} cannot be read: {error.strerror}") from error
        if not same:
            raise NotTrusted(f"{file!r} of {name!r} is not the file that was signed; put that there, or {_SIGN}")
    if missing := sorted(signed.keys() - found.keys()):
        raise NotTrusted(f"{name!r} lacks {missing[0]!r}, which was signed; put it there, or {_SIGN}")


def digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal.

    :raises OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        found = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _signed(kind: str, payload: bytes) -> bytes:
    """Return the bytes that DSSE signs: with their kind, so that no signature serves for another purpose."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def _statement(folder: Path, name: str, keys: Sequence[Ed25519PublicKey]) -> dict[str, str]:
    """Return the signed digests by file."""
    from cryptography.exceptions import InvalidSignature

    path = folder / SIGNATURE
    if not os.path.lexists(path):
        raise NotTrusted(f"{name!r} is not signed, and this server takes only what is; {_SIGN}")
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LIMIT:
            raise NotTrusted(f"{SIGNATURE} of {name!r} is no file of at most {LIMIT} bytes; {_SIGN}")
        envelope = msgspec.json.decode(path.read_bytes(), type=_Envelope)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotTrusted(f"{SIGNATURE} of {name!r} cannot be read: {error}; {_SIGN}") from error
    message = _signed(envelope.payload_type, envelope.payload)
    for key in keys:
        for signature in envelope.signatures:
            try:
                key.verify(signature.sig, message)
            except InvalidSignature:
                continue
            return _digests(envelope, name)
    by = ", ".join(repr(signature.keyid[:60]) for signature in envelope.signatures[:3]) or "none"
    raise NotTrusted(
        f"{name!r} is signed by no key that this server trusts (it says: {by}); sign it with one that is, "
        "or add the key to the server's trusted_keys"
    )


def _digests(envelope: _Envelope, name: str) -> dict[str, str]:
    """Return what a statement says whose signature is right: of this kind, or it was made for another purpose."""
    try:
        if envelope.payload_type != _PAYLOAD:
            raise ValueError(f"a payload of {envelope.payload_type!r}")
        statement = msgspec.json.decode(envelope.payload, type=_Statement)
        if (statement.type, statement.predicate_type) != (_STATEMENT, _PREDICATE):
            raise ValueError(f"a statement of {statement.predicate_type!r}")
        digests = {subject.name: subject.digest["sha256"] for subject in statement.subject}
        if len(digests) != len(statement.subject):
            raise ValueError("a file named twice")
    except (KeyError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise NotTrusted(f"{SIGNATURE} of {name!r} is signed, but not a list of files: {error}; {_SIGN}") from error
    return digests


def _files(folder: Path, name: str) -> list[tuple[str, Path]]:
    """Return every file, hidden ones and empty folders too: code may read or import them as well."""
    found = []
    waiting = [(folder, "")]
    try:
        while waiting:
            at, prefix = waiting.pop()
            with os.scandir(at) as scan:
                entries = list(scan)
            if not entries:
                found.append((prefix, at))
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append((Path(entry.path), f"{prefix}{entry.name}/"))
                elif stat.S_ISREG(mode):
                    found.append((prefix + entry.name, Path(entry.path)))
                else:
                    raise BadArtifact(f"{name!r} holds {prefix + entry.name!r}, which is neither a file nor a folder")
    except OSError as error:
        raise BadArtifact(f"{name!r} cannot be read: {error.strerror}") from error
    return found
