"""What a server does about its memory beside using it."""

import gc


def settle_memory() -> None:
    """Let the garbage collector never again look at what is there now: once a server is up, that stays.

    Modules, classes, compiled messages and the models' tables are a hundred thousand objects or more. A full collection
    would walk all of them, for tens of milliseconds, during which no call is answered; and since they are never garbage
    it would find nothing. What comes later is collected as ever.
    """
    gc.collect()
    gc.freeze()
