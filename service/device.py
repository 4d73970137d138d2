"""Where a model may run, in the words of the settings; no runtime is imported to say so."""

from typing import Literal

Device = Literal["cpu", "cuda", "auto"]
