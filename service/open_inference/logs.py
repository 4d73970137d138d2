"""LogSettings: what the process logs, in the words of Triton's clients.

`log_info`, `log_warning` and `log_error` let lines of each severity through, `log_verbose_level` above 0 those for
debugging too. `log_file` is always empty, since lines go to stderr, and `log_format` is told, not changed.
"""

from collections.abc import Callable, Mapping
from typing import Final

from proto.inference.v2 import open_inference_pb2 as pb
from service.calls import Context, Method
from service.errors import InvalidRequestError
from service.logs import SWITCHES, LogSwitches
from service.open_inference import SERVICE
from service.slow import slow_unary

_SWITCHES: Final = {"log_info": "info", "log_warning": "warning", "log_error": "error"}
_VERBOSE: Final = "log_verbose_level"
_FIXED: Final = {"log_file": "", "log_format": "default"}


class LogControl:
    """Reads and changes the switches of the process's log.

    Where several processes serve, `change` changes those of all of them and returns when that is done; what raises a
    ServiceError there ends the call.
    """

    def __init__(
        self,
        guard: Callable[[Context], None],
        change: Callable[[Mapping[str, bool]], None] | None = None,
        switches: LogSwitches = SWITCHES,
    ) -> None:
        self._guard = guard
        self._change = change or switches.set
        self._switches = switches

    def method(self) -> Method:
        """The method. Only a request that changes something asks the guard."""
        return slow_unary(f"/{SERVICE}/LogSettings", pb.LogSettingsRequest, self._answer)

    def _answer(self, request: pb.LogSettingsRequest, context: Context) -> pb.LogSettingsResponse:
        if request.settings:
            self._guard(context)
            self._change(read_settings(request.settings))
        return self.describe()

    def describe(self) -> pb.LogSettingsResponse:
        """Tell the settings as they are."""
        enabled = self._switches.enabled
        response = pb.LogSettingsResponse()
        for name, level in _SWITCHES.items():
            response.settings[name].bool_param = enabled[level]
        response.settings[_VERBOSE].uint32_param = int(enabled["debug"])
        for name, text in _FIXED.items():
            response.settings[name].string_param = text
        return response


def read_settings(settings: Mapping[str, pb.LogSettingsRequest.SettingValue]) -> dict[str, bool]:
    """Read which severities a request switches on or off.

    Raises:
        InvalidRequestError: a setting is unknown, of another type, or cannot be changed; nothing is changed then.
    """
    changes = {}
    for name, value in settings.items():
        field = f"settings[{name[:80]}]"
        held = value.WhichOneof("parameter_choice")
        if name in _SWITCHES:
            if held != "bool_param":
                raise InvalidRequestError(field, "is not true or false")
            changes[_SWITCHES[name]] = value.bool_param
        elif name == _VERBOSE:
            if held != "uint32_param":
                raise InvalidRequestError(field, "is not a whole number")
            changes["debug"] = value.uint32_param > 0
        elif name in _FIXED:
            if held != "string_param" or value.string_param != _FIXED[name]:
                raise InvalidRequestError(field, f"is {_FIXED[name]!r} and cannot be changed while the server runs")
        else:
            known = ", ".join([*_SWITCHES, _VERBOSE, *_FIXED])
            raise InvalidRequestError(field, f"there is no such setting: there are {known}")
    return changes
