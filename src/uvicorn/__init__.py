"""WebSockets for uvicorn: ``uvicorn --ws wsframe.uvicorn:WebSocketProtocol app:app``.

Applications for FastAPI, Starlette and any other ASGI framework run unchanged.
"""

from .protocol import WebSocketProtocol
from .timing import Timing

__all__ = ["Timing", "WebSocketProtocol"]
