"""The trusted-publishing broker. `from broker import create_app` puts it into an ASGI application of your own."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["__version__", "create_app"]

if TYPE_CHECKING:
    from broker.app import create_app
else:

    def __getattr__(name: str) -> Any:
        # When it is asked for: every module of the package imports this one, and few need a web server.
        if name == "create_app":
            from broker.app import create_app  # noqa: PLC0415 - see above

            return create_app
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
