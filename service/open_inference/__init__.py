"""The Open Inference Protocol v2, `inference.GRPCInferenceService`, as Triton's and KServe's clients speak it.

`request` reads what is asked, `plan` fits it to a version, `infer` makes a batched method of both, `stream` carries it
over a stream; `tensors` turns contents into arrays and back. The rest tells of the server: `metadata`, `statistics`,
`logs`, `repository_control`. `api` lists the methods. Only the server imports this package: a client's process may
hold another copy of the protocol's messages, and two cannot stand in one.
"""

from typing import Final

SERVICE: Final = "inference.GRPCInferenceService"
