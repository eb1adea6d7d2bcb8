"""What multi-model-server starts as a model process, where these are forks of the zygote.

Copied to ``mms/model_service_worker.py`` below a ``MODEL_SERVER_HOME`` of ours. It hands its arguments
and its standard output and error to the zygote, and stays until multi-model-server ends it, even when the
fork is gone: the thread that waited for a process which ended by itself is used for another model while
multi-model-server still takes it for that of the first, and unloading that would end the other model
(``WorkerThread.run`` fails at ``backendChannel.disconnect()``, before it forgets its thread).

Stands alone: what it imported would be paid for by each model.
"""

# ruff: noqa: PTH100, PTH120

import _socket
import os
import sys

_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main() -> None:
    """Hand over, and wait to be ended."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    connection.connect(os.path.join(_FOLDER, "zygote.sock"))
    fds = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (1, 2))
    connection.sendmsg(["\0".join(sys.argv[1:]).encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
    connection.recv(1)  # nothing is ever sent: the zygote is gone, or could not fork


if __name__ == "__main__":
    main()
