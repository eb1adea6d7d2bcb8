"""Asks models by the SageMaker Python SDK, version 2, as it comes; run by its interpreter, prints what it got.

``python sdk_client.py PORT``: a server of the models ``iris.joblib`` (scikit-learn, of the iris data) and ``echo`` (a
script that answers with its input) listens there.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import boto3
import numpy as np
import pandas as pd
import sagemaker
import scipy.sparse
from sagemaker import deserializers, serializers
from sagemaker.local import LocalSession
from sagemaker.local.local_session import LocalSagemakerRuntimeClient
from sagemaker.predictor import Predictor

FLOWERS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]])
LIBSVM = "0 1:5.1 2:3.5 3:1.4 4:0.2\n2 1:6.7 2:3.0 3:5.2 4:2.3\n"

#: What is sent with each serializer.
SENT: dict[str, tuple[Any, Any]] = {
    "CSV of an array": (serializers.CSVSerializer(), FLOWERS),
    "CSV of a list": (serializers.CSVSerializer(), FLOWERS.tolist()),
    "CSV of a data frame": (serializers.CSVSerializer(), pd.DataFrame(FLOWERS)),
    "JSON of an array": (serializers.JSONSerializer(), FLOWERS),
    "JSON of a dict": (serializers.JSONSerializer(), {"instances": FLOWERS}),
    "JSON lines": (serializers.JSONLinesSerializer(), FLOWERS.tolist()),
    "JSON lines of dicts": (serializers.JSONLinesSerializer(), [{"features": row} for row in FLOWERS.tolist()]),
    "npy": (serializers.NumpySerializer(), FLOWERS),
    "npy of float32": (serializers.NumpySerializer(dtype="float32"), FLOWERS.tolist()),
    "npz": (serializers.SparseMatrixSerializer(), scipy.sparse.csr_matrix(FLOWERS)),
    "npz of coo": (serializers.SparseMatrixSerializer(), scipy.sparse.coo_matrix(FLOWERS)),
    "libsvm": (serializers.LibSVMSerializer(), LIBSVM),
    "RecordIO": (serializers.RecordSerializer(), FLOWERS),
    "RecordIO of float32": (serializers.RecordSerializer(), FLOWERS.astype(np.float32)),
    "identity": (serializers.IdentitySerializer("text/csv"), b"5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3"),
    "string": (serializers.StringSerializer("application/json"), json.dumps(FLOWERS.tolist())),
    "data": (serializers.DataSerializer("application/json"), json.dumps(FLOWERS.tolist()).encode()),
}

#: What answers are read with, and what is made of them to print them.
READ: dict[str, tuple[Any, Any]] = {
    "JSON": (deserializers.JSONDeserializer(), lambda read: read),
    "JSON lines": (deserializers.JSONLinesDeserializer(), lambda read: read),
    "CSV": (deserializers.CSVDeserializer(), lambda read: read),
    "npy": (deserializers.NumpyDeserializer(), lambda read: [str(read.dtype), read.tolist()]),
    "npy as JSON": (deserializers.NumpyDeserializer(accept="application/json"), lambda read: read.tolist()),
    "npy as CSV": (deserializers.NumpyDeserializer(accept="text/csv"), lambda read: read.tolist()),
    "bytes": (deserializers.BytesDeserializer(), lambda read: read.decode()),
    "string": (deserializers.StringDeserializer(), lambda read: read),
    "stream": (deserializers.StreamDeserializer(), lambda read: [read[0].read().decode(), read[1]]),
    "pandas": (deserializers.PandasDeserializer(accept="application/json"), lambda read: read.to_numpy().tolist()),
    "pandas as CSV": (deserializers.PandasDeserializer(accept="text/csv"), lambda read: list(read.columns)),
    "RecordIO": (
        deserializers.RecordDeserializer(),
        lambda read: [list(record.label["values"].int32_tensor.values) for record in read],
    ),
}


def answers(session: Any) -> dict[str, Any]:
    """Return what came of each serializer and deserializer, of errors their text."""
    found: dict[str, Any] = {}
    ways = [("sent as " + name, way, READ["JSON"]) for name, way in SENT.items()]
    ways += [("read as " + name, SENT["JSON of an array"], way) for name, way in READ.items()]
    for name, (serializer, data), (deserializer, shown) in ways:
        predictor = Predictor("any", session, serializer, deserializer)
        try:
            found[name] = shown(predictor.predict(data, target_model="iris.joblib"))
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    predictor = Predictor("any", session)
    found["untouched bytes"] = predictor.predict(
        bytes(range(256)), target_model="echo", inference_id="one", custom_attributes="a=b", target_variant="AllTraffic"
    ).hex()
    return found


def main(port: int) -> None:
    """Print the answers by boto3, as AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME says, and in local mode."""
    local = LocalSession(boto_session=boto3.Session(region_name="eu-central-1"))
    local.sagemaker_runtime_client = LocalSagemakerRuntimeClient({"local": {"serving_port": port}})
    found = {
        "version": sagemaker.__version__,
        "boto3": answers(sagemaker.Session(boto_session=boto3.Session(region_name="eu-central-1"))),
        "local": answers(local),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
