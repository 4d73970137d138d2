"""Observations of true temperatures: taken in, joined to what was answered, and measured against.

What a caller reports goes to the store (`recorder`) and is answered when it is durable. Each process that serves then
looks at the store (`follower`): it joins observations to answers of its own (`answers`), and measures every loaded
version against the latest observations (`figures`). So live quality is a function of the store: it is the same in every
worker, in every server on one store, and after a restart.
"""

from service.observations.link import StoreSettingError
from service.observations.observations import Observations

__all__ = ["Observations", "StoreSettingError"]
