"""The options of a server that is sent to. Imports nothing of torch or grpc."""

import argparse
from pathlib import Path


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add the options that go with `--to`."""
    group = parser.add_argument_group("with --to")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="file with the server's admin token")
    group.add_argument(
        "--tls-authorities", type=Path, metavar="FILE", help="PEM file of who signs the server's certificate; uses TLS"
    )
    group.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM file of this client's certificate")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM file of its private key")
    group.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="time for the server (default: %(default)s)"
    )
