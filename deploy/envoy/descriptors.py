"""Writes what Envoy must know of our messages to transcode JSON: descriptors.py FILE.

It is made of the same generated code that the server runs, so that the two cannot differ. The details of errors are in
it too: without them an error's JSON would be empty.
"""

import sys
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2

from proto.quicksilver.v1 import converter_pb2

FILES = (converter_pb2.DESCRIPTOR, status_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR)


def descriptor_set(*files: FileDescriptor) -> FileDescriptorSet:
    """These .proto files and all that they import, once each, behind what they need."""
    found: dict[str, FileDescriptor] = {}

    def add(one: FileDescriptor) -> None:
        if one.name not in found:
            for imported in one.dependencies:
                add(imported)
            found[one.name] = one

    for file in files:
        add(file)
    answer = FileDescriptorSet()
    for one in found.values():
        one.CopyToProto(answer.file.add())
    return answer


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(descriptor_set(*FILES).SerializeToString())
