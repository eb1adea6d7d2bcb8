"""Requests that have to be signed: by botocore's own signer, and spoilt in every part."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result
from serving import FLOWER, Server, as_json, constant, serve, until

from manymodels.cli import cli
from manymodels.errors import SettingsError
from manymodels.http.sigv4 import AccessKeys, Secret
from manymodels.spool import LARGE

KEYS = {"AKIAONE": "one/secret", "ASIATWO": {"secret": "two+secret", "session_token": "token=="}}
PATH = "/endpoints/a%20b%2Fc/./invocations"
BODY = as_json([FLOWER])
MEMBERS = {
    "Content-Type": "application/json",
    "Accept": "text/csv",
    "X-Amzn-SageMaker-Target-Model": "team/mod  èle.tar.gz",
    "X-Amzn-SageMaker-Custom-Attributes": " trace=9 ",
    "User-Agent": "boto3",
    "X-Amzn-Trace-Id": "Root=1",
}
INVALID = "InvalidSignatureException"


class Signed:
    """A request as it comes from a client, and what spoils it."""

    def __init__(
        self,
        key: str = "AKIAONE",
        secret: str = "one/secret",
        token: str | None = None,
        service: str = "sagemaker",
        query: str = "b=2&a=%2F&a=",
        **headers: str,
    ) -> None:
        self.method, self.path, self.query, self.body = b"POST", PATH.encode(), query.encode(), BODY
        request = AWSRequest("POST", f"http://host:8080{PATH}?{query}", {**MEMBERS, **headers}, data=BODY)
        SigV4Auth(Credentials(key, secret, token), service, "eu-central-1").add_auth(request)
        self.headers = {name.lower(): str(value) for name, value in request.headers.items()}
        self.headers.setdefault("host", "host:8080")

    def refusal(self, clock: Callable[[], float] = time.time, *, large: bool = False) -> str | None:
        """Return by what name it is refused, if it is."""
        secrets = {"AKIAONE": Secret("one/secret"), "ASIATWO": Secret("two+secret", "token==")}
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        digest = None if large else hashlib.sha256(self.body).hexdigest()
        refusal = AccessKeys(secrets, clock).check(self.method, self.path, self.query, headers, digest)
        return None if refusal is None else refusal.kind


@pytest.mark.parametrize(
    "sign",
    [
        Signed,
        partial(Signed, query=""),
        partial(Signed, "ASIATWO", "two+secret", "token=="),
        partial(Signed, **{"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}),
    ],
)
def test_what_is_signed_is_taken(sign: Callable[[], Signed]) -> None:
    assert sign().refusal() is None


def test_what_is_set_on_the_way_does_not_matter() -> None:
    signed = Signed()
    signed.headers |= {"x-amzn-trace-id": "Root=2", "user-agent": "proxy", "x-forwarded-for": "::1"}
    assert signed.refusal() is None


@pytest.mark.parametrize(
    ("sign", "kind"),
    [
        (partial(Signed, secret="another"), INVALID),
        (partial(Signed, service="s3"), INVALID),
        (partial(Signed, "AKIANONE"), "UnrecognizedClientException"),
        (partial(Signed, token="token=="), "UnrecognizedClientException"),
        (partial(Signed, "ASIATWO", "two+secret"), "UnrecognizedClientException"),
        (partial(Signed, "ASIATWO", "two+secret", "token"), "UnrecognizedClientException"),
        (partial(Signed, **{"X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}), INVALID),
        (partial(Signed, **{"X-Amz-Content-SHA256": "0" * 64}), INVALID),
    ],
)
def test_what_is_signed_otherwise_is_refused(sign: Callable[[], Signed], kind: str) -> None:
    assert sign().refusal() == kind


@pytest.mark.parametrize("member", ["method", "path", "query", "body"])
def test_what_is_changed_on_the_way_is_refused(member: str) -> None:
    signed = Signed()
    setattr(signed, member, getattr(signed, member) + b"x")
    assert signed.refusal() == INVALID


@pytest.mark.parametrize("name", ["host", "content-type", "x-amzn-sagemaker-target-model", "accept"])
def test_a_header_that_is_changed_on_the_way_is_refused(name: str) -> None:
    signed = Signed()
    signed.headers[name] += "x"
    assert signed.refusal() == INVALID
    del signed.headers[name]
    assert signed.refusal() == INVALID


def test_a_header_that_comes_without_being_signed_is_refused() -> None:
    for name in ("x-amzn-sagemaker-session-id", "x-amz-meta", "content-encoding"):
        signed = Signed()
        signed.headers[name] = "added"
        assert signed.refusal() == INVALID


def test_clocks_may_differ_by_five_minutes() -> None:
    signed = Signed()
    now = time.time()
    for moment, kind in ((now - 298, None), (now + 298, None), (now - 302, INVALID), (now + 302, INVALID)):
        assert signed.refusal(partial(float, moment)) == kind


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (None, None, "MissingAuthenticationTokenException"),
        ("AWS4-HMAC-SHA256", "Bearer", "IncompleteSignatureException"),
        ("aws4_request", "aws5_request", "IncompleteSignatureException"),
        ("Signature=", "Signature=0", "IncompleteSignatureException"),
        ("SignedHeaders=accept;", "SignedHeaders=", INVALID),
        ("host;", "", INVALID),
        ("host;", "host;none;", INVALID),
        ("eu-central-1", "us-east-1", INVALID),
        ("AKIAONE/2", "AKIAONE/1", INVALID),
    ],
)
def test_an_authorization_that_is_none(old: str | None, new: str, kind: str) -> None:
    signed = Signed()
    if old is None:
        del signed.headers["authorization"]
    else:
        assert old in signed.headers["authorization"]
        signed.headers["authorization"] = signed.headers["authorization"].replace(old, new, 1)
    assert signed.refusal() == kind


def test_a_date_that_is_none() -> None:
    signed = Signed()
    for value in ("", "now", "20261327T000000Z"):
        signed.headers["x-amz-date"] = value
        assert signed.refusal() == "IncompleteSignatureException"


def test_a_body_too_large_to_be_kept_is_refused_unless_it_is_not_signed() -> None:
    assert Signed().refusal(large=True) == INVALID
    assert Signed(**{"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}).refusal(large=True) is None


@pytest.mark.parametrize("content", ["[]", "{}", '{"a": ""}', '{"a": {}}', '{"a": {"secret": "x", "more": 1}}', "\xff"])
def test_a_file_that_does_not_do(content: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(SettingsError, match="access_keys is"):
        AccessKeys.read(file)


# -- A server --


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of keys."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    file.write_text(json.dumps(KEYS))
    return file


@pytest.fixture(scope="module")
def guarded(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants signatures, two processes of which speak HTTP."""
    folder = tmp_path_factory.mktemp("guarded")
    constant(folder / "store" / "mod" / "èle.joblib", 1.0)
    options = ("--workers", "1", "--fronts", "2", "--access-keys", keys)
    with serve(folder, folder / "store", *options) as server:
        yield server


def connect(
    server: Server, key: str, secret: str, token: str | None = None, service: str = "sagemaker-runtime", **config: Any
) -> Any:
    """Return a client that tries once."""
    return boto3.client(
        service,
        endpoint_url=server.url,
        region_name="eu-central-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(retries={"max_attempts": 0}, **config),
    )


def invoke(server: Server, key: str, secret: str, token: str | None = None, body: bytes = BODY, **config: Any) -> bytes:
    """Return a model's answer."""
    client = connect(server, key, secret, token, **config)
    reply = client.invoke_endpoint(
        EndpointName="a b", TargetModel="mod/èle.joblib", ContentType="application/json", Body=body
    )
    client.close()
    answer: bytes = reply["Body"].read()
    return answer


def test_boto3_is_answered(guarded: Server) -> None:
    assert invoke(guarded, "AKIAONE", "one/secret") == b"[1.0]"
    assert invoke(guarded, "ASIATWO", "two+secret", "token==") == b"[1.0]"


def test_a_large_body_is_signed_too(guarded: Server) -> None:
    rows = [FLOWER] * (LARGE // len(BODY) + 1)
    assert json.loads(invoke(guarded, "AKIAONE", "one/secret", body=as_json(rows))) == [1.0] * len(rows)
    with pytest.raises(ClientError, match=INVALID):
        invoke(guarded, "AKIAONE", "wrong", body=as_json(rows))


@pytest.mark.parametrize(
    ("key", "config", "kind"),
    [
        ("AKIAONE", {}, INVALID),
        ("AKIANONE", {}, "UnrecognizedClientException"),
        ("AKIAONE", {"signature_version": UNSIGNED}, "MissingAuthenticationTokenException"),
    ],
)
def test_boto3_is_told_why_it_is_not(guarded: Server, key: str, config: dict[str, Any], kind: str) -> None:
    with pytest.raises(ClientError) as caught:
        invoke(guarded, key, "wrong", **config)
    response: Any = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (kind, 403)
    assert response["Error"]["Message"]
    assert response["ResponseMetadata"]["RequestId"]


def test_clients_of_the_control_plane_are_told_too(guarded: Server) -> None:
    for secret, code in (("wrong", INVALID), ("one/secret", "404")):  # it has none
        client = connect(guarded, "AKIAONE", secret, service="sagemaker")
        with pytest.raises(ClientError) as caught:
            client.list_endpoints()
        assert caught.value.response["Error"]["Code"] == code
        assert ("--emulate-sagemaker" in str(caught.value)) == (code == "404")
        client.close()


def test_no_other_path_is_open(guarded: Server) -> None:
    for path in ("/ping", "/metrics"):
        assert guarded.client.get(path).status_code == 200
        assert guarded.client.post(path).status_code == 403
    assert guarded.invoke("mod/èle.joblib", [FLOWER]).status_code == 403
    for path in ("/models", "/artifacts", "/docs", "/nowhere", "/ping?x=1/../../models", "/%70ing"):
        assert guarded.client.get(path).status_code == (200 if path.startswith("/ping?") else 403)
    assert guarded.client.delete("/models/mod%2F%C3%A8le.joblib").status_code == 403


# -- The server's own commands --


def command(server: Server, *words: str, **env: str) -> Result:
    """Run a command, with no credentials but those that are given."""
    nothing = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none"}
    return CliRunner().invoke(cli, [*words, "--url", server.url], env={**nothing, **env})


ONE = {"AWS_ACCESS_KEY_ID": "AKIAONE", "AWS_SECRET_ACCESS_KEY": "one/secret"}
TWO = {"AWS_ACCESS_KEY_ID": "ASIATWO", "AWS_SECRET_ACCESS_KEY": "two+secret", "AWS_SESSION_TOKEN": "token=="}


@pytest.mark.parametrize("env", [ONE, TWO])
def test_commands_sign_with_the_credentials_of_awss_own_tools(guarded: Server, env: dict[str, str]) -> None:
    invoked = command(guarded, "invoke", "mod/èle.joblib", BODY.decode(), "--accept", "text/csv", **env)
    assert (invoked.exit_code, invoked.output) == (0, "1.0\n")
    described = command(guarded, "models", "mod/èle.joblib", "--json", **env)
    assert json.loads(described.output)["modelName"] == "mod/èle.joblib"
    listed = command(guarded, "models", "--json", **env)
    assert "mod/èle.joblib" in [model["artifact"] for model in json.loads(listed.output)]


def test_commands_say_why_they_are_refused(guarded: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "set AWS_ACCESS_KEY_ID" in command(guarded, "models").output
    assert f"403 {INVALID}: " in command(guarded, "models", **{**ONE, "AWS_SECRET_ACCESS_KEY": "x"}).output
    assert "profile (none)" in command(guarded, "models", AWS_PROFILE="none").output
    for module in [name for name in sys.modules if name.startswith(("botocore", "manymodels.cli.signing"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])  # as where it is not installed
    assert "pip install botocore" in command(guarded, "models", **ONE).output


# -- The file changes --


def test_keys_come_and_go_with_the_file(guarded: Server, keys: Path) -> None:
    keys.write_text(json.dumps({"AKIATHREE": "three"}))
    until(lambda: guarded.log().count("access keys are read anew") == 2, "both fronts know")
    assert invoke(guarded, "AKIATHREE", "three") == b"[1.0]"
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        invoke(guarded, "AKIAONE", "one/secret")
    keys.write_text("{}")
    until(lambda: guarded.log().count("access keys stay as they were") == 2, "both fronts say that it is wrong")
    assert invoke(guarded, "AKIATHREE", "three") == b"[1.0]"
    keys.write_text(json.dumps(KEYS))
    until(lambda: guarded.log().count("access keys are read anew") == 4, "both fronts know")
    assert invoke(guarded, "AKIAONE", "one/secret") == b"[1.0]"
