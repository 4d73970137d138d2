"""Measures Quicksilver beside other model servers, on the same cores, with the same bytes: see `make bench`."""
