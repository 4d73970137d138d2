"""The contracts between training and serving: what crosses the wire, and what crosses the disk."""
